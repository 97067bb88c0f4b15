"""The stock `openai` package against the gateway: nothing but its base URL is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.gateway.scripted import ANSWER, MODEL, ScriptedCluster, ScriptedWorker, overloaded

QUESTION: list[Any] = [{"role": "user", "content": "What does with do?"}]
RETRIEVAL = {"retrieval": {"collections": ["kb"], "top_k": 3}}


@pytest.fixture
async def client(cluster: ScriptedCluster) -> AsyncIterator[AsyncOpenAI]:
    url = f"{cluster.http}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


async def test_an_answer_has_text_usage_and_finish_reason(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage is not None
    prompt_tokens = sum(len(s.token_ids) for s in worker.requests[0].segments)
    assert completion.usage.prompt_tokens == prompt_tokens
    assert completion.usage.completion_tokens == len(worker.answer_ids)
    assert completion.usage.total_tokens == prompt_tokens + len(worker.answer_ids)


async def test_the_synchronous_client_gets_the_same_answer(cluster: ScriptedCluster) -> None:
    def ask() -> str | None:
        with OpenAI(base_url=f"{cluster.http}/v1", api_key="none", max_retries=0) as client:
            completion = client.chat.completions.create(model=MODEL, messages=QUESTION)
            return completion.choices[0].message.content

    assert await asyncio.to_thread(ask) == ANSWER


async def test_a_stream_joins_to_the_answer_and_ends_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=RETRIEVAL,
    )
    chunks = [chunk async for chunk in stream]
    first, *middle, last, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert [found["index"] for found in first.model_extra["retrieval"]] == [1, 2, 3]  # type: ignore[index]
    assert "".join(c.choices[0].delta.content or "" for c in middle) == ANSWER
    assert all(c.choices[0].finish_reason is None for c in [first, *middle])
    assert all(c.usage is None for c in [first, *middle, last])
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra is not None
    assert last.model_extra["timings"]["prefill_s"] == 0.5
    assert len(last.model_extra["citations"]) == 3
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens > 0
    assert len({c.id for c in chunks}) == 1


async def test_a_stream_without_include_usage_has_no_usage_chunk(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert chunks[0].model_extra == {}


async def test_max_tokens_ends_with_length(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_completion_tokens=3
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3


async def test_text_parts_are_joined(client: AsyncOpenAI, worker: ScriptedWorker) -> None:
    parts = [{"type": "text", "text": "What does "}, {"type": "text", "text": "with do?"}]
    await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item, misc]
    )
    await client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert worker.requests[0].segments == worker.requests[1].segments


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]


async def test_errors_have_the_classes_of_the_package(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert unknown.value.param == "model"
    assert unknown.value.code == "not_found"
    with pytest.raises(openai.BadRequestError) as absurd:
        await client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=0)
    assert absurd.value.param == "max_tokens"

    async def refuse(_: Any) -> AsyncIterator[Any]:
        raise overloaded()
        yield

    worker.script = refuse
    with pytest.raises(openai.RateLimitError) as busy:
        await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    assert busy.value.response.headers["retry-after"] == "3"
