"""Streams read side by side, and the drafts that are made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from actors.gateway.draft import Draft
from actors.gateway.gathering import Gathering
from actors.gateway.generation import Ended, FirstToken, Generation, Tokens
from cluster.errors import Lost
from cluster.ids import RequestId
from cluster.request import ChatCall, FinishReason, Request, Sampling, TokenLogprobs
from cluster.telemetry.metrics import Metrics
from cluster.text.tokenizer import Tokenizer
from cluster.wire.answers import Delta

FIRST = FirstToken(0.1, 0.2)


class Source:
    """Yields what it is given, when it is given."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Tokens | Ended | Lost | None] = asyncio.Queue()
        self.is_closed = False

    async def read(self) -> AsyncGenerator[Tokens | Ended, None]:
        try:
            while (event := await self.events.get()) is not None:
                if isinstance(event, Lost):
                    raise event
                yield event
        finally:
            self.is_closed = True

    async def give(self, *events: Tokens | Ended | Lost | None) -> None:
        for event in events:
            self.events.put_nowait(event)
        # Until the reading task has come round.
        for _ in range(5):
            await asyncio.sleep(0)


async def test_tokens_that_wait_are_joined_and_the_first_is_taken_at_once() -> None:
    source = Source()
    gathering = Gathering([source.read()])
    await source.give(Tokens((1,), FIRST))
    assert await anext(gathering) == (0, Tokens((1,), FIRST))
    await source.give(Tokens((2,)), Tokens((3, 4)), Ended(FinishReason.STOP), None)
    assert await anext(gathering) == (0, Tokens((2, 3, 4)))
    assert await anext(gathering) == (0, Ended(FinishReason.STOP))
    with pytest.raises(StopAsyncIteration):
        await anext(gathering)
    assert source.is_closed


async def test_a_reader_who_waits_gets_what_comes_next_of_any_choice() -> None:
    sources = [Source(), Source()]
    gathering = Gathering([source.read() for source in sources])
    waiting = asyncio.create_task(gathering.__anext__())
    await sources[1].give(Tokens((7,)))
    assert await waiting == (1, Tokens((7,)))
    await sources[0].give(Tokens((1,)))
    await sources[1].give(Tokens((8,)))
    assert [await anext(gathering) for _ in range(2)] == [(0, Tokens((1,))), (1, Tokens((8,)))]
    await gathering.aclose()
    assert all(source.is_closed for source in sources)


async def test_a_choice_that_is_dropped_is_closed_and_the_others_go_on() -> None:
    sources = [Source(), Source()]
    gathering = Gathering([source.read() for source in sources])
    await sources[0].give(Tokens((1,)), Tokens((2,)))
    await sources[1].give(Tokens((9,)))
    await gathering.drop(0)
    assert sources[0].is_closed
    assert not sources[1].is_closed
    assert await anext(gathering) == (1, Tokens((9,)))
    await sources[1].give(None)
    with pytest.raises(StopAsyncIteration):
        await anext(gathering)
    await gathering.aclose()


async def test_an_error_comes_after_what_arrived_before_it() -> None:
    sources = [Source(), Source()]
    gathering = Gathering([source.read() for source in sources])
    await sources[1].give(Tokens((1,)), Lost("gone"))
    assert await anext(gathering) == (1, Tokens((1,)))
    with pytest.raises(Lost, match="gone"):
        await anext(gathering)
    assert not sources[0].is_closed
    await gathering.aclose()
    assert sources[0].is_closed


async def test_news_is_waited_for_with_a_limit() -> None:
    source = Source()
    gathering = Gathering([source.read()])
    assert not await gathering.arrives_within(0.01)
    await source.give(Lost("full"))
    with pytest.raises(Lost):
        await gathering.arrives_within(1.0)
    await gathering.aclose()


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_folder)


def draft_of(tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> Draft:
    sampling = Sampling(num_logprobs=1)
    request = Request(RequestId("r"), ((1,),), sampling, 1e9)
    call = ChatCall("m", (), sampling, stop=stop)
    return Draft(Generation(request, None, Metrics("gateway")), call, tokenizer)  # type: ignore[arg-type]


def likely(ids: Sequence[int]) -> Tokens:
    """Each token's logprob is its id, negated, and the likeliest in its place is 65."""
    return Tokens(tuple(ids), None, tuple(TokenLogprobs(-float(i), ((65, -0.5),)) for i in ids))


def written(draft: Draft, ids: Sequence[int], size: int) -> tuple[str, list[int]]:
    deltas: list[Delta | None] = []
    for start in range(0, len(ids), size):
        if draft.finish_reason is None:
            deltas.append(draft.take(likely(ids[start : start + size])))
    if draft.finish_reason is None:
        deltas.append(draft.take(Ended(FinishReason.LENGTH)))
    there = [delta for delta in deltas if delta is not None]
    return "".join(d.text for d in there), [t.id for d in there for t in d.logprobs]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_logprobs_come_with_the_text_however_tokens_arrive(tokenizer: Tokenizer, size: int) -> None:
    ids = tokenizer.encode("naïve 漢字 done")
    draft = draft_of(tokenizer)
    assert written(draft, ids, size) == ("naïve 漢字 done", list(ids))
    assert draft.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_token_of_a_stop_string_alone_has_no_logprob(tokenizer: Tokenizer, size: int) -> None:
    before, stop = tokenizer.encode("one "), tokenizer.encode("</s>")
    ids = (*before, *stop, *tokenizer.encode("two"))
    draft = draft_of(tokenizer, stop=("</s>",))
    assert written(draft, ids, size) == ("one ", list(before))
    assert draft.finish_reason is FinishReason.STOP


def test_half_a_character_at_the_end_is_shown_with_its_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a漢")[:-1]
    draft = draft_of(tokenizer)
    first = draft.take(likely(ids))
    assert first is not None
    last = draft.take(Ended(FinishReason.LENGTH))
    assert last is not None
    assert "�" in last.text
    tokens = (*first.logprobs, *last.logprobs)
    assert "a漢".encode().startswith(b"".join(token.bytes for token in tokens))
    assert [token.id for token in tokens] == list(ids)
    assert tokens[0].top[0].bytes == tokenizer.bytes_of(65)
