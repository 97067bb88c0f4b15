"""Facts about this machine that the kernel writes down in files."""

from __future__ import annotations

from pathlib import Path

_NODES = Path("/sys/devices/system/node")
_GPUS = Path("/proc/driver/nvidia/gpus")
_CGROUP = Path("/sys/fs/cgroup")


def numa_nodes(root: Path = _NODES) -> tuple[str, ...]:
    """`node 0: cores 0-7, 31.2 GiB`, one per node that has cores."""
    nodes = sorted(root.glob("node[0-9]*"), key=lambda node: int(node.name[4:]))
    return tuple(_node(node) for node in nodes if _read(node / "cpulist"))


def _node(node: Path) -> str:
    total = next(
        (line.split()[-2] for line in _read(node / "meminfo").splitlines() if "MemTotal" in line),
        "0",
    )
    return f"node {node.name[4:]}: cores {_read(node / 'cpulist')}, {int(total) / 2**20:.1f} GiB"


def gpus(root: Path = _GPUS) -> tuple[str, ...]:
    """Model names of the NVIDIA devices that have a driver."""
    found = []
    for information in sorted(root.glob("*/information")):
        fields = dict(line.split(":", 1) for line in _read(information).splitlines() if ":" in line)
        found.append(fields.get("Model", "unknown").strip())
    return tuple(found)


def cgroup_cpus(root: Path = _CGROUP) -> float | None:
    """Cores this container may use; None without a limit."""
    quota, _, period = _read(root / "cpu.max").partition(" ")
    if not quota.isdecimal() or not period.isdecimal():
        return None
    return int(quota) / int(period)


def cgroup_memory_bytes(root: Path = _CGROUP) -> int | None:
    """Bytes this container may still use; None without a limit."""
    limit, used = _read(root / "memory.max"), _read(root / "memory.current")
    if not limit.isdecimal() or not used.isdecimal():
        return None
    return max(0, int(limit) - int(used))


def _read(file: Path) -> str:
    """Empty when there is no such file: kernels differ."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
