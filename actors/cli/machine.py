"""What `thoth doctor` says of this machine: cores, memory, nodes, devices, and pinning to them."""

from __future__ import annotations

from pathlib import Path

import psutil

from actors.cli.findings import Check, Level
from actors.places import places
from cluster.config import ThothConfig
from cluster.numa import (
    Gpu,
    Limits,
    Node,
    Pinning,
    Topology,
    format_ids,
    pin_to,
    unpinned_after,
)

_GIB = 2**30
_MEMORY_BYTES = 4 * _GIB


def check_cores(config: ThothConfig, topology: Topology) -> Check:
    usable, quota = topology.num_cpus, topology.limits.quota_cpus
    found = f"{usable} cores" + ("" if quota is None else f", cgroup limit {quota:g}")
    share = usable if quota is None else min(usable, quota)
    if share < config.gpu_worker.count:
        return Check(
            "cores", Level.WARN, found, f"set gpu_worker.count to at most {max(1, int(share))}"
        )
    return Check("cores", Level.OK, found)


def check_memory(limits: Limits) -> Check:
    available = psutil.virtual_memory().available
    left = limits.memory_left_bytes
    found = f"{available / _GIB:.1f} GiB available"
    if left is not None:
        found += f", {left / _GIB:.1f} GiB left of the cgroup limit"
    if min(available, available if left is None else left) < _MEMORY_BYTES:
        return Check(
            "memory", Level.WARN, found, f"{_MEMORY_BYTES // _GIB} GiB are needed for the demo"
        )
    return Check("memory", Level.OK, found)


def check_numa(topology: Topology) -> Check:
    """What a node has is what this process may use of it."""
    found = "; ".join(map(_node, topology.nodes))
    if topology.warnings:
        return Check("numa", Level.WARN, found, "; ".join(topology.warnings))
    return Check("numa", Level.OK, found)


def _node(node: Node) -> str:
    cores = f"cores {format_ids(node.cpus)}" if node.cores else "no cores"
    memory = f"{node.memory_bytes / _GIB:.1f} GiB" if node.memory_bytes else "no memory"
    return f"node {node.id}: {cores}, {memory}"


def check_huge_pages(sysfs: Path = Path("/sys")) -> Check:
    """Blocks lie scattered: with small pages nearly each that is read costs a walk through the page
    tables. The device's are private memory, the host tier's are shared."""
    folder = sysfs / "kernel" / "mm" / "transparent_hugepage"
    private, shared = (_chosen(folder / name) for name in ("enabled", "shmem_enabled"))
    found = f"private memory {private}, shared memory {shared}"
    if "never" in {private, shared} or shared == "deny":
        return Check(
            "huge pages",
            Level.WARN,
            f"{found}: reading the cache is slower",
            f"as root: echo madvise > {folder}/enabled; echo advise > {folder}/shmem_enabled",
        )
    return Check("huge pages", Level.OK, found)


def _chosen(file: Path) -> str:
    """Linux writes all choices, and the one in force in brackets."""
    try:
        _, _, rest = file.read_text(encoding="ascii").partition("[")
    except OSError:
        return "unknown"
    return rest.partition("]")[0] or "unknown"


def check_gpus(config: ThothConfig, gpus: tuple[Gpu, ...]) -> Check:
    is_wanted = config.gpu_worker.device == "cuda"
    if usable := [gpu for gpu in gpus if gpu.model]:
        advice = "" if is_wanted else "set gpu_worker.device to cuda for models to run on them"
        return Check("gpus", Level.OK, "; ".join(map(_gpu, usable)), advice)
    found = f"{len(gpus)} that no driver speaks for" if gpus else "none"
    if is_wanted:
        return Check("gpus", Level.WARN, found, "set gpu_worker.device to cpu")
    return Check("gpus", Level.OK, f"{found}: models run on the cpu device")


def _gpu(gpu: Gpu) -> str:
    return gpu.model if gpu.node is None else f"{gpu.model} on node {gpu.node}"


def check_pinning(config: ThothConfig, topology: Topology) -> Check:
    """Tries it on every node that can have an attention worker, and undoes it."""
    told: list[str] = []
    denied: list[str] = []
    for place in places(topology, config):
        with unpinned_after():
            denied += _denied(topology, pin_to(place.memory_node, place.cores.attention))
        told.append(f"attention on {place.said(place.cores.attention)}")
    if denied:
        return Check(
            "pinning",
            Level.WARN,
            f"attention would run unpinned, slower: {'; '.join(denied)}",
            "a container needs `--cap-add SYS_NICE` for memory, and a cpuset with cores and nodes",
        )
    return Check("pinning", Level.OK, "; ".join(told))


def _denied(topology: Topology, pinning: Pinning) -> list[str]:
    """Memory of the only node is where it is without being pinned."""
    has_choice = len(topology.nodes) > 1
    return [*filter(None, [pinning.cpus_denied, pinning.memory_denied if has_choice else ""])]
