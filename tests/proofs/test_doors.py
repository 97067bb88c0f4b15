"""Proofs through a whole cluster in one process: every door says the same; who leaves is heard."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from actors.local import LocalCluster, local_cluster
from actors.roles import Endpoints
from cluster.client import AsyncClient, Client, Proofs, ProofVerdict, RetryPolicy
from cluster.config import ThothConfig
from cluster.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    Starting,
    ThothError,
    Unauthenticated,
    Unsupported,
)
from cluster.proofs import GoalOutcome
from cluster.wire.proofs import ProofEvent, event_from_pb
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import prover_pb2 as pb
from protos.thoth.v1 import prover_pb2_grpc
from prover.checker import verify
from prover.store.database import Store
from prover.syntax.problem import parse
from tests.gateway.scripted import config_of
from tests.proofs.bodies import COMMUTES, ENDLESS, FALSEHOOD, NAT, THEOREM, searches, until

LEFT_S = 1.0  # after a caller left, nothing is searched for it any more
TWO = NAT + THEOREM + FALSEHOOD
KEY = "thoth-0123456789"

Running = tuple[LocalCluster, Endpoints]


@asynccontextmanager
async def cluster_of(folder: Path, home: Path, **prover: Any) -> AsyncIterator[Running]:
    """A cluster that can prove."""
    gateway = {"api_keys_file": prover.pop("api_keys_file", None)}
    told = config_of(folder, home, **gateway).model_dump()
    supervisor = told["supervisor"] | {"lease_s": 1.0}
    config = ThothConfig.model_validate(
        told | {"prover": {"processes": 2} | prover, "supervisor": supervisor}
    )
    async with local_cluster(config) as (cluster, endpoints):
        names = {f"prover-{i}" for i in range(config.prover.count)}

        def is_ready() -> bool:
            there = {m.name for m in cluster.gateway.station.lease.members if m.is_ready}
            return names <= there and not cluster.gateway.missing()

        await until(is_ready, within_s=60.0)
        yield cluster, endpoints


@pytest.fixture
async def running(tiny_folder: Path, tmp_path: Path) -> AsyncIterator[Running]:
    async with cluster_of(tiny_folder, tmp_path) as started:
        yield started


@pytest.fixture
def endpoints(running: Running) -> Endpoints:
    return running[1]


@pytest.fixture
async def http(endpoints: Endpoints) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=endpoints.http, timeout=60.0) as client:
        yield client


async def over_grpc(
    endpoints: Endpoints, request: pb.ProveRequest, metadata: tuple[tuple[str, str], ...] = ()
) -> list[ProofEvent]:
    async with grpc.aio.insecure_channel(endpoints.grpc) as channel:
        stub = prover_pb2_grpc.ProverServiceStub(channel)
        try:
            return [event_from_pb(e) async for e in stub.Prove(request, metadata=metadata)]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


async def over_http(endpoints: Endpoints, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=endpoints.http, timeout=60.0) as client:
        return await client.post("/v1/prove", json=body)


def with_client(endpoint: str) -> Proofs:
    with Client(endpoint) as client:
        return client.prove(TWO, certificate=True, explanation=True)


async def test_every_door_says_the_same(http: httpx.AsyncClient, endpoints: Endpoints) -> None:
    proofs = await asyncio.to_thread(with_client, endpoints.grpc)
    proved, refuted = proofs.outcomes
    assert (proved.verdict, refuted.verdict) == (ProofVerdict.PROVED, ProofVerdict.REFUTED)
    assert not proofs.all_proved
    assert proofs.request_id.startswith("req-")
    said = str(verify(parse(TWO.encode(), "problem.prove"), proved.certificate))
    assert said == f"proved: {proved.checked}"

    async with AsyncClient(endpoints.grpc) as client:
        again = await client.prove(TWO, certificate=True, explanation=True)
    assert timeless(again) == timeless(proofs)

    request = pb.ProveRequest(text=TWO, certificate=True, explanation=True)
    *outcomes, _ = await over_grpc(endpoints, request)
    assert timeless(Proofs(tuple(outcomes), "", 0.0)) == timeless(proofs)  # type: ignore[arg-type]

    body = {"text": TWO, "certificate": True, "explanation": True}
    whole = (await http.post("/v1/prove", json=body)).json()
    assert (whole["object"], whole["num_goals"]) == ("proofs", 2)
    first, second = whole["data"]
    assert {k: first[k] for k in ("goal", "verdict", "statement", "checked")} == {
        "goal": "goal",
        "verdict": "proved",
        "statement": proved.statement,
        "checked": proved.checked,
    }
    assert first["certificate"] == proved.certificate
    assert first["explanation"] == list(proved.explanation)
    assert (second["values"], second["left"], second["right"]) == (
        {"x": "(succ zero)"},
        "(succ (succ zero))",
        "(succ zero)",
    )
    assert "certificate" not in second

    async with http.stream("POST", "/v1/prove", json=body | {"stream": True}) as response:
        frames = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert frames.pop() == "[DONE]"
    *goals, last = map(json.loads, frames)
    assert [without_time(goal) for goal in goals] == [without_time(g) for g in whole["data"]]
    assert (last["object"], last["num_goals"]) == ("proofs", 2)


def timeless(proofs: Proofs) -> list[dict[str, Any]]:
    return [without_time(asdict(outcome)) for outcome in proofs.outcomes]


def without_time(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if name != "seconds"}


async def test_bad_input_is_refused_by_name_over_http(http: httpx.AsyncClient) -> None:
    for body, param, said in (
        ({}, "text", "Field required"),
        ({"text": "prove", "name": "a.prove"}, "text", "a.prove:1:6: expected a name"),
        ({"text": COMMUTES, "mode": "clever"}, "mode", "'clever'"),
        ({"text": COMMUTES, "language": "coq"}, "language", "'coq'"),
        ({"text": COMMUTES, "steps": -1}, "steps", "-1"),
        ({"text": COMMUTES, "steps": 2**64}, "steps", str(2**64)),
        ({"text": COMMUTES, "time_limit_s": 1e6}, "time_limit_s", "1000000.0"),
        ({"text": COMMUTES, "memory_bytes": 1}, "memory_bytes", "1"),
        ({"text": COMMUTES, "timeout_s": 0}, "timeout_s", "0"),
        ({"text": COMMUTES, "limit": 1}, "limit", "not permitted"),
    ):
        response = await http.post("/v1/prove", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param), error
        assert said in error["message"]
    too_long = await http.post("/v1/prove", json={"text": "(" * 300_000})
    assert too_long.status_code == 413
    assert too_long.json()["error"]["param"] == "text"
    streamed = await http.post("/v1/prove", json={"text": "prove", "stream": True})
    assert streamed.status_code == 400


async def test_bad_input_is_refused_by_name_over_grpc(endpoints: Endpoints) -> None:
    with pytest.raises(InvalidArgument, match=r"problem\.prove:1:6") as refused:
        await over_grpc(endpoints, pb.ProveRequest(text="prove"))
    assert refused.value.field == "text"
    assert refused.value.request_id.startswith("req-")
    with pytest.raises(InvalidArgument) as late:
        await over_grpc(endpoints, pb.ProveRequest(text=COMMUTES, timeout_s=1e9))
    assert late.value.field == "timeout_s"
    async with grpc.aio.insecure_channel(endpoints.grpc) as channel:
        method: Any = channel.unary_stream("/thoth.v1.ProverService/Prove")
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            [each async for each in method(b"\xff\xff\xff")]
    assert from_rpc_error(broken.value).field == "request"


async def test_the_sdk_refuses_what_fits_in_no_field(endpoints: Endpoints) -> None:
    async with AsyncClient(endpoints.grpc) as client:
        for field, options in (
            ("mode", {"mode": "clever"}),
            ("steps", {"steps": -1}),
            ("name", {"name": 7}),
        ):
            with pytest.raises(InvalidArgument) as refused:
                await client.prove(COMMUTES, **options)
            assert refused.value.field == field
        with pytest.raises(TypeError, match="'tactic'"):
            await client.prove(COMMUTES, tactic="magic")  # type: ignore[call-arg]
        with pytest.raises(DeadlineExceeded) as late:
            await client.prove(ENDLESS, time_limit_s=60.0, timeout_s=1.0)
        assert late.value.field == "timeout_s"
    await until(lambda: not searches(), within_s=LEFT_S)


async def leave_http(endpoints: Endpoints) -> None:
    await over_http(endpoints, text=ENDLESS, time_limit_s=60.0)


async def leave_http_stream(endpoints: Endpoints) -> None:
    await over_http(endpoints, text=TWO + ENDLESS.removeprefix(NAT), time_limit_s=60.0, stream=True)


async def leave_grpc(endpoints: Endpoints) -> None:
    await over_grpc(endpoints, pb.ProveRequest(text=ENDLESS, time_limit_s=60.0))


async def leave_sdk(endpoints: Endpoints) -> None:
    async with AsyncClient(endpoints.grpc) as client:
        await client.prove(ENDLESS, time_limit_s=60.0)


@pytest.mark.parametrize("leave", [leave_http, leave_http_stream, leave_grpc, leave_sdk])
async def test_a_client_that_leaves_ends_its_search(
    running: Running, leave: Callable[[Endpoints], Awaitable[None]]
) -> None:
    cluster, endpoints = running
    asking = asyncio.ensure_future(leave(endpoints))
    await until(lambda: any(has_run(search) for search in searches()))
    asking.cancel()
    await until(lambda: not searches(), within_s=LEFT_S)
    await until(lambda: cluster.gateway.num_inside == 0)


def has_run(search: psutil.Process) -> bool:
    """For longer than a theorem of these takes."""
    try:
        times = search.cpu_times()
    except psutil.NoSuchProcess:
        return False
    return times.user + times.system > 0.5


async def test_a_key_is_needed_where_there_are_keys(tiny_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    async with cluster_of(tiny_folder, tmp_path, api_keys_file=keys) as (_, endpoints):
        assert (await over_http(endpoints, text=COMMUTES)).status_code == 401
        request = pb.ProveRequest(text=COMMUTES)
        with pytest.raises(Unauthenticated):
            await over_grpc(endpoints, request)
        held = (("authorization", f"Bearer {KEY}"),)
        assert len(await over_grpc(endpoints, request, held)) == 2
        async with AsyncClient(endpoints.grpc, KEY) as client:
            assert (await client.prove(COMMUTES)).all_proved


async def test_whose_lemmas_they_are_the_key_says(tiny_folder: Path, tmp_path: Path) -> None:
    """And not the caller."""
    keys = tmp_path / "keys"
    names = {"alice": f"{KEY}-a", "bob": f"{KEY}-b"}
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in names.items()}
    keys.write_text("".join(f"{name}:{digest}\n" for name, digest in digests.items()))
    folder = tmp_path / "lemmas"
    kept = {"api_keys_file": keys, "max_lemmas_bytes": 2**20, "lemmas_dir": folder}

    def numbers() -> list[int]:
        return [Store(folder, owner=name).num_lemmas() for name in names]

    async with cluster_of(tiny_folder, tmp_path, **kept) as (_, endpoints):

        async def knows(name: str, claims: str) -> bool:
            request = pb.ProveRequest(text=COMMUTES, explanation=True, tenant=claims)
            held = (("authorization", f"Bearer {names[name]}"),)
            outcome, _ = await over_grpc(endpoints, request, held)
            assert isinstance(outcome, GoalOutcome)
            return any("It was known" in line for line in outcome.explanation)

        await knows("alice", claims="bob")
        ours, theirs = numbers()
        assert (ours > 0, theirs) == (True, 0)
        assert await knows("alice", claims="bob")
        await knows("bob", claims="alice")
        assert numbers() == [ours, ours]  # each has their own


async def test_a_cluster_without_provers_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    async with cluster_of(tiny_folder, tmp_path, count=0) as (_, endpoints):
        refused = await over_http(endpoints, text=COMMUTES)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")
        with pytest.raises(Unsupported):
            await over_grpc(endpoints, pb.ProveRequest(text=COMMUTES))


async def test_a_prover_that_is_full_is_passed_over(tiny_folder: Path, tmp_path: Path) -> None:
    limits = {"count": 2, "processes": 1, "max_waiting": 0}
    async with cluster_of(tiny_folder, tmp_path, **limits) as (_, endpoints):
        request = pb.ProveRequest(text=ENDLESS, time_limit_s=3.0)
        both = [asyncio.ensure_future(over_grpc(endpoints, request)) for _ in range(2)]
        await until(lambda: len(searches()) == 2)
        with pytest.raises(Overloaded) as refused:
            await over_grpc(endpoints, request)
        assert refused.value.retry_after_s >= 1.0
        full = await over_http(endpoints, text=COMMUTES)
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        assert [len(events) for events in await asyncio.gather(*both)] == [2, 2]


async def test_a_prover_that_dies_is_replaced_under_its_callers(running: Running) -> None:
    cluster, endpoints = running
    request = pb.ProveRequest(text=TWO + ENDLESS.removeprefix(NAT), time_limit_s=3.0)
    async with AsyncClient(endpoints.grpc, retries=RetryPolicy(max_tries=10)) as client:
        raw = asyncio.ensure_future(over_grpc(endpoints, request))
        asked = asyncio.ensure_future(client.prove(request.text, time_limit_s=3.0))
        await until(lambda: sum(map(has_run, searches())) == 2)
        await cluster.starter.stop("prover-0")
        assert searches() == []
        # After an outcome was sent the caller has to begin again: the SDK does.
        with pytest.raises(ThothError) as lost:
            await raw
        assert isinstance(lost.value, Starting)
        again = await asked
    assert [outcome.verdict for outcome in again.outcomes] == [
        ProofVerdict.PROVED,
        ProofVerdict.REFUTED,
        ProofVerdict.UNKNOWN,
    ]


async def test_the_api_is_described(http: httpx.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()
    body = described["paths"]["/v1/prove"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/ProveBody"}
    fields = described["components"]["schemas"]["ProveBody"]["properties"]
    assert set(fields) == {
        *("text", "name", "language", "mode", "time_limit_s", "steps", "memory_bytes", "seed"),
        *("certificate", "explanation", "stream", "timeout_s"),
    }
    assert all(field["description"] for field in fields.values())
