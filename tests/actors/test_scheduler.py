"""The scheduler over real gRPC: what workers report of both memories decides where requests go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import grpc
import pytest

from actors.roles import Site
from actors.scheduler import Scheduler
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import Overloaded, Starting
from cluster.request import WorkerLoad
from cluster.wire.generation import load_to_pb
from cluster.wire.status import translated
from protos.thoth.v1 import scheduler_pb2, scheduler_pb2_grpc

FULL = WorkerLoad(
    num_running=4,
    num_waiting=2,
    prefill_tokens=320,
    num_blocks=64,
    max_waiting=2,
    max_running=8,
)
HOST = replace(FULL, num_host_blocks=64, num_lent_host_blocks=32, num_on_host=2)


async def nobody() -> str:
    raise Starting("there is no supervisor")


def no_death(why: str) -> None:
    raise AssertionError(why)


@pytest.fixture
async def scheduler() -> AsyncIterator[scheduler_pb2_grpc.SchedulerServiceAsyncStub]:
    site = Site("scheduler", "127.0.0.1", "n", nobody, MonotonicClock(), Random(0), no_death)
    body = Scheduler(site, ThothConfig())
    await body.start()
    async with grpc.aio.insecure_channel(body._station.server.address) as channel:
        yield scheduler_pb2_grpc.SchedulerServiceStub(channel)
    await body.stop()


async def report(
    scheduler: scheduler_pb2_grpc.SchedulerServiceAsyncStub, worker: str, load: WorkerLoad
) -> None:
    await scheduler.ReportLoad(
        scheduler_pb2.ReportLoadRequest(
            worker=worker, incarnation="1", address=f"{worker}:1", load=load_to_pb(load)
        )
    )


async def route(
    scheduler: scheduler_pb2_grpc.SchedulerServiceAsyncStub, name: str
) -> scheduler_pb2.RouteResponse:
    request = scheduler_pb2.RouteRequest(request_id=name, prompt_tokens=160)
    with translated():
        return await scheduler.Route(request)


async def test_the_node_with_room_on_its_host_is_sent_what_no_device_has_room_for(
    scheduler: scheduler_pb2_grpc.SchedulerServiceAsyncStub,
) -> None:
    await report(scheduler, "gpu_worker-0", FULL)
    await report(scheduler, "gpu_worker-1", HOST)
    chosen = await route(scheduler, "r")
    assert chosen.worker == "gpu_worker-1"
    assert "0.25 x 480 to the host + 0 without room" in chosen.why


async def test_who_is_full_in_both_memories_is_spared_what_the_queue_would_only_hold(
    scheduler: scheduler_pb2_grpc.SchedulerServiceAsyncStub,
) -> None:
    await report(scheduler, "gpu_worker-0", replace(HOST, num_waiting=3, num_lent_host_blocks=64))
    with pytest.raises(Overloaded, match="0 have KV blocks left") as caught:
        await route(scheduler, "r")
    assert caught.value.retry_after_s > 0
    await report(scheduler, "gpu_worker-0", replace(HOST, num_waiting=3))
    assert (await route(scheduler, "r")).worker == "gpu_worker-0"
