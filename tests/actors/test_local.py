"""A whole cluster in one process: every client gets the same answer, and nobody's trouble
spreads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter

import grpc
import httpx
import openai
import pytest

from cluster.client import AsyncClient, FinishReason, ThothError
from cluster.errors import InvalidArgument, NotFound, Overloaded
from protos.thoth.v1 import gateway_pb2, gateway_pb2_grpc
from tests.actors.conftest import COLLECTION, Running, pages_of

QUESTION = "What does the with statement do?"
MESSAGES = [{"role": "user", "content": QUESTION}]
RETRIEVAL = {"collections": [COLLECTION], "top_k": 2}


def body(**more: object) -> dict[str, object]:
    return {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "retrieval": RETRIEVAL} | more


def with_openai(cluster: Running) -> str:
    client = openai.OpenAI(base_url=f"{cluster.endpoints.http}/v1", api_key="none")
    with client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            extra_body={"retrieval": RETRIEVAL},
        )
    return answer.choices[0].message.content or ""


def with_openai_stream(cluster: Running) -> str:
    client = openai.OpenAI(base_url=f"{cluster.endpoints.http}/v1", api_key="none")
    with client:
        chunks = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            stream=True,
            extra_body={"retrieval": RETRIEVAL},
        )
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def with_async_openai(cluster: Running) -> str:
    async def ask() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{cluster.endpoints.http}/v1", api_key="none"
        ) as client:
            answer = await client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=12,
                extra_body={"retrieval": RETRIEVAL},
            )
        return answer.choices[0].message.content or ""

    return asyncio.run(ask())


def with_grpc(cluster: Running) -> str:
    """Generated stubs and nothing of ours."""
    request = gateway_pb2.ChatRequest()
    request.call.model = "tiny"
    request.call.messages.add(role="user", content=QUESTION)
    request.call.sampling.max_tokens = 12
    request.call.retrieval.collections.append(COLLECTION)
    request.call.retrieval.top_k = 2
    with grpc.insecure_channel(cluster.endpoints.grpc) as channel:
        return gateway_pb2_grpc.GatewayServiceStub(channel).Chat(request, timeout=60).text


def with_curl(cluster: Running) -> str:
    url = f"{cluster.endpoints.http}/v1/chat/completions"
    said = json.dumps(body())
    command = ["curl", "-sS", url, "-H", "Content-Type: application/json", "-d", said]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return str(answer["choices"][0]["message"]["content"])


def with_client(cluster: Running) -> str:
    with cluster.client() as client:
        return client.ask(QUESTION, collections=[COLLECTION], top_k=2, max_tokens=12).text


def with_async_client(cluster: Running) -> str:
    async def ask() -> str:
        async with AsyncClient(cluster.endpoints.grpc) as client:
            answer = await client.ask(QUESTION, collections=[COLLECTION], top_k=2, max_tokens=12)
        return answer.text

    return asyncio.run(ask())


EVERY_WAY = (
    with_openai,
    with_openai_stream,
    with_async_openai,
    with_grpc,
    with_curl,
    with_client,
    with_async_client,
)


def test_every_client_gets_the_same_answer(local: Running) -> None:
    answers = {way.__name__: way(local) for way in EVERY_WAY}
    assert len(set(answers.values())) == 1, answers
    assert answers["with_client"]


def test_an_answer_names_its_documents_and_where_the_time_went(local: Running) -> None:
    with local.client() as client:
        answer = client.ask(QUESTION, collections=[COLLECTION], top_k=2, max_tokens=4)
    assert [c.index for c in answer.citations] == [1, 2]
    assert answer.citations[0].chunk.document_id == "with"
    timings = answer.timings
    assert timings.prefill_s > 0
    named_s = timings.queue_s + timings.retrieval_s + timings.prefill_s
    assert named_s <= timings.time_to_first_token_s <= timings.total_s


def test_the_same_seed_draws_the_same_answer(local: Running) -> None:
    with local.client() as client:
        drawn = [
            client.ask(QUESTION, max_tokens=16, temperature=1.0, seed=s).text for s in (1, 1, 2)
        ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_bad_input_is_refused_by_name_and_others_are_served(local: Running) -> None:
    with local.client() as client:
        with pytest.raises(NotFound) as unknown_model:
            client.ask(QUESTION, model="nope")
        assert unknown_model.value.field == "model"
        with pytest.raises(NotFound) as unknown_collection:
            client.ask(QUESTION, collections=["nope"])
        assert "collections" in unknown_collection.value.field
        with pytest.raises(InvalidArgument, match=r"\d+ .*2048") as too_long:
            client.ask("word " * 5000)
        assert too_long.value.limit
        with pytest.raises(InvalidArgument) as absurd:
            client.ask(QUESTION, max_tokens=10**9)
        assert absurd.value.field.endswith("max_tokens")
        assert client.ask(QUESTION, max_tokens=2).usage.completion_tokens == 2


def test_a_client_that_leaves_in_mid_stream_gives_its_blocks_back(local: Running) -> None:
    with local.client() as client:
        for _ in range(3):
            with client.stream(QUESTION, max_tokens=1500) as stream:
                for _event, _ in zip(stream, range(3), strict=False):
                    pass
    with httpx.stream(
        "POST",
        f"{local.endpoints.http}/v1/chat/completions",
        json=body(max_tokens=1500, stream=True),
    ) as response:
        next(response.iter_lines())
    wait_until_idle(local)


def wait_until_idle(cluster: Running, seconds: float = 20.0) -> None:
    """All blocks of the worker are free again, or hold documents."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        load = cluster.worker_load()
        if (
            not load.num_running
            and not load.num_waiting
            and load.num_free_blocks + load.num_cached_blocks == load.num_blocks
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"still busy: {cluster.worker_load()}")


