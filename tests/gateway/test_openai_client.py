"""The stock `openai` package against the gateway: nothing but its base URL is set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from cluster.errors import InvariantBroken
from tests.gateway.scripted import (
    ANSWER,
    MODEL,
    ScriptedCluster,
    ScriptedWorker,
    eventually,
    overloaded,
    tokens,
)
from tests.tiny_model import EOS_ID

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


async def test_n_answers_have_their_places_and_count_one_prompt(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    completion = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=3, temperature=1.0, seed=5
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} == {ANSWER}
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}
    asked = sorted(worker.requests, key=lambda request: request.sampling.choice)
    assert [request.sampling.choice for request in asked] == [0, 1, 2]
    assert {request.sampling.seed for request in asked} == {5}
    assert len({request.request_id for request in asked}) == 3
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == sum(len(s.token_ids) for s in asked[0].segments)
    assert completion.usage.completion_tokens == 3 * len(worker.answer_ids)


async def test_streamed_choices_are_told_apart_and_each_ends_once(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    *body, usage = chunks
    assert all(len(chunk.choices) == 1 for chunk in body)
    for index in (0, 1):
        mine = [c.choices[0] for c in body if c.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in mine) == ANSWER
        assert [c.finish_reason for c in mine if c.finish_reason] == ["stop"]
        assert mine[-1].finish_reason == "stop"
    assert [c for c in body if (c.model_extra or {}).get("timings")] == [body[-1]]
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens > 0


async def test_logprobs_have_the_shape_of_the_package(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    completion = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == len(worker.answer_ids)
    assert b"".join(bytes(token.bytes or ()) for token in logprobs.content) == ANSWER.encode()
    assert [top.logprob for top in logprobs.content[0].top_logprobs] == [-1.0, -2.0]
    assert logprobs.content[0].top_logprobs[1].token == "<|im_end|>"
    assert logprobs.content[0].logprob == -0.25
    # The dash is three bytes, and no token has all of them.
    assert any("�" in token.token for token in logprobs.content)

    stream = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, logprobs=True, stream=True
    )
    streamed = [c.choices[0].logprobs async for c in stream]
    tokens = [t for found in streamed if found and found.content for t in found.content]
    assert [token.token for token in tokens] == [token.token for token in logprobs.content]
    assert tokens[0].top_logprobs == []


async def test_without_logprobs_none_are_asked_for(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert completion.choices[0].logprobs is None
    assert not worker.requests[0].sampling.HasField("logprobs")


async def test_every_rule_of_sampling_reaches_the_worker(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.25,
        frequency_penalty=-0.5,
        logit_bias={"7": 3},
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": schema, "strict": True},
        },
        extra_body={
            "top_k": 9,
            "min_p": 0.125,
            "repetition_penalty": 1.5,
            "min_tokens": 4,
            "stop_token_ids": [5],
            "stop_ids": [6],
        },
    )
    [request] = worker.requests
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 9)
    assert (sampling.min_p, sampling.min_tokens) == (0.125, 4)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.25, -0.5)
    assert sampling.repetition_penalty == 1.5
    assert dict(sampling.logit_bias) == {7: 3.0}
    assert json.loads(sampling.grammar.json_schema) == schema
    assert list(sampling.stop_ids) == [EOS_ID, 5, 6]


async def test_the_end_of_the_turn_can_be_ignored(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    await client.chat.completions.create(
        model=MODEL, messages=QUESTION, extra_body={"ignore_eos": True}
    )
    assert list(worker.requests[0].sampling.stop_ids) == []


async def test_json_objects_and_expressions_are_grammars(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    await client.chat.completions.create(
        model=MODEL, messages=QUESTION, response_format={"type": "json_object"}
    )
    await client.chat.completions.create(
        model=MODEL, messages=QUESTION, extra_body={"regex": "(yes|no)"}
    )
    any_object, expression = (request.sampling.grammar for request in worker.requests)
    assert json.loads(any_object.json_schema) == {"type": "object"}
    assert expression.regex == "(yes|no)"


async def test_one_choice_that_fails_fails_the_call_and_cancels_the_others(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    async def only_the_second_fails(request: Any) -> AsyncIterator[Any]:
        if request.sampling.choice == 1:
            await eventually(lambda: worker.num_running == 3)
            raise InvariantBroken("the logits are no numbers")
        while True:
            yield tokens([70])
            await asyncio.sleep(0.02)

    worker.script = only_the_second_fails
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model=MODEL, messages=QUESTION, n=3)
    await eventually(lambda: worker.num_running == 0)
    assert worker.num_cancelled == 2


async def test_a_client_that_leaves_cancels_every_choice(
    client: AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.pause_s = 0.05
    stream = await client.chat.completions.create(model=MODEL, messages=QUESTION, n=4, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await eventually(lambda: worker.num_running == 4)
    await stream.close()
    await eventually(lambda: worker.num_running == 0)
    assert worker.num_cancelled == 4


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
