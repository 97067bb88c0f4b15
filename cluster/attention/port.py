"""Attention over a memory that is not the device's, by whoever stands next to it.

device  --prepare: what a step's rows attend there-->  port
        --post: a layer's queries-->                          several steps may be open at once,
        <--collect: the states of its parts--                 each with one layer on its way
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from cluster.attention.backend import Attention, AttentionBackend
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import InvariantBroken


class Exchange(Protocol):
    """A step's attention at a port, layer after layer."""

    @property
    def busy_s(self) -> float:
        """Seconds that whoever attends has computed for the layers collected so far."""
        ...

    def post(self, layer: int, q: Tensor, /) -> None:
        """q is float32 [queries, heads, head_dim] on the cpu; it may be written again afterwards.
        The keys and values that it reads are in memory already. Raises Lost, as `collect` does."""
        ...

    def collect(self, layer: int, /) -> State:
        """The states of the layer that was posted: o [parts, heads, head_dim] and lse [parts,
        heads], float32, until the next `collect`. Raises Lost when the port gives no answer any
        more, to this or to anything else."""
        ...

    def close(self) -> None:
        """The step is over, or given up."""
        ...


class AttentionPort(Protocol):
    def carries(self, plan: PartPlan, /) -> bool:
        """Whether there is room for so much on the way, and what it reads is known to whoever
        attends."""
        ...

    def prepare(self, plan: PartPlan, /) -> Exchange:
        """Once a step, before its first layer, for what the port carries. Raises Lost."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalPort:
    """In this process, when the answer is collected. `k` and `v` are the memory's blocks, layer by
    layer."""

    backend: AttentionBackend
    k: Sequence[Tensor]
    v: Sequence[Tensor]

    def carries(self, plan: PartPlan, /) -> bool:
        return True

    def prepare(self, plan: PartPlan, /) -> LocalExchange:
        return LocalExchange(self, plan, self.backend.prepare(plan.attention))

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class LocalExchange:
    port: LocalPort
    plan: PartPlan
    attention: Attention
    busy_s: float = field(init=False, default=0.0)
    _posted: tuple[int, Tensor] | None = None

    def post(self, layer: int, q: Tensor, /) -> None:
        if self._posted is not None:
            raise InvariantBroken(f"layer {layer} is posted before another was collected")
        self._posted = (layer, q[self.plan.rows])

    def collect(self, layer: int, /) -> State:
        posted, self._posted = self._posted, None
        if posted is None or posted[0] != layer:
            raise InvariantBroken(f"layer {layer} is collected and was not posted")
        begun_s = time.perf_counter()
        state = self.attention.attend(posted[1], self.port.k[layer], self.port.v[layer])
        self.busy_s += time.perf_counter() - begun_s
        return state

    def close(self) -> None:
        self._posted = None
