"""The nodes of this machine: which cores and which memory are close to each other.

Not every node has both. Memory behind CXL has no cores; a socket whose slots are empty has no
memory, and works on its neighbour's. Only what this process may use counts, so a node that is kept
from it looks like one that has nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.numa.cgroups import Limits, read_limits
from cluster.numa.cores import Core
from cluster.numa.gpus import Gpu, read_gpus
from cluster.numa.kernel_files import naming, parse_ids, read, read_if_there

_MEMORY = re.compile(r"MemTotal:\s+(\d+) kB", re.ASCII)
# How far a node is from itself; 20 is twice as far.
_HERE = 10


@dataclass(frozen=True, slots=True)
class Node:
    """`cores` are empty and `memory_bytes` 0 where it has none for this process; `distances` are by
    the id of the other node, itself among them."""

    id: int
    cores: tuple[Core, ...]
    memory_bytes: int
    distances: Mapping[int, int]

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(cpu for core in self.cores for cpu in core))


@dataclass(frozen=True, slots=True)
class Topology:
    """`nodes` by ascending id; `warnings` say what made no sense, and what is taken instead."""

    nodes: tuple[Node, ...]
    gpus: tuple[Gpu, ...]
    limits: Limits
    warnings: tuple[str, ...] = ()

    @property
    def num_cpus(self) -> int:
        return sum(len(node.cpus) for node in self.nodes)

    @property
    def hosts(self) -> tuple[Node, ...]:
        """The nodes that can have an attention worker."""
        return tuple(node for node in self.nodes if node.cores)

    def memory_node(self, host: Node) -> Node:
        """Where a host's workers keep their memory: there, or on the nearest node that has some."""
        stores = [node for node in self.nodes if node.memory_bytes]
        if host in stores:
            return host
        return min(stores, key=lambda node: host.distances[node.id], default=host)

    def affordable_cores(self, host: Node) -> tuple[Core, ...]:
        """As many of a host's cores as its share of the quota keeps busy; never none.

        A quota names no cores. When all threads together have used it up they stand still for the
        rest of the period, so those it does not pay for only make the others wait.
        """
        quota = self.limits.quota_cpus
        if quota is None or quota >= self.num_cpus:
            return host.cores
        return host.cores[: max(1, int(len(host.cores) * quota / self.num_cpus))]


def read_topology(
    sysfs: Path = Path("/sys"),
    proc: Path = Path("/proc"),
    affinity: Collection[int] | None = None,
) -> Topology:
    """`affinity` is that of the calling thread unless given.

    A kernel that tells of no nodes is one node with everything; so, with a warning, is one that
    tells what makes no sense.
    """
    limits = read_limits(proc)
    warnings = [limits.warning] if limits.warning else []
    cpus = frozenset(os.sched_getaffinity(0) if affinity is None else affinity)
    if limits.cpus is not None:
        # What runs at all runs somewhere: a set that leaves nothing is not its own.
        cpus = cpus & limits.cpus or cpus
    nodes: tuple[Node, ...] = (_everything(sysfs, proc, cpus),)
    if (sysfs / "devices" / "system" / "node").is_dir():
        try:
            nodes = _nodes(sysfs, cpus, limits)
        except (OSError, ValueError) as error:
            warnings.append(f"the machine is taken as one node: {error}")
    ids = {node.id for node in nodes}
    gpus = (g if g.node in ids else replace(g, node=None) for g in read_gpus(sysfs, proc))
    return Topology(nodes, tuple(gpus), limits, tuple(warnings))


def _everything(sysfs: Path, proc: Path, cpus: frozenset[int]) -> Node:
    memory = _MEMORY.search(read_if_there(proc / "meminfo"))
    memory_bytes = int(memory[1]) * 1024 if memory else 0
    return Node(0, tuple(_cores(sysfs, cpus)), memory_bytes, {0: _HERE})


def _nodes(sysfs: Path, cpus: frozenset[int], limits: Limits) -> tuple[Node, ...]:
    """Raises OSError or ValueError where no account of a machine is found that could run this."""
    folders = sysfs / "devices" / "system" / "node"
    with naming(folders):
        ids = sorted(int(folder.name[4:]) for folder in folders.glob("node[0-9]*"))
    nodes = []
    for node in ids:
        folder = folders / f"node{node}"
        with naming(folder):
            cores = tuple(_cores(sysfs, cpus & parse_ids(read(folder / "cpulist"))))
            memory_bytes = _memory_bytes(read(folder / "meminfo"))
            distances = _distances(read(folder / "distance"), ids)
        may_use = limits.memory_nodes is None or node in limits.memory_nodes
        nodes.append(Node(node, cores, memory_bytes if may_use else 0, distances))
    with naming(folders):
        _check(nodes)
    return tuple(nodes)


def _check(nodes: list[Node]) -> None:
    cpus = [cpu for node in nodes for cpu in node.cpus]
    if len(cpus) > len(set(cpus)):
        raise ValueError("a cpu is in two nodes")
    if not cpus:
        raise ValueError("no node has a cpu that this process may use")
    if not any(node.memory_bytes for node in nodes):
        raise ValueError("no node has memory that this process may use")


def _memory_bytes(meminfo: str) -> int:
    found = _MEMORY.search(meminfo)
    if found is None:
        raise ValueError("meminfo has no MemTotal")
    return int(found[1]) * 1024


def _distances(told: str, ids: list[int]) -> dict[int, int]:
    """Linux writes a number for each node that is online, in their order."""
    return dict(zip(ids, map(int, told.split()), strict=True))


def _cores(sysfs: Path, cpus: frozenset[int]) -> Iterator[Core]:
    """The cpus by the core they are hyperthreads of; one that tells of no others is alone."""
    left = set(cpus)
    for cpu in sorted(cpus):
        if cpu in left:
            core = left & _siblings(sysfs, cpu) | {cpu}
            left -= core
            yield tuple(sorted(core))


def _siblings(sysfs: Path, cpu: int) -> frozenset[int]:
    folder = sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology"
    try:
        return parse_ids(read_if_there(folder / "thread_siblings_list"))
    except ValueError:
        return frozenset()
