"""The supervisor: keeps the actors alive that the config asks for, and knows where everyone is.

How an actor is started is the business of a `Starter`: Ray's in a cluster, plain objects in one
process. The membership brain decides when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Protocol

from actors.roles import Site, Station
from cluster.config import ThothConfig
from cluster.scheduling.membership import (
    Desired,
    LeasePolicy,
    Member,
    Membership,
    Role,
    SeatStatus,
    ShutDown,
    Start,
)
from cluster.telemetry import catalogue
from cluster.telemetry.discovery import FILE_NAME, write_targets
from cluster.wire.members import member_from_pb, member_to_pb
from cluster.wire.serving import CallContext, unary
from protos.thoth.v1 import supervisor_pb2 as pb
from protos.thoth.v1 import supervisor_pb2_grpc

log = logging.getLogger(__name__)


class Starter(Protocol):
    """Brings actors up and takes them down."""

    async def start(self, desired: Desired, node: str) -> None:
        """Returns when the actor's `start` has returned; adopts one that lives already. `node` is
        where it should be, empty where that is not said."""
        ...

    async def stop(self, name: str) -> None:
        """Returns when the actor is gone; one that is not there is gone already."""
        ...

    async def end(self) -> None:
        """Called last: the supervisor itself is to go."""
        ...


def desired_members(config: ThothConfig) -> tuple[Desired, ...]:
    """What should be alive beside the gateways. Attention workers stand beside the gpu_workers in
    turn, or where their resource is."""
    workers = [Desired(Role.GPU_WORKER, f"gpu_worker-{i}") for i in range(config.gpu_worker.count)]
    attention = config.attention_worker
    beside = [""] if attention.resource else [worker.name for worker in workers]
    attending = (
        Desired(Role.ATTENTION_WORKER, f"attention_worker-{i}", beside[i % len(beside)])
        for i in range(attention.count)
    )
    others = (Desired(Role.SCHEDULER, "scheduler"), Desired(Role.RETRIEVER, "retriever"))
    provers = (Desired(Role.PROVER, f"prover-{i}") for i in range(config.prover.count))
    return (*others, *workers, *attending, *provers)


class Supervisor:
    """Ticks the membership brain and carries out what it says."""

    def __init__(self, site: Site, config: ThothConfig, starter: Starter) -> None:
        # Asking others where it is would wait for itself to come up.
        site = replace(site, find_supervisor=self._own_address)
        self._station = Station(Role.SUPERVISOR, site, config)
        self._clock = site.clock
        self._starter = starter
        self._settings = config.supervisor
        self._targets = config.run_dir / FILE_NAME
        self._started_s = site.clock.now_s()
        policy = LeasePolicy(
            lease_s=self._settings.lease_s,
            start_s=self._settings.start_s,
            idle_s=self._settings.idle_s,
        )
        self._membership = Membership(desired_members(config), policy, self._started_s)
        self._members = self._station.metrics.gauge(catalogue.MEMBERS)
        self._restarts = self._station.metrics.counter(catalogue.MEMBER_RESTARTS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._published: tuple[Member, ...] = ()
        self._station.server.add(
            supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server, _Servicer(self)
        )

    @property
    def address(self) -> str:
        return self._station.server.address

    async def _own_address(self) -> str:
        return self.address

    async def start(self) -> None:
        await self._station.open()
        await self._station.set_ready(True)
        self._ticking = asyncio.create_task(self._tick_forever(), name="supervisor ticks")

    async def stop(self) -> None:
        for task in (*self._tasks, *filter(None, [self._ticking])):
            task.cancel()
        await asyncio.gather(*self._tasks, *filter(None, [self._ticking]), return_exceptions=True)
        await self._station.close()

    def renew(self, member: Member) -> pb.RenewLeaseResponse:
        self._membership.renewed(member, self._clock.now_s())
        return pb.RenewLeaseResponse(
            members=map(member_to_pb, self._membership.members()), lease_s=self._settings.lease_s
        )

    def describe(self) -> pb.DescribeClusterResponse:
        return pb.DescribeClusterResponse(
            members=[_status_to_pb(status) for status in self._membership.status()],
            uptime_s=self._clock.now_s() - self._started_s,
        )

    async def shut_down(self, why: str) -> list[str]:
        """Stops everyone that was started here; the supervisor follows by itself."""
        log.info("shutting down: %s", why)
        if self._ticking is not None:
            self._ticking.cancel()
        for task in self._tasks:
            task.cancel()
        names = [status.desired.name for status in self._membership.status()]
        started = [name for name in names if not name.startswith(Role.GATEWAY)]
        await asyncio.gather(*(self._starter.stop(name) for name in started))
        self._spawn(self._starter.end(), "supervisor end")
        return started

    async def _tick_forever(self) -> None:
        while True:
            for command in self._membership.tick(self._clock.now_s()):
                match command:
                    case Start():
                        self._spawn(self._bring_up(command), f"start {command.desired.name}")
                    case ShutDown(why):
                        self._spawn(self._end(why), "shut down")
                        return
            self._publish()
            await asyncio.sleep(self._settings.heartbeat_s / 2)

    async def _end(self, why: str) -> None:
        await self.shut_down(why)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_up(self, command: Start) -> None:
        desired = command.desired
        try:
            if command.attempt > 1:
                self._restarts.labels(desired.role).inc()
                await self._starter.stop(desired.name)
            await self._starter.start(desired, command.node)
        except Exception:
            # Whatever a starter fails with, the brain's answer is the same: again, a little later.
            log.exception("%s did not start", desired.name)
            self._membership.start_failed(desired.name, self._clock.now_s())

    def _publish(self) -> None:
        """Metrics about members, and the list by which Prometheus finds their pages."""
        members = tuple(m for m in self._membership.members() if m.is_ready)
        everyone = (*members, self._station.lease.member)
        for role in Role:
            self._members.labels(role).set(sum(m.role is role for m in everyone))
        if everyone != self._published:
            write_targets(self._targets, everyone)
            self._published = everyone


def _status_to_pb(status: SeatStatus) -> pb.MemberStatus:
    member = status.member or Member(
        status.desired.role, status.desired.name, "", "", "", is_ready=False, pid=0
    )
    return pb.MemberStatus(
        member=member_to_pb(member),
        num_restarts=status.num_restarts,
        lease_age_s=status.lease_age_s,
    )


class _Servicer(supervisor_pb2_grpc.SupervisorServiceServicer):
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @unary(pb.RenewLeaseResponse)
    async def RenewLease(
        self, request: pb.RenewLeaseRequest, context: CallContext
    ) -> pb.RenewLeaseResponse:
        return self._supervisor.renew(member_from_pb(request.member))

    @unary(pb.DescribeClusterResponse)
    async def DescribeCluster(
        self, request: pb.DescribeClusterRequest, context: CallContext
    ) -> pb.DescribeClusterResponse:
        return self._supervisor.describe()

    @unary(pb.ShutDownResponse)
    async def ShutDown(
        self, request: pb.ShutDownRequest, context: CallContext
    ) -> pb.ShutDownResponse:
        return pb.ShutDownResponse(stopped=await self._supervisor.shut_down("asked to"))
