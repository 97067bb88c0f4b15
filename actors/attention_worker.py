"""Attention over the host tiers of the gpu_workers beside it, on the cores of one NUMA node.

    gpu_worker of this host  --door, shared memory-->  loop of thoth_kernels, in its own threads
               of another    --gRPC--> relay, memory-->

The event loop carries health, lease, metrics and the messages from other hosts.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from actors.attention_metrics import AttentionMetrics
from actors.places import Place, claimed, ordinal, places
from actors.roles import Site, Station
from cluster.attention.door import Door
from cluster.attention.server import AttentionServer
from cluster.config import ThothConfig
from cluster.errors import Unsupported
from cluster.kernels import kernels_available, why_not
from cluster.numa import Pinning, Topology, pin_to, read_topology
from cluster.scheduling.membership import Role
from cluster.wire.attention_service import AttentionServicer
from protos.thoth.v1 import attention_pb2_grpc

log = logging.getLogger(__name__)

COUNT_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Serving:
    """What came of it: where it runs, and who serves."""

    place: Place
    pinning: Pinning
    num_threads: int
    server: AttentionServer
    door: Door

    @property
    def said(self) -> str:
        denied = [*filter(None, [self.pinning.cpus_denied, self.pinning.memory_denied])]
        where = f"not pinned: {'; '.join(denied)}" if denied else self._place_said
        return f"{self.num_threads} thread{'s' * (self.num_threads > 1)}, {where}"

    @property
    def _place_said(self) -> str:
        return self.place.said(self.place.cores.attention)


class AttentionWorker:
    """A door for the gpu_workers of this host, and the loop behind it."""

    def __init__(self, site: Site, config: ThothConfig) -> None:
        self._site = site
        self._config = config
        self._station = Station(Role.ATTENTION_WORKER, site, config)
        self._metrics = AttentionMetrics(self._station.metrics)
        self._began: Future[Serving] = Future()
        self._thread: threading.Thread | None = None
        self._counting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Unsupported where the kernels were not built."""
        if not kernels_available():
            raise Unsupported(
                f"attention workers need thoth_kernels, which do not import: {why_not()}",
                field="attention_worker.count",
                limit="0, or a C++20 compiler when the package is installed",
            )
        self._thread = threading.Thread(target=self._live, name="attention", daemon=True)
        self._thread.start()
        serving = await asyncio.wrap_future(self._began)
        servicer = AttentionServicer(serving.server, self._config.attention_worker.copy_bytes)
        self._station.server.add(
            attention_pb2_grpc.add_AttentionServiceServicer_to_server, servicer
        )
        await self._station.open()
        self._metrics.began(serving.pinning)
        self._station.lease.set_runs_on(serving.said)
        await self._station.set_ready(True)
        counting = self._count_forever(serving, servicer)
        self._counting = asyncio.create_task(counting, name="attention counts")

    async def stop(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        await self._station.close()
        if self._thread is not None:
            if not self._began.exception():
                self._began.result().door.stop()
            await asyncio.to_thread(self._thread.join)

    def _live(self) -> None:
        """A thread of its own from its first to its last line: what it starts is pinned as it is,
        and the rest of the process is not."""
        with ExitStack() as stack:
            try:
                serving = self._serving(stack)
            except Exception as error:
                self._began.set_exception(error)
                return
            log.info("%s: %s", self._site.name, serving.said)
            self._began.set_result(serving)
            serving.door.run()

    def _serving(self, stack: ExitStack) -> Serving:
        config = self._config.attention_worker
        topology = read_topology()
        place = self._place(topology, stack)
        pinning = pin_to(place.memory_node, place.cores.attention)
        num_threads = config.threads or len(place.cores.attention)
        server = AttentionServer(num_threads)
        stack.callback(server.close)
        path = door_path(self._config, self._site.name)
        path.unlink(missing_ok=True)
        door = Door(path, server, self._site.clock, keep_s=config.keep_s)
        stack.callback(door.close)
        return Serving(place, pinning, num_threads, server, door)

    def _place(self, topology: Topology, stack: ExitStack) -> Place:
        offered = places(topology, self._config)
        number = ordinal(self._site.name) % len(offered)
        # Several machines may have one home.
        folder = self._config.run_dir / platform.node()
        return offered[stack.enter_context(claimed(folder, number, len(offered)))]

    async def _count_forever(self, serving: Serving, servicer: AttentionServicer) -> None:
        while True:
            num_clients = serving.door.num_clients + servicer.num_clients
            self._metrics.counted(serving.server.counts, num_clients)
            await asyncio.sleep(COUNT_INTERVAL_S)


def door_path(config: ThothConfig, name: str) -> Path:
    """Where an attention worker of this name lets in the gpu_workers of its host."""
    return config.run_dir / f"{name}.door"
