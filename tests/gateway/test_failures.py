"""Peers that die, stall, are full or away: one answer or one typed error, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from actors.gateway import peers
from cluster.errors import InvalidArgument, Lost
from cluster.scheduling.membership import Role
from protos.thoth.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2, worker_pb2
from tests.gateway.scripted import (
    ANSWER,
    MODEL,
    Events,
    ScriptedCluster,
    ScriptedWorker,
    config_of,
    eventually,
    finished,
    overloaded,
    scripted_cluster,
    tokens,
)
from tests.tiny_model import EOS_ID

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


def metric(cluster: ScriptedCluster, name: str) -> float:
    lines = cluster.gateway.metrics.exposition().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def test_a_worker_lost_in_mid_stream_is_continued_elsewhere_from_the_ids_so_far(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    second = await cluster.add_worker("gpu_worker-1")

    async def die(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:3])
        yield tokens(worker.answer_ids[3:5])
        raise Lost("the device is gone")

    worker.script = die
    response = await http.post(PATH, json=BODY | {"seed": 5, "temperature": 1.0})
    assert text_of(response) == ANSWER
    assert tuple(second.requests[0].output_ids) == worker.answer_ids[:5]
    assert second.requests[0].segments == worker.requests[0].segments
    assert second.requests[0].sampling == worker.requests[0].sampling
    assert response.json()["usage"]["completion_tokens"] == len(worker.answer_ids)
    assert metric(cluster, 'thoth_retries_total{reason="lost"}') == 1


async def test_a_worker_is_told_how_the_model_ends_its_turn(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    """It knows no tokenizer: without the id every answer would run to max_tokens."""
    assert text_of(await http.post(PATH, json=BODY)) == ANSWER
    assert EOS_ID in worker.requests[0].sampling.stop_ids


async def test_a_worker_whose_process_dies_is_replaced_after_its_lease_ended(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    """Its successor has the same name and another incarnation, as after a restart."""

    async def stall(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:2])
        await asyncio.sleep(60)

    worker.script = stall
    asking = asyncio.create_task(http.post(PATH, json=BODY))
    await eventually(lambda: worker.num_running == 1)
    await worker.server.stop(0.0)
    await eventually(lambda: len(cluster.scheduler.requests) > 2)
    cluster.members[:] = [m for m in cluster.members if m.role is not Role.GPU_WORKER]
    successor = await cluster.add_worker("gpu_worker-0")
    cluster.members[-1] = replace(cluster.members[-1], incarnation="new")
    assert text_of(await asking) == ANSWER
    assert tuple(successor.requests[0].output_ids) == worker.answer_ids[:2]


async def test_a_stalled_worker_is_left_when_its_lease_ends(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    """Its connection stands and says nothing: the lease's view closes the channel."""

    async def stall(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:1])
        await asyncio.sleep(60)

    worker.script = stall
    second = await cluster.add_worker("gpu_worker-1")
    asking = asyncio.create_task(http.post(PATH, json=BODY))
    await eventually(lambda: worker.num_running == 1)
    cluster.members[:] = [m for m in cluster.members if m.name != "gpu_worker-0"]
    assert text_of(await asking) == ANSWER
    assert tuple(second.requests[0].output_ids) == worker.answer_ids[:1]
    await eventually(lambda: worker.num_cancelled == 1)


