"""Where the workers of a node compute: cores and memory, shared out between those that compute on
the device and those that attend beside it.

    gpu_worker-0  attention_worker-0   on the first NUMA node
    gpu_worker-1  attention_worker-1   on the second ..., and again from the first
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ThothConfig
from cluster.numa import CorePlan, Node, Topology, format_ids, pin_to, plan_cores

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A NUMA node with cores, and the node that is nearest to it with memory."""

    host: Node
    memory_node: int
    cores: CorePlan

    def said(self, cpus: tuple[int, ...]) -> str:
        return f"cpus {format_ids(cpus)} of node {self.host.id}, memory of node {self.memory_node}"


def places(topology: Topology, config: ThothConfig) -> tuple[Place, ...]:
    """One for each NUMA node that can have workers."""
    hosts = topology.hosts
    return tuple(
        Place(
            host,
            topology.memory_node(host).id,
            plan_cores(topology.affordable_cores(host), _reserved(topology, config, host)),
        )
        for host in hosts
    )


def place_of_worker(topology: Topology, config: ThothConfig, name: str) -> Place | None:
    """A gpu_worker's: that of its GPU, where the machine tells. None where nobody attends beside
    it: then it may compute anywhere."""
    if not config.attention_worker.count:
        return None
    offered = places(topology, config)
    number = ordinal(name)
    if config.gpu_worker.device == "cuda" and number < len(topology.gpus):
        near = (place for place in offered if place.host.id == topology.gpus[number].node)
        offered = tuple(near) or offered
    return offered[number % len(offered)]


def threads_of_worker(topology: Topology, config: ThothConfig, place: Place | None) -> int:
    """A gpu_worker's share of the cores that its like have on the node, or on the machine."""
    worker = config.gpu_worker
    if worker.threads is not None:
        return worker.threads
    if place is not None:
        return max(1, len(place.cores.gpu_worker) // _workers_each(topology, config))
    quota = topology.limits.quota_cpus
    cpus = topology.num_cpus if quota is None else min(topology.num_cpus, int(quota))
    return max(1, cpus // worker.count)


def keep_to(place: Place | None) -> None:
    """The calling thread, and those that it starts, compute where a gpu_worker does."""
    if place is None:
        return
    pinning = pin_to(place.memory_node, place.cores.gpu_worker)
    for denied in filter(None, (pinning.cpus_denied, pinning.memory_denied)):
        log.warning("a gpu_worker is not pinned: %s", denied)


def _workers_each(topology: Topology, config: ThothConfig) -> int:
    return -(-config.gpu_worker.count // len(topology.hosts))


def _reserved(topology: Topology, config: ThothConfig, host: Node) -> int:
    """Cores of a host for the gpu_workers on it: on the cpu device half, if they do not say."""
    worker = config.gpu_worker
    num_workers = _workers_each(topology, config)
    if worker.threads is not None:
        return worker.threads * num_workers
    is_on_cpu = worker.device == "cpu"
    return len(topology.affordable_cores(host)) // 2 if is_on_cpu else num_workers


def ordinal(name: str) -> int:
    """Of a member among those of its role: gpu_worker-3 is 3."""
    return int(name.rpartition("-")[2])


@contextmanager
def claimed(folder: Path, number: int, count: int) -> Iterator[int]:
    """The first number from `number` on, of `count` and in a circle, that no other process has
    claimed in this folder; `number` itself where all are taken. It is free again at the end, or
    with the process."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in (*range(number, count), *range(number)):
        file = os.open(folder / f"numa-{each}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        try:
            yield each
        finally:
            os.close(file)
        return
    yield number
