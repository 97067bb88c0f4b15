"""What a worker sends of one answer: the first token at once, later ones with all that is ready."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from actors.gpu_worker import GpuWorker, _Item, _responses, _Token
from actors.roles import Site
from cluster.clock import ManualClock
from cluster.config import ThothConfig
from cluster.engine.engine import StepReport
from cluster.engine.thread import Stepped
from cluster.errors import Lost
from cluster.ids import RequestId
from cluster.request import CachedTokens, FinishReason, TokenLogprobs, WorkerLoad
from cluster.scheduling.plan import Finished, FirstToken, Why
from cluster.scheduling.stages import Work

FIRST = FirstToken(RequestId("r"), 0.5, 0.25, CachedTokens(device=32, disk=16), 9)
END = Finished(RequestId("r"), FinishReason.LENGTH, 3)


def fed(*items: _Item) -> asyncio.Queue[_Item]:
    queue: asyncio.Queue[_Item] = asyncio.Queue()
    for item in items:
        queue.put_nowait(item)
    return queue


async def test_the_first_token_is_sent_as_soon_as_it_is_there() -> None:
    queue = fed(FIRST, _Token(7, None))
    responses = _responses(queue)
    response = await anext(responses)
    assert list(response.tokens.token_ids) == [7]
    first = response.tokens.first
    assert (first.queue_s, first.prefill_s, first.computed_tokens) == (0.5, 0.25, 9)
    assert (first.cached.device, first.cached.host, first.cached.disk) == (32, 0, 16)


async def test_tokens_that_wait_for_a_slow_reader_go_out_together() -> None:
    queue = fed(FIRST, _Token(7, None))
    responses = _responses(queue)
    await anext(responses)
    for token_id in (8, 9, 10):
        queue.put_nowait(_Token(token_id, TokenLogprobs(-1.0, ((1, -0.5),))))
    response = await anext(responses)
    assert list(response.tokens.token_ids) == [8, 9, 10]
    assert not response.tokens.HasField("first")
    assert [logprobs.logprob for logprobs in response.tokens.logprobs] == [-1.0] * 3
    assert list(response.tokens.logprobs[0].top_ids) == [1]


@pytest.mark.parametrize("end", [END, Lost("gone")])
async def test_tokens_come_before_the_end(end: Finished | Lost) -> None:
    responses = _responses(fed(FIRST, _Token(7, None), _Token(8, None), end))
    assert list((await anext(responses)).tokens.token_ids) == [7, 8]
    if isinstance(end, Finished):
        assert (await anext(responses)).finished.recomputed_tokens == 3
    else:
        with pytest.raises(Lost):
            await anext(responses)


async def test_an_answer_of_no_tokens_still_says_when_it_began() -> None:
    responses = _responses(fed(FIRST, END))
    response = await anext(responses)
    assert response.tokens.first.queue_s == 0.5
    assert list(response.tokens.token_ids) == []


async def test_what_cannot_be_counted_loses_no_token() -> None:
    site = Site("gpu_worker-0", "127.0.0.1", "node-0", _nobody, ManualClock(), Random(3), print)
    worker = GpuWorker(site, ThothConfig())
    stream = worker._streams[RequestId("r")] = asyncio.Queue()
    uncountable = Why(works=(Work(rows=1),), seconds=-1.0)
    report = StepReport(tokens=((RequestId("r"), 7),), finished=(END,), why=uncountable)
    with pytest.raises(ValueError, match="non-negative"):
        worker._handle(Stepped(report, WorkerLoad()))
    assert [stream.get_nowait(), stream.get_nowait()] == [_Token(7, None), END]


async def _nobody() -> str:
    raise AssertionError("nobody is looked for")
