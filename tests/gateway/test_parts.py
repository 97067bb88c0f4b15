"""The small parts: reading ahead, counting slots, turning ids into text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from actors.gateway.admission import Admission
from actors.gateway.ahead import Ahead
from actors.gateway.transcript import Transcript
from cluster.clock import ManualClock
from cluster.errors import Lost, Overloaded
from cluster.telemetry.metrics import Metrics
from cluster.text.tokenizer import Tokenizer


class Source:
    """Counts up, one number at each `release`; ends with an error."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(0)
        self.is_closed = False

    async def numbers(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(2):
                await self.gate.acquire()
                yield number
            raise Lost("no more")
        finally:
            self.is_closed = True


async def test_an_item_that_is_late_is_not_lost() -> None:
    source = Source()
    ahead = Ahead(source.numbers())
    assert not await ahead.arrives_within(0.01)
    source.gate.release()
    assert await ahead.arrives_within(1.0)
    assert await anext(ahead) == 0
    source.gate.release()
    assert await anext(ahead) == 1
    with pytest.raises(Lost):
        await ahead.arrives_within(1.0)
    await ahead.aclose()


async def test_the_end_of_a_stream_arrives_like_an_item() -> None:
    async def nothing() -> AsyncGenerator[int, None]:
        return
        yield

    ahead = Ahead(nothing())
    assert await ahead.arrives_within(1.0)
    with pytest.raises(StopAsyncIteration):
        await anext(ahead)


@pytest.mark.parametrize("num_read", [0, 1])
async def test_closing_reaches_a_source_that_waits(num_read: int) -> None:
    source = Source()
    ahead = Ahead(source.numbers())
    for _ in range(num_read):
        source.gate.release()
        await anext(ahead)
    assert not await ahead.arrives_within(0.01)
    await ahead.aclose()
    assert source.is_closed


async def test_a_reader_that_is_cancelled_cancels_the_source() -> None:
    source = Source()
    ahead = Ahead(source.numbers())

    async def read() -> int:
        return await anext(ahead)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert source.is_closed
    await ahead.aclose()


def test_a_slot_comes_back_however_its_request_ends() -> None:
    admission = Admission(1, ManualClock(), Metrics("gateway"))
    with pytest.raises(Lost), admission.slot():
        raise Lost("gone")
    assert admission.num_inside == 0
    with admission.slot(), pytest.raises(Overloaded), admission.slot():
        pass
    assert admission.num_inside == 0


def test_retry_after_grows_with_how_long_requests_take() -> None:
    clock = ManualClock()
    admission = Admission(1, clock, Metrics("gateway"))
    assert admission.retry_after_s == 1.0
    for _ in range(3):
        with admission.slot():
            clock.advance(20.0)
    assert admission.retry_after_s == pytest.approx(10.0)
    for _ in range(100):
        with admission.slot():
            clock.advance(1000.0)
    assert admission.retry_after_s == 60.0


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_folder)


def test_a_transcript_shows_neither_half_characters_nor_the_end_of_the_turn(
    tokenizer: Tokenizer,
) -> None:
    text = "naïve ✓ 漢字"
    transcript = Transcript(tokenizer, (), frozenset())
    ids = (*tokenizer.encode(text), *tokenizer.eos_ids)
    pieces = [transcript.push((i,)) for i in ids]
    assert "".join(pieces) + transcript.flush() == text
    assert not any("�" in piece for piece in pieces)


def test_a_stop_string_may_be_cut_anywhere_and_is_never_shown(tokenizer: Tokenizer) -> None:
    for text, shown in (("one END two", "one "), ("one EN", "one EN")):
        transcript = Transcript(tokenizer, ("END",), frozenset())
        pieces = [transcript.push((i,)) for i in tokenizer.encode(text)]
        assert "".join(pieces) + transcript.flush() == shown
        assert transcript.is_stopped == ("END" in text)


def test_a_stop_id_of_the_call_has_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab!")
    transcript = Transcript(tokenizer, (), frozenset(ids[-1:]))
    assert transcript.push(ids) + transcript.flush() == tokenizer.decode(ids[:-1])
