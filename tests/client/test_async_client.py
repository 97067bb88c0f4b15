"""The async client: what its own awaits do; the rest it shares with the sync one."""

from __future__ import annotations

import asyncio

import pytest

from cluster.client import AsyncClient, Delta, Document, Finished, RetryPolicy, Started
from cluster.errors import DeadlineExceeded, Lost, NotFound, Overloaded, Unavailable
from tests.client.conftest import Served
from tests.client.scripted import FINISHED, STARTED, delta


async def test_questions_are_answered_at_the_same_time(served: Served) -> None:
    served.gateway.pause_s = 0.2
    async with AsyncClient(served.endpoint) as client, asyncio.timeout(2.0):
        answers = await asyncio.gather(*(client.ask(f"q{i}") for i in range(20)))
    assert {answer.text for answer in answers} == {"hello"}


async def test_a_stream_is_started_then_deltas_then_finished(served: Served) -> None:
    served.gateway.events = [STARTED, delta("hel"), delta("lo"), FINISHED]
    async with AsyncClient(served.endpoint) as client, client.stream("hi") as stream:
        events = [event async for event in stream]
    assert [type(event) for event in events] == [Started, Delta, Delta, Finished]
    assert stream.answer().text == "hello"


async def test_leaving_a_stream_early_cancels_the_call(served: Served) -> None:
    served.gateway.events = [STARTED] + [delta("x")] * 1000
    served.gateway.pause_s = 0.05
    async with AsyncClient(served.endpoint) as client:
        async with client.stream("hi") as stream:
            async for event in stream:
                assert isinstance(event, Started)
                break
        assert await asyncio.to_thread(served.gateway.cancelled.wait, 5)


async def test_a_cancelled_task_cancels_its_call(served: Served) -> None:
    served.gateway.events = [STARTED] + [delta("x")] * 1000
    served.gateway.pause_s = 0.05

    has_begun = asyncio.Event()

    async def read_all() -> None:
        async with client.stream("hi") as stream:
            async for _ in stream:
                has_begun.set()

    async with AsyncClient(served.endpoint) as client:
        task = asyncio.create_task(read_all())
        await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(served.gateway.cancelled.wait, 5)


async def test_a_stream_is_opened_again_before_its_first_event_only(served: Served) -> None:
    served.gateway.failures = [Overloaded("full", retry_after_s=0.05)]
    served.gateway.events = [STARTED, Lost("gone")]
    async with AsyncClient(served.endpoint) as client, client.stream("hi") as stream:
        with pytest.raises(Lost, match="gone"):
            [event async for event in stream]
    assert len(served.gateway.calls) == 2


async def test_a_stream_that_just_ends_is_lost(served: Served) -> None:
    served.gateway.events = [STARTED]
    async with AsyncClient(served.endpoint) as client, client.stream("hi") as stream:
        with pytest.raises(Lost, match="before the answer"):
            [event async for event in stream]


async def test_errors_are_typed_and_retried(served: Served) -> None:
    served.gateway.failures = [Overloaded("full", retry_after_s=0.05)]
    async with AsyncClient(served.endpoint) as client:
        assert (await client.ask("hello")).text == "hello"
        with pytest.raises(NotFound):
            await client.collections.get("nope")
        served.gateway.pause_s = 30.0
        with pytest.raises(DeadlineExceeded):
            await client.ask("hello", timeout_s=0.2)
    assert len(served.gateway.calls) == 3


async def test_nobody_listening_is_unavailable_and_names_the_endpoint() -> None:
    async with AsyncClient("127.0.0.1:1", retries=RetryPolicy(max_tries=2)) as client:
        with pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1:1"):
            await client.models()


async def test_documents_collections_and_search_are_there_too(served: Served) -> None:
    async with AsyncClient(served.endpoint) as client:
        assert (await client.collections.create("kb")).name == "kb"
        stored = await client.documents.upsert("kb", [Document(f"d{i}", "", "") for i in range(70)])
        assert len(stored.results) == 70
        assert served.documents.batches == [64, 6]
        assert (await client.documents.get("kb", "d3")).id == "d3"
        assert len((await client.documents.list("kb", limit=5)).documents) == 5
        assert await client.documents.delete("kb", ["d3"]) == 1
        assert len(await client.collections.list()) == 1
        assert await client.collections.delete("kb") == 69
        assert len((await client.retrieve("q", ["kb"])).chunks) == 4
        assert len(await client.models()) == 1
        assert (await client.chat([{"role": "user", "content": "x"}])).text == "hello"


def test_a_client_may_be_made_before_its_loop(served: Served) -> None:
    client = AsyncClient(served.endpoint)

    async def ask() -> str:
        async with client:
            return (await client.ask("hello")).text

    assert asyncio.run(ask()) == "hello"


async def test_events_carry_the_text_as_it_came(served: Served) -> None:
    served.gateway.events = [STARTED, delta("ü"), FINISHED]
    async with AsyncClient(served.endpoint) as client, client.stream("hi") as stream:
        texts = [event.text async for event in stream if isinstance(event, Delta)]
    assert texts == ["ü"]
