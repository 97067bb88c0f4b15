"""Who gets which cores of a node, so that attention leaves the gateway and the tokenizer theirs.

    cores         1    2      4      8      64        where one is reserved for the gpu_worker
    ───────────   ──   ────   ────   ────   ─────
    rest          0    0,1    0      0      0-7
    gpu_worker    0    0      1      1      8
    attention     0    1      2,3    2-7    9-63

The first cores go to the rest: interrupts land there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

# A core is its hyperthreads: they share what attention is short of, so they go together.
Core: TypeAlias = tuple[int, ...]
# Of the cores of a node, one in so many is the rest's.
_REST = 8


@dataclass(frozen=True, slots=True)
class CorePlan:
    """Cpus, ascending. They overlap only where there is not a core for each."""

    rest: tuple[int, ...]
    gpu_worker: tuple[int, ...]
    attention: tuple[int, ...]


def plan_cores(cores: Sequence[Core], reserved: int) -> CorePlan:
    """`reserved` cores are for the threads of the node's gpu_worker, 0 where it has none; fewer
    when attention or the rest would get none.

    Of one or two cores the hyperthreads are given away. Raises ValueError without any core.
    """
    if not cores or reserved < 0:
        raise ValueError(f"{len(cores)} cores cannot be shared with {reserved} reserved")
    parts = cores if len(cores) > 2 else [(cpu,) for core in cores for cpu in core]
    if len(parts) <= 2:
        return CorePlan(_cpus(parts), _cpus(parts[: min(reserved, 1)]), _cpus(parts[-1:]))
    num_rest = max(1, len(parts) // _REST)
    begin = num_rest + min(reserved, len(parts) - num_rest - 1)
    return CorePlan(_cpus(parts[:num_rest]), _cpus(parts[num_rest:begin]), _cpus(parts[begin:]))


def _cpus(cores: Sequence[Core]) -> tuple[int, ...]:
    return tuple(sorted(cpu for core in cores for cpu in core))