def test_a_thousand_at_once_are_answered_or_told_when_to_come_back(local: Running) -> None:
    async def one(client: httpx.AsyncClient) -> tuple[int, str | None, str]:
        said = body(max_tokens=2, retrieval=None)
        del said["retrieval"]
        response = await client.post("/v1/chat/completions", json=said)
        return response.status_code, response.headers.get("retry-after"), response.text

    async def all_at_once() -> list[tuple[int, str | None, str]]:
        limits = httpx.Limits(max_connections=1000)
        async with httpx.AsyncClient(
            base_url=local.endpoints.http, limits=limits, timeout=120.0
        ) as client:
            return await asyncio.gather(*(one(client) for _ in range(1000)))

    found = asyncio.run(all_at_once())
    statuses = Counter(status for status, _, _ in found)
    assert set(statuses) <= {200, 429}, statuses
    assert statuses[200] >= 16
    assert statuses[429] > 0
    for status, retry_after, text in found:
        if status == 429:
            assert retry_after is not None
            assert int(retry_after) >= 1
            assert json.loads(text)["error"]["type"] == "rate_limit_error"
    wait_until_idle(local)
    assert with_client(local)


def test_the_sdk_says_overloaded_when_it_may_not_try_again(local: Running) -> None:
    async def one(client: AsyncClient) -> ThothError | None:
        try:
            await client.ask(QUESTION, max_tokens=64, timeout_s=4.0)
        except ThothError as error:
            return error
        return None

    async def many() -> list[ThothError | None]:
        async with AsyncClient(local.endpoints.grpc) as client:
            return await asyncio.gather(*(one(client) for _ in range(300)))

    errors = [error for error in asyncio.run(many()) if error is not None]
    assert any(isinstance(error, Overloaded) and error.retry_after_s > 0 for error in errors)
    wait_until_idle(local)


def test_a_deadline_ends_an_answer_with_what_is_there(local: Running) -> None:
    with local.client() as client:
        answer = client.ask(QUESTION, max_tokens=1900, timeout_s=5.0)
    assert answer.finish_reason in {FinishReason.DEADLINE, FinishReason.LENGTH}
    wait_until_idle(local)


def test_every_member_serves_metrics_where_prometheus_looks(local: Running) -> None:
    found = pages_of(local)
    pages = {name: httpx.get(f"http://{page}/metrics").text for name, page in found.items()}
    pages["gateway"] = next(text for name, text in pages.items() if name.startswith("gateway"))
    assert 'thoth_requests_total{outcome="length"}' in pages["gateway"]
    assert 'thoth_kv_blocks{state="free",tier="device"}' in pages["gpu_worker-0"]
    assert "thoth_documents 3.0" in pages["retriever"]
