"""The gateway among real peers, over a model that talks nonsense: every door says the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from openai import AsyncOpenAI

from actors.local import LocalCluster, local_cluster
from actors.roles import Endpoints
from cluster.client import AsyncClient, FinishReason
from cluster.scheduling.membership import Role
from protos.thoth.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2, worker_pb2
from tests.gateway.scripted import MODEL, config_of, eventually

QUESTION = "What does the with statement do?"
DOCUMENTS = [
    {"id": "with", "title": "with", "text": "The with statement wraps a block."},
    {"id": "yield", "title": "yield", "text": "The yield expression suspends a function."},
]
MAX_TOKENS = 12


@pytest.fixture
async def running(
    tiny_folder: Path, tmp_path: Path
) -> AsyncIterator[tuple[LocalCluster, Endpoints]]:
    async with local_cluster(config_of(tiny_folder, tmp_path)) as (cluster, found):
        await eventually(lambda: not cluster.gateway.missing(), within_s=60.0)
        yield cluster, found


@pytest.fixture
def endpoints(running: tuple[LocalCluster, Endpoints]) -> Endpoints:
    return running[1]


@pytest.fixture
async def http(endpoints: Endpoints) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=endpoints.http, timeout=60.0) as client:
        made = await client.post("/v1/collections", json={"name": "kb"})
        assert made.status_code == 201, made.text
        done = await client.post("/v1/collections/kb/documents", json={"documents": DOCUMENTS})
        assert [r["changed"] for r in done.json()["results"]] == [True, True]
        yield client


def body(**more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        "retrieval": {"collections": ["kb"], "top_k": 2},
    } | more


async def test_every_door_gives_the_same_answer(
    http: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    raw = (await http.post("/v1/chat/completions", json=body())).json()
    text = raw["choices"][0]["message"]["content"]
    cited = [c["document_id"] for c in raw["citations"]]
    assert len(text) > 0
    assert cited[0] == "with"
    assert sorted(cited) == ["with", "yield"]
    assert raw["usage"]["completion_tokens"] == MAX_TOKENS
    assert raw["timings"]["prefill_s"] > 0

    call = body()
    extra = {"retrieval": call.pop("retrieval")}
    async with AsyncOpenAI(base_url=f"{endpoints.http}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(**call, stream=True, extra_body=extra)
        streamed = [c.choices[0].delta.content or "" async for c in stream]
    assert "".join(streamed) == text

    async with grpc.aio.insecure_channel(endpoints.grpc) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        answer = await stub.Chat(
            gateway_pb2.ChatRequest(
                call=gateway_pb2.ChatCall(
                    model=MODEL,
                    messages=[gateway_pb2.ChatMessage(role="user", content=QUESTION)],
                    sampling=types_pb2.SamplingParams(max_tokens=MAX_TOKENS),
                    retrieval=gateway_pb2.RetrievalOptions(collections=["kb"], top_k=2),
                )
            )
        )
    assert answer.text == text
    assert [c.chunk.document_id for c in answer.citations] == cited


async def test_the_sdk_gets_the_same_answer(http: httpx.AsyncClient, endpoints: Endpoints) -> None:
    raw = (await http.post("/v1/chat/completions", json=body())).json()
    async with AsyncClient(endpoints.grpc) as client:
        answer = await client.ask(QUESTION, collections=["kb"], top_k=2, max_tokens=MAX_TOKENS)
    assert answer.text == raw["choices"][0]["message"]["content"]


async def test_documents_are_listed_read_changed_and_deleted(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/collections/kb/documents?limit=1")).json()
    assert [d["id"] for d in listed["data"]] == ["with"]
    rest = await http.get(f"/v1/collections/kb/documents?after={listed['next']}")
    assert [d["id"] for d in rest.json()["data"]] == ["yield"]
    again = await http.post("/v1/collections/kb/documents", json={"documents": DOCUMENTS})
    assert [r["changed"] for r in again.json()["results"]] == [False, False]
    nested = {"id": "a/b c", "text": "Nested.", "metadata": {"kind": "x"}}
    await http.post("/v1/collections/kb/documents", json={"documents": [nested]})
    found = (await http.get("/v1/collections/kb/documents/a/b%20c")).json()
    assert (found["text"], found["metadata"]) == ("Nested.", {"kind": "x"})
    gone = (await http.delete("/v1/collections/kb/documents/a/b%20c")).json()
    assert gone["deleted"] is True
    assert (await http.get("/v1/collections/kb/documents/a/b%20c")).status_code == 404
    assert (await http.delete("/v1/collections/kb")).json()["num_documents"] == 2
    assert (await http.get("/v1/collections")).json()["data"] == []


async def test_bad_documents_are_refused_with_their_field(http: httpx.AsyncClient) -> None:
    refused = await http.post("/v1/collections/kb/documents", json={"documents": []})
    assert refused.json()["error"]["param"] == "documents"
    unnamed = await http.post("/v1/collections/kb/documents", json={"documents": [{"text": "x"}]})
    assert unnamed.json()["error"]["param"] == "documents[0].id"
    large = {"id": "large", "text": "x" * (9 * 2**20)}
    response = await http.post("/v1/collections/kb/documents", json={"documents": [large]})
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "documents[0].text"


async def test_many_answers_at_once_are_those_of_one_at_a_time(http: httpx.AsyncClient) -> None:
    one = (await http.post("/v1/chat/completions", json=body())).json()
    many = await asyncio.gather(
        *(http.post("/v1/chat/completions", json=body()) for _ in range(12))
    )
    assert {r.json()["choices"][0]["message"]["content"] for r in many} == {
        one["choices"][0]["message"]["content"]
    }


PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def test_n_answers_under_a_schema_are_json_with_logprobs(
    http: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    call = body(max_tokens=400, temperature=1.0, seed=11, n=3, logprobs=True, top_logprobs=2)
    extra = {"retrieval": call.pop("retrieval")}
    call["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": PERSON, "strict": True},
    }
    async with AsyncOpenAI(base_url=f"{endpoints.http}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(**call, extra_body=extra)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                **call, stream=True, extra_body=extra
            )
        ]
    assert [choice.finish_reason for choice in whole.choices] == ["stop"] * 3
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    num_tokens = 0
    for choice in whole.choices:
        person = json.loads(choice.message.content)
        assert set(person) == {"name", "age"}
        tokens = choice.logprobs.content
        assert b"".join(bytes(t.bytes) for t in tokens).decode() == choice.message.content
        assert all(t.logprob < 0 for t in tokens)
        assert all(len(t.top_logprobs) == 2 for t in tokens)
        num_tokens += len(tokens)
        mine = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [t for c in mine if c.logprobs for t in c.logprobs.content] == tokens
    assert whole.usage.completion_tokens == num_tokens


async def test_penalties_and_stop_ids_do_what_they_say(http: httpx.AsyncClient) -> None:
    async def ask(**more: Any) -> dict[str, Any]:
        response = await http.post("/v1/chat/completions", json=body(max_tokens=40, **more))
        assert response.status_code == 200, response.text
        return dict(response.json())

    only_a = {"logit_bias": {"65": 100}}
    text = (await ask(**only_a))["choices"][0]["message"]["content"]
    letter = text[0]
    assert text == letter * 40
    varied = await ask(**only_a, frequency_penalty=2.0, presence_penalty=2.0)
    # 100 - 2 * 40 - 2: still the best of all.
    assert varied["choices"][0]["message"]["content"] == text
    ended = await ask(**only_a, stop_token_ids=[65], min_tokens=7)
    assert ended["choices"][0]["finish_reason"] == "stop"
    assert ended["usage"]["completion_tokens"] == 7
    assert letter not in ended["choices"][0]["message"]["content"]


async def test_the_sdk_gets_choices_logprobs_and_json(
    http: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    async with AsyncClient(endpoints.grpc) as client:
        answer = await client.ask(
            QUESTION, json_schema=PERSON, n=2, temperature=1.0, seed=3, logprobs=1, max_tokens=400
        )
        async with client.stream(
            QUESTION, json_schema=PERSON, n=2, temperature=1.0, seed=3, logprobs=1, max_tokens=400
        ) as stream:
            async for _ in stream:
                pass
    assert [choice.finish_reason for choice in answer.choices] == [FinishReason.STOP] * 2
    for choice in answer.choices:
        assert set(json.loads(choice.text)) == {"name", "age"}
        assert b"".join(token.bytes for token in choice.logprobs).decode() == choice.text
    assert answer.text == answer.choices[0].text
    assert stream.answer().choices == answer.choices


async def test_a_client_that_leaves_gives_its_blocks_back(
    http: httpx.AsyncClient, running: tuple[LocalCluster, Endpoints]
) -> None:
    lease = running[0].gateway.station.lease
    worker = lease.worker(lease.find(Role.GPU_WORKER).address)

    async def load() -> worker_pb2.WorkerLoad:
        return (await worker.DescribeWorker(worker_pb2.DescribeWorkerRequest())).load

    long = body(max_tokens=1500, stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=long) as response:
        async for _ in response.aiter_lines():
            break
        # The stream's first line comes before the first step.
        async with asyncio.timeout(5):
            while not (busy := await load()).num_running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert busy.num_free_blocks + busy.num_cached_blocks < busy.num_blocks
    async with asyncio.timeout(5):
        while (idle := await load()).num_running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert idle.num_free_blocks + idle.num_cached_blocks == idle.num_blocks
