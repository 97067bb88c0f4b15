"""Keeps a gpu_worker's engine attached to an attention worker, for as long as there is one.

    nobody --ready, entered, timed--> attached --lost, or its lease ended--> nobody

Workers of the same node come first: they read the host's memory where it lies. Those of other nodes
are sent what they attend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

from actors.attention_worker import door_path
from actors.places import ordinal
from actors.roles import Station
from cluster.attention.door import enter, reclaim
from cluster.attention.port import AttentionPort
from cluster.config import ThothConfig
from cluster.engine.host_attention import HostAttention
from cluster.engine.thread import EngineThread
from cluster.errors import Lost, ThothError
from cluster.scheduling.membership import Member, Role
from cluster.telemetry import catalogue
from cluster.wire.attention_port import Source, connect

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
_RECLAIM_S = 2.0


class AttentionLink:
    """Of one gpu_worker's engine."""

    def __init__(self, station: Station, config: ThothConfig) -> None:
        self._station = station
        self._config = config
        self._is_attached = station.metrics.gauge(catalogue.ATTENTION_ATTACHED)
        self._lost = station.metrics.counter(catalogue.ATTENTION_LOST)
        self._num_lost = 0
        self._attached: Member | None = None
        self._runs_on = ""
        self._said = ""
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, attention: HostAttention, thread: EngineThread) -> None:
        """Once the engine runs, whose station has said what it runs on."""
        self._runs_on = self._me.runs_on
        self._task = asyncio.create_task(self._keep(attention, thread), name="attention link")

    @property
    def _me(self) -> Member:
        return self._station.lease.member

    async def end(self) -> None:
        """Waits for an attempt that was begun: what it has opened is the engine's or closed."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _keep(self, attention: HostAttention, thread: EngineThread) -> None:
        while not self._ending.is_set():
            try:
                await self._look_after(attention, thread)
            except (ThothError, OSError) as error:
                self._say(f"no attention worker: {error}")
            except asyncio.CancelledError:
                return
            self._count(attention)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), INTERVAL_S)

    async def _look_after(self, attention: HostAttention, thread: EngineThread) -> None:
        if attention.port.worker is None:
            self._attached = None
        wanted = partner(self._me, self._station.lease.members)
        if _is_same(wanted, self._attached):
            return
        port = None if wanted is None else await self._entered(wanted, attention)
        try:
            await asyncio.wrap_future(thread.between_steps(lambda _: attention.attach(port)))
        except asyncio.CancelledError:
            # The engine has ended, and this with it.
            if port is not None:
                port.close()
            raise
        self._attached = wanted
        self._say("alone" if wanted is None else f"attended by {wanted.name}")
        with_whom = f", beside {wanted.name}" if wanted is not None else ""
        self._station.lease.set_runs_on(self._runs_on + with_whom)

    async def _entered(self, worker: Member, attention: HostAttention) -> AttentionPort:
        me, sizes, arena = self._me, attention.sizes, attention.arena
        timeout_s = self._config.attention_worker.timeout_s
        if worker.node != me.node:
            source = Source(arena.kv, arena.memory, arena.generations)
            return await asyncio.to_thread(
                connect, worker.address, sizes, source, client=me.name, timeout_s=timeout_s
            )
        door = door_path(self._config, worker.name)
        return await asyncio.to_thread(
            enter, door, sizes, arena.kv, arena.fd, owner=me.name, timeout_s=timeout_s
        )

    def _count(self, attention: HostAttention) -> None:
        self._is_attached.set(attention.port.worker is not None)
        self._lost.inc(attention.port.num_lost - self._num_lost)
        self._num_lost = attention.port.num_lost

    def _say(self, what: str) -> None:
        """Once, however often it is tried."""
        if what != self._said:
            log.info("%s: %s", self._me.name, what)
            self._said = what


def _is_same(one: Member | None, other: Member | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.name, one.incarnation) == (other.name, other.incarnation)


def partner(me: Member, members: Iterable[Member]) -> Member | None:
    """The attention worker for a gpu_worker: of those on its node, or of all, each has its share
    of the gpu_workers."""
    ready = [m for m in members if m.role is Role.ATTENTION_WORKER and m.is_ready]
    near = [m for m in ready if m.node == me.node]
    offered = sorted(near or ready, key=lambda member: ordinal(member.name))
    return offered[ordinal(me.name) % len(offered)] if offered else None


def reclaimed(me: Member, members: Iterable[Member], config: ThothConfig) -> int | None:
    """The descriptor of the host's memory that the worker of this name left, if an attention worker
    of its node has kept it."""
    for member in members:
        if member.role is Role.ATTENTION_WORKER and member.node == me.node:
            with suppress(Lost):
                path = door_path(config, member.name)
                kept = reclaim(path, me.name, timeout_s=_RECLAIM_S)
                if kept is not None:
                    log.info("%s: %s had kept its memory", me.name, member.name)
                    return kept
    return None