async def test_after_two_retries_the_request_fails_with_one_typed_error(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    async def die(_: worker_pb2.GenerateRequest) -> Events:
        raise Lost("the device is gone")
        yield

    for i in range(1, 5):
        (await cluster.add_worker(f"gpu_worker-{i}")).script = die
    worker.script = die
    response = await http.post(PATH, json=BODY)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "lost"
    assert sum(len(w.requests) for w in cluster.workers) == 3
    assert metric(cluster, 'thoth_requests_total{outcome="failed"}') == 1


async def test_a_loss_after_the_last_token_needs_no_other_worker(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    async def die(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:4])
        raise Lost("the device is gone")

    worker.script = die
    response = await http.post(PATH, json=BODY | {"max_tokens": 4})
    assert response.json()["choices"][0]["finish_reason"] == "length"
    assert len(cluster.scheduler.requests) == 1


async def test_a_refusal_is_never_retried(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    second = await cluster.add_worker("gpu_worker-1")

    async def refuse(_: worker_pb2.GenerateRequest) -> Events:
        raise InvalidArgument("no room for it", field="messages")
        yield

    worker.script = refuse
    response = await http.post(PATH, json=BODY)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"
    assert second.requests == []


async def test_a_full_worker_sends_the_request_to_another_one(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    await cluster.add_worker("gpu_worker-1")
    worker.script = _full
    assert text_of(await http.post(PATH, json=BODY)) == ANSWER
    assert metric(cluster, 'thoth_retries_total{reason="unavailable"}') == 1


@pytest.mark.parametrize("num_workers", [1, 3])
async def test_when_all_workers_are_full_the_caller_is_told_when_to_come_back(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient, num_workers: int
) -> None:
    for i in range(1, num_workers):
        await cluster.add_worker(f"gpu_worker-{i}")
    for each in cluster.workers:
        each.script = _full
    async with http.stream("POST", PATH, json=BODY | {"stream": True}) as response:
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
    assert sum(len(w.requests) for w in cluster.workers) == min(2, num_workers)
    assert metric(cluster, 'thoth_requests_rejected_total{reason="worker_full"}') == 1


async def _full(_: worker_pb2.GenerateRequest) -> Events:
    raise overloaded()
    yield


async def test_a_request_waits_for_a_scheduler_that_is_being_restarted(
    cluster: ScriptedCluster, http: httpx.AsyncClient
) -> None:
    scheduler = next(m for m in cluster.members if m.role is Role.SCHEDULER)
    cluster.members.remove(scheduler)
    await eventually(lambda: cluster.gateway.missing() == ("scheduler",))
    asking = asyncio.create_task(http.post(PATH, json=BODY))
    await asyncio.sleep(0.3)
    assert not asking.done()
    cluster.members.append(scheduler)
    assert text_of(await asking) == ANSWER


async def test_without_any_worker_the_request_ends_as_unavailable(
    cluster: ScriptedCluster, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.gateway.generation.PATIENCE_S", 0.2)
    cluster.members[:] = [m for m in cluster.members if m.role is not Role.GPU_WORKER]
    response = await http.post(PATH, json=BODY)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "starting"
    assert int(response.headers["retry-after"]) >= 1
    assert metric(cluster, 'thoth_requests_rejected_total{reason="no_worker"}') == 1


async def test_a_deadline_before_the_first_token_is_an_error(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    async def stall(_: worker_pb2.GenerateRequest) -> Events:
        await asyncio.sleep(60)
        yield finished()

    worker.script = stall
    response = await http.post(PATH, json=BODY | {"timeout_s": 0.2})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    await eventually(lambda: worker.num_running == 0)


async def test_a_deadline_after_the_first_token_ends_the_answer(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    async def stop_in_time(request: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:2])
        await asyncio.sleep(request.timeout_s)
        yield finished(types_pb2.FINISH_REASON_DEADLINE)

    worker.script = stop_in_time
    response = await http.post(PATH, json=BODY | {"timeout_s": 0.3})
    assert response.json()["choices"][0]["finish_reason"] == "deadline"
    assert response.json()["usage"]["completion_tokens"] == 2


async def test_a_deadline_that_only_the_transport_notices_ends_the_answer(
    worker: ScriptedWorker, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_GRACE_S", 0.1)

    async def stall(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:2])
        await asyncio.sleep(60)

    worker.script = stall
    response = await http.post(PATH, json=BODY | {"timeout_s": 0.2})
    assert response.json()["choices"][0]["finish_reason"] == "deadline"


async def test_an_error_in_a_started_stream_is_its_last_event(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    async def refuse(_: worker_pb2.GenerateRequest) -> Events:
        yield tokens(worker.answer_ids[:2])
        raise InvalidArgument("no more of it", field="messages")

    worker.script = refuse
    async with http.stream("POST", PATH, json=BODY | {"stream": True}) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["error"]["param"] == "messages"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_client_that_goes_away_cancels_its_worker_at_once(
    cluster: ScriptedCluster, worker: ScriptedWorker, http: httpx.AsyncClient, is_stream: bool
) -> None:
    worker.pause_s = 0.2
    asking = asyncio.create_task(http.post(PATH, json=BODY | {"stream": is_stream}))
    await eventually(lambda: worker.num_running == 1)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await eventually(lambda: worker.num_running == 0, within_s=1.0)
    assert worker.num_cancelled == 1
    await eventually(lambda: cluster.gateway.num_inside == 0)
    assert metric(cluster, 'thoth_requests_total{outcome="cancelled"}') == 1


async def test_a_client_that_goes_away_while_its_documents_are_searched_is_let_go(
    cluster: ScriptedCluster, http: httpx.AsyncClient
) -> None:
    cluster.retriever.pause_s = 60.0
    body = BODY | {"stream": True, "retrieval": {"collections": ["kb"]}}
    asking = asyncio.create_task(http.post(PATH, json=body))
    await eventually(lambda: len(cluster.retriever.searches) == 1)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await eventually(lambda: cluster.gateway.num_inside == 0)


async def test_one_request_too_many_is_turned_away_and_the_others_go_on(
    tiny_folder: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_folder, tmp_path, max_requests=3)
    limits = httpx.Limits(max_connections=None)
    async with (
        scripted_cluster(config) as cluster,
        httpx.AsyncClient(base_url=cluster.http, timeout=30.0, limits=limits) as http,
    ):
        cluster.workers[0].pause_s = 0.05
        asking = [asyncio.create_task(http.post(PATH, json=BODY)) for _ in range(3)]
        await eventually(lambda: cluster.gateway.num_inside == 3)
        many = await asyncio.gather(*(http.post(PATH, json=BODY) for _ in range(20)))
        assert {r.status_code for r in many} == {429}
        assert all(int(r.headers["retry-after"]) >= 1 for r in many)
        assert "the limit is 3" in many[0].json()["error"]["message"]
        assert (await http.get("/health")).status_code == 200
        assert {text_of(await each) for each in asking} == {ANSWER}
        assert metric(cluster, 'thoth_requests_rejected_total{reason="gateway_full"}') == 20
        assert text_of(await http.post(PATH, json=BODY)) == ANSWER


@pytest.mark.long
async def test_a_thousand_requests_at_once_are_answered_or_turned_away(
    cluster: ScriptedCluster, worker: ScriptedWorker
) -> None:
    most = cluster.config.gateway.max_requests
    worker.pause_s = 0.2
    responses = await asyncio.gather(*(_post_alone(cluster.http) for _ in range(1000)))
    codes = [int(r.split()[1]) for r in responses]
    assert set(codes) == {200, 429}
    assert codes.count(200) >= most
    for code, response in zip(codes, responses, strict=True):
        assert ANSWER.encode() in response if code == 200 else b"retry-after: " in response
    assert cluster.gateway.num_inside == 0


async def _post_alone(url: str) -> bytes:
    """On a connection of its own, which the client's pool would be slow to make a thousand of."""
    reader, writer = await asyncio.open_connection(*httpx.URL(url).netloc.decode().split(":"))
    body = json.dumps(BODY).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}"
    writer.write(f"{head}\r\n\r\n".encode() + body)
    response = await reader.read()
    writer.close()
    return response


async def test_a_cancelled_grpc_stream_cancels_its_worker(
    cluster: ScriptedCluster, worker: ScriptedWorker, grpc_channel: grpc.aio.Channel
) -> None:
    worker.pause_s = 0.2
    message = gateway_pb2.ChatMessage(role="user", content="hello")
    call = gateway_pb2.ChatCall(model=MODEL, messages=[message])
    stub = gateway_pb2_grpc.GatewayServiceStub(grpc_channel)
    stream = stub.StreamChat(gateway_pb2.StreamChatRequest(call=call))
    await stream.read()
    stream.cancel()
    await eventually(lambda: worker.num_running == 0, within_s=1.0)
    await eventually(lambda: cluster.gateway.num_inside == 0)
