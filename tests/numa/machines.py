"""Machines made of files, as Linux shows them in /sys and /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.numa import Limits, Topology, read_limits, read_topology
from cluster.numa.kernel_files import parse_ids

_KIB_PER_GIB = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """Every method writes files; a machine without any is a kernel that tells nothing."""

    root: Path

    @property
    def sysfs(self) -> Path:
        return self.root / "sys"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def nodes(self) -> Path:
        return self.sysfs / "devices" / "system" / "node"

    def read(self, affinity: str) -> Topology:
        return read_topology(self.sysfs, self.proc, parse_ids(affinity))

    def limits(self) -> Limits:
        return read_limits(self.proc)

    def node(self, number: int, cpus: str, gib: int, distances: str) -> None:
        folder = self.nodes / f"node{number}"
        kib = gib * _KIB_PER_GIB
        write(folder / "cpulist", cpus)
        write(folder / "distance", distances)
        write(
            folder / "meminfo",
            f"Node {number} MemTotal:       {kib} kB\nNode {number} MemFree:        1 kB",
        )

    def whole_memory(self, gib: int) -> None:
        write(self.proc / "meminfo", f"MemTotal:       {gib * _KIB_PER_GIB} kB\nMemFree: 1 kB")

    def hyperthreads(self, siblings: str) -> None:
        for cpu in parse_ids(siblings):
            topology = self.sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology"
            write(topology / "thread_siblings_list", siblings)

    def status(self, memory_nodes: str) -> None:
        write(self.proc / "self" / "status", f"Name:\tthoth\nMems_allowed_list:\t{memory_nodes}")

    def in_groups(self, lines: str) -> None:
        write(self.proc / "self" / "cgroup", lines)

    def version_2(self, root: str = "/") -> Path:
        """The mount, where groups can be made."""
        mount = self.sysfs / "fs" / "cgroup" / "unified"
        self._mounted(
            f"31 23 0:28 {root} {mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
        )
        return mount

    def version_1(self, controllers: str, root: str = "/") -> Path:
        mount = self.sysfs / "fs" / "cgroup" / controllers
        self._mounted(f"32 23 0:29 {root} {mount} rw,nosuid - cgroup cgroup rw,{controllers}")
        return mount

    def _mounted(self, line: str) -> None:
        file = self.proc / "self" / "mountinfo"
        before = file.read_text() if file.exists() else "22 27 0:21 / /proc rw - proc proc rw\n"
        write(file, before + line)

    def gpu(self, address: str, node: str, model: str = "") -> None:
        """An NVIDIA device, with a driver when it has a model."""
        device = self.sysfs / "bus" / "pci" / "devices" / address
        for name, told in (("vendor", "0x10de"), ("class", "0x030200"), ("numa_node", node)):
            write(device / name, told)
        if model:
            information = self.proc / "driver" / "nvidia" / "gpus" / address / "information"
            write(information, f"Model: \t\t {model}\nIRQ:   \t\t 1")


def write(file: Path, text: str) -> None:
    """With the folders it needs, and the line end that Linux writes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def two_sockets(root: Path) -> Machine:
    """Eight cores and 64 GiB, half of them on each."""
    machine = Machine(root)
    machine.node(0, "0-3", 32, "10 21")
    machine.node(1, "4-7", 32, "21 10")
    return machine
