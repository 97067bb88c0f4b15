"""A document that was read once is not read again, every door says so, and no tenant sees it of
another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.cli.keys import add_key
from actors.local import LocalCluster, local_cluster
from actors.roles import Endpoints
from cluster.client import AsyncClient, CachedTokens
from cluster.errors import InvalidArgument
from cluster.scheduling.membership import Member, Role
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2, worker_pb2, worker_pb2_grpc
from tests.gateway.scripted import MODEL, config_of, eventually

QUESTION = "What does the with statement do?"
DOCUMENTS = [
    {"id": "with", "title": "with", "text": "The with statement wraps a block. " * 4},
    {"id": "yield", "title": "yield", "text": "The yield expression suspends a function. " * 4},
]
OTHERS = [{"id": "for", "title": "for", "text": "The with of another collection."}]
NOTHING = {"device": 0, "host": 0, "disk": 0}


class Doors:
    """A cluster's doors, for whoever holds a key."""

    def __init__(self, cluster: LocalCluster, found: Endpoints, keys: dict[str, str]) -> None:
        self.cluster = cluster
        self.found = found
        self.keys = keys

    @property
    def worker(self) -> Member:
        return self.cluster.gateway.station.lease.find(Role.GPU_WORKER)

    def http(self, name: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.keys[name]}"}
        return httpx.AsyncClient(base_url=self.found.http, headers=headers, timeout=60.0)

    async def ask(self, name: str, **more: Any) -> dict[str, Any]:
        async with self.http(name) as http:
            response = await http.post("/v1/chat/completions", json=body(**more))
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def metrics(self) -> dict[str, float]:
        """Sums over labels of the worker's counters."""
        async with httpx.AsyncClient() as http:
            page = await http.get(f"http://{self.worker.metrics_address}/metrics")
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(page.text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums


def body(**more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 8,
        "retrieval": {"collections": ["kb"], "top_k": 2},
    } | more


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def reused(answer: dict[str, Any]) -> int:
    """What the OpenAI field and the tiers agree upon."""
    num_cached = int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert sum(answer["cached_tokens"].values()) == num_cached
    return num_cached


@pytest.fixture
async def doors(tiny_folder: Path, tmp_path: Path) -> AsyncIterator[Doors]:
    keys = {name: add_key(name, tmp_path / "keys") for name in ("alice", "bob", "carol")}
    config = config_of(tiny_folder, tmp_path, api_keys_file=tmp_path / "keys")
    async with local_cluster(config) as (cluster, found):
        await eventually(lambda: not cluster.gateway.missing(), within_s=60.0)
        doors = Doors(cluster, found, keys)
        async with doors.http("alice") as http:
            for name, documents in (("kb", DOCUMENTS), ("other", OTHERS)):
                made = await http.post("/v1/collections", json={"name": name})
                assert made.status_code == 201, made.text
                path = f"/v1/collections/{name}/documents"
                assert (await http.post(path, json={"documents": documents})).is_success
        yield doors


async def test_the_second_asking_reuses_the_documents_and_answers_the_same(doors: Doors) -> None:
    first, second = await doors.ask("alice"), await doors.ask("alice")
    assert (reused(first), first["cached_tokens"]) == (0, NOTHING)
    assert text_of(second) == text_of(first)
    assert 0 < reused(second) < second["usage"]["prompt_tokens"]
    assert second["cached_tokens"] == NOTHING | {"device": reused(second)}
    other = await doors.ask("alice", messages=[{"role": "user", "content": "with?"}])
    assert reused(other) <= reused(second)


async def test_a_stream_says_at_its_end_what_was_reused(doors: Doors) -> None:
    whole = await doors.ask("alice")
    said = body(stream=True, stream_options={"include_usage": True})
    async with doors.http("alice") as http:
        response = await http.post("/v1/chat/completions", json=said)
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    *_, last, usage, done = events
    assert done == "[DONE]"
    num_cached = json.loads(usage)["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert num_cached > 0
    assert json.loads(last)["cached_tokens"] == NOTHING | {"device": num_cached}
    text = "".join(
        choice["delta"].get("content") or ""
        for event in events[:-1]
        for choice in json.loads(event)["choices"]
    )
    assert text == text_of(whole)


async def test_grpc_and_the_sdk_say_what_http_says(doors: Doors) -> None:
    await doors.ask("alice")
    http = await doors.ask("alice")
    cached = CachedTokens(**http["cached_tokens"])
    assert cached.total > 0
    call = gateway_pb2.ChatCall(
        model=MODEL,
        messages=[gateway_pb2.ChatMessage(role="user", content=QUESTION)],
        sampling=types_pb2.SamplingParams(max_tokens=8),
        retrieval=gateway_pb2.RetrievalOptions(collections=["kb"], top_k=2),
    )
    metadata = (("authorization", f"Bearer {doors.keys['alice']}"),)
    async with grpc.aio.insecure_channel(doors.found.grpc) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        raw = await stub.Chat(gateway_pb2.ChatRequest(call=call), metadata=metadata)
    assert CachedTokens(raw.usage.cached.device, raw.usage.cached.host) == cached
    async with AsyncClient(doors.found.grpc, api_key=doors.keys["alice"]) as client:
        answer = await client.ask(QUESTION, collections=["kb"], top_k=2, max_tokens=8)
    assert answer.usage.cached == cached
    assert (answer.text, raw.text) == (text_of(http), text_of(http))


async def test_a_key_cannot_tell_that_another_one_asked(doors: Doors) -> None:
    await doors.ask("alice", retrieval={"collections": ["other"]})
    bob = [await doors.ask("bob"), await doors.ask("bob")]
    carol = [await doors.ask("carol"), await doors.ask("carol")]
    assert reused(bob[0]) == 0 < reused(bob[1])
    assert [answer["cached_tokens"] for answer in carol] == [a["cached_tokens"] for a in bob]
    assert len({text_of(answer) for answer in (*bob, *carol)}) == 1


async def test_cached_and_computed_tokens_are_those_of_the_prompts(doors: Doors) -> None:
    answers = [await doors.ask("alice") for _ in range(3)]
    answers.append(await doors.ask("bob", retrieval=None))
    counted = await doors.metrics()
    prompt = sum(answer["usage"]["prompt_tokens"] for answer in answers)
    cached = sum(map(reused, answers))
    assert counted["thoth_prompt_tokens_total"] == prompt
    assert counted["thoth_cached_prompt_tokens_total"] == cached > 0
    assert counted["thoth_computed_prompt_tokens_total"] == prompt - cached
    assert counted["thoth_recomputed_tokens_total"] == 0
    assert counted["thoth_cache_nodes"] >= 2


async def test_a_worker_shows_its_tree_and_refuses_a_bad_number_of_nodes(doors: Doors) -> None:
    await doors.ask("alice")
    async with grpc.aio.insecure_channel(doors.worker.address) as channel:
        stub = worker_pb2_grpc.GpuWorkerServiceStub(channel)
        whole = await stub.DescribeCache(worker_pb2.DescribeCacheRequest())
        one = await stub.DescribeCache(worker_pb2.DescribeCacheRequest(max_nodes=1))
        for max_nodes in (0, 100_001):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.DescribeCache(worker_pb2.DescribeCacheRequest(max_nodes=max_nodes))
            error = from_rpc_error(refused.value)
            assert isinstance(error, InvalidArgument)
            assert (error.field, error.limit) == ("max_nodes", "1 to 100000")
    assert {node.document_id for node in whole.nodes} >= {"with", "yield"}
    assert (whole.num_nodes, whole.policy) == (len(whole.nodes), "pgdsf")
    assert [tier.tier for tier in whole.tiers] == ["device", "host"]
    assert sum(node.tokens for node in whole.nodes) > 0
    assert list(one.nodes) == list(whole.nodes)[:1]
