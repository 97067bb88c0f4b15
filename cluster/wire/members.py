"""How members of the cluster find each other: leases at the supervisor, and channels to whoever
holds one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc

from cluster.errors import Starting, ThothError
from cluster.scheduling.membership import Member, Role
from cluster.wire.serving import MESSAGE_OPTIONS
from cluster.wire.status import translated
from protos.thoth.v1 import (
    documents_pb2_grpc,
    prover_pb2_grpc,
    retriever_pb2_grpc,
    scheduler_pb2_grpc,
    supervisor_pb2,
    supervisor_pb2_grpc,
    worker_pb2_grpc,
)

log = logging.getLogger(__name__)

# Tells where the supervisor listens now; with Ray this asks the named actor, without it is a
# constant.
FindSupervisor = Callable[[], Awaitable[str]]

_ROLES = {
    Role.GATEWAY: supervisor_pb2.ROLE_GATEWAY,
    Role.SCHEDULER: supervisor_pb2.ROLE_SCHEDULER,
    Role.GPU_WORKER: supervisor_pb2.ROLE_GPU_WORKER,
    Role.ATTENTION_WORKER: supervisor_pb2.ROLE_ATTENTION_WORKER,
    Role.RETRIEVER: supervisor_pb2.ROLE_RETRIEVER,
    Role.PROVER: supervisor_pb2.ROLE_PROVER,
    Role.SUPERVISOR: supervisor_pb2.ROLE_SUPERVISOR,
}
_ROLES_BACK = {value: role for role, value in _ROLES.items()}


def member_to_pb(member: Member) -> supervisor_pb2.Member:
    return supervisor_pb2.Member(
        role=_ROLES[member.role],
        name=member.name,
        incarnation=member.incarnation,
        address=member.address,
        metrics_address=member.metrics_address,
        is_ready=member.is_ready,
        pid=member.pid,
        node=member.node,
        runs_on=member.runs_on,
    )


def member_from_pb(message: supervisor_pb2.Member) -> Member:
    return Member(
        role=_ROLES_BACK[message.role],
        name=message.name,
        incarnation=message.incarnation,
        address=message.address,
        metrics_address=message.metrics_address,
        is_ready=message.is_ready,
        pid=message.pid,
        node=message.node,
        runs_on=message.runs_on,
    )


class Channels:
    """One `grpc.aio` channel per address, made when first asked for."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def to(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=MESSAGE_OPTIONS)
        return self._channels[address]

    async def keep_only(self, addresses: set[str]) -> None:
        """Closes the channels to everyone else."""
        for address in set(self._channels) - addresses:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        await self.keep_only(set())


class Lease:
    """Keeps one member registered, and knows everyone else.

    The view is as old as the last renewal; an address in it may be dead, and the caller must be
    ready for that.
    """

    def __init__(self, member: Member, find_supervisor: FindSupervisor, heartbeat_s: float) -> None:
        self.member = member
        self.members: tuple[Member, ...] = ()
        self.channels = Channels()
        self._find_supervisor = find_supervisor
        self._heartbeat_s = heartbeat_s
        self._supervisor_address = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Renews once, so that the view is there, and goes on in the background."""
        await self._try_renew()
        self._task = asyncio.create_task(self._keep(), name="lease")

    def set_runs_on(self, runs_on: str) -> None:
        """Said with the next renewal."""
        self.member = replace(self.member, runs_on=runs_on)

    async def set_ready(self, is_ready: bool) -> None:
        self.member = replace(self.member, is_ready=is_ready)
        await self._try_renew()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.channels.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self._try_renew()

    async def _try_renew(self) -> None:
        try:
            await self.renew()
        except (ThothError, OSError, TimeoutError) as error:
            log.warning("%s: lease not renewed: %s", self.member.name, error)
            self._supervisor_address = ""

    async def renew(self) -> None:
        """Raises Lost or Unavailable when the supervisor does not answer."""
        if not self._supervisor_address:
            self._supervisor_address = await self._find_supervisor()
        stub = supervisor_pb2_grpc.SupervisorServiceStub(self.channels.to(self._supervisor_address))
        request = supervisor_pb2.RenewLeaseRequest(member=member_to_pb(self.member))
        with translated():
            response = await stub.RenewLease(request, timeout=self._heartbeat_s * 2)
        self.members = tuple(map(member_from_pb, response.members))
        alive = {m.address for m in self.members} | {self._supervisor_address}
        await self.channels.keep_only(alive)

    def find(self, role: Role) -> Member:
        """The first ready member of a role. Raises Starting when there is none."""
        return self.ready(role)[0]

    def ready(self, role: Role) -> tuple[Member, ...]:
        """All ready members of a role. Raises Starting when there is none."""
        found = tuple(m for m in self.members if m.role is role and m.is_ready)
        if not found:
            raise Starting(f"no {role} is ready", retry_after_s=2.0)
        return found

    def scheduler(self) -> scheduler_pb2_grpc.SchedulerServiceAsyncStub:
        channel = self.channels.to(self.find(Role.SCHEDULER).address)
        return scheduler_pb2_grpc.SchedulerServiceStub(channel)

    def retriever(self) -> retriever_pb2_grpc.RetrieverServiceAsyncStub:
        channel = self.channels.to(self.find(Role.RETRIEVER).address)
        return retriever_pb2_grpc.RetrieverServiceStub(channel)

    def documents(self) -> documents_pb2_grpc.DocumentsServiceAsyncStub:
        channel = self.channels.to(self.find(Role.RETRIEVER).address)
        return documents_pb2_grpc.DocumentsServiceStub(channel)

    def prover(self, address: str) -> prover_pb2_grpc.ProverServiceAsyncStub:
        return prover_pb2_grpc.ProverServiceStub(self.channels.to(address))

    def worker(self, address: str) -> worker_pb2_grpc.GpuWorkerServiceAsyncStub:
        return worker_pb2_grpc.GpuWorkerServiceStub(self.channels.to(address))
