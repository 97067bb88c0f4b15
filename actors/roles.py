"""What every actor has in common: a gRPC server, a metrics page and a lease."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from cluster.clock import Clock
from cluster.config import ThothConfig
from cluster.ids import new_incarnation
from cluster.scheduling.membership import Member, Role
from cluster.telemetry.metrics import Metrics, MetricsServer
from cluster.wire.members import FindSupervisor, Lease
from cluster.wire.serving import GrpcServer


class Body(Protocol):
    """A part of the cluster, with or without Ray around it."""

    async def start(self) -> None:
        """Binds, takes a lease, and becomes ready as soon as it can serve."""

    async def stop(self) -> None:
        """Ends what runs and gives everything back."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a body stands. `name` is unique in the cluster and outlives the process.

    `die` ends the body at once, for reasons it says; the supervisor then starts it anew.
    """

    name: str
    host: str
    node: str
    find_supervisor: FindSupervisor
    clock: Clock
    random: Random
    die: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running cluster is reached: `http` is a URL, the others are host:port."""

    http: str
    grpc: str
    supervisor: str


class Station:
    """The plumbing of one body: server, metrics page, lease."""

    def __init__(self, role: Role, site: Site, config: ThothConfig) -> None:
        self.role = role
        self.site = site
        self.incarnation = new_incarnation(site.random)
        self.metrics = Metrics(role)
        self.server = GrpcServer(site.host)
        self._metrics_server = MetricsServer(self.metrics, site.host)
        self._heartbeat_s = config.supervisor.heartbeat_s
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        """Peers are found here once the station is open."""
        if self._lease is None:
            raise RuntimeError(f"{self.site.name} is not open")
        return self._lease

    async def open(self) -> None:
        """Binds both servers and takes a lease; the member is not ready yet."""
        address = await self.server.start()
        await self.server.set_serving(False)
        member = Member(
            role=self.role,
            name=self.site.name,
            incarnation=self.incarnation,
            address=address,
            metrics_address=await self._metrics_server.start(),
            is_ready=False,
            pid=os.getpid(),
            node=self.site.node,
        )
        self._lease = Lease(member, self.site.find_supervisor, self._heartbeat_s)
        await self._lease.start()

    async def set_ready(self, is_ready: bool) -> None:
        """Health and lease say the same."""
        await self.server.set_serving(is_ready)
        await self.lease.set_ready(is_ready)

    async def close(self) -> None:
        """Stops serving, then lets the lease end."""
        await self.server.stop()
        await self._metrics_server.stop()
        if self._lease is not None:
            await self._lease.stop()
