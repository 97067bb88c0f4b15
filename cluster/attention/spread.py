"""A step's attention over all memories that its segments lie in.

post the queries of the other memories' parts
attend what lies on the device
collect the parts, and fold those of a row in the order of its context
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.port import AttentionPort, Exchange
from cluster.attention.split import SplitPlan
from cluster.attention.state import State
from cluster.blocks.segment import Home


class SpreadAttention:
    """Layer after layer, inside a `with`; `backend` computes on the device."""

    def __init__(
        self, plan: SplitPlan, backend: AttentionBackend, ports: Mapping[Home, AttentionPort]
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._whole = backend.prepare(plan.whole)
        own = plan.parts.get(Home.DEVICE)
        self._own = backend.prepare(own.attention) if own is not None else None
        self._exchanges: dict[Home, Exchange] = {}
        for home, part in plan.parts.items():
            if home is not Home.DEVICE:
                self._exchanges[home] = ports[home].prepare(part)

    def __enter__(self) -> SpreadAttention:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for exchange in self._exchanges.values():
            exchange.close()

    def attend(self, layer: int, q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """o [rows, heads, head_dim]."""
        fold = self._plan.fold
        for home, exchange in self._exchanges.items():
            queries = self._plan.parts[home].queries.to(q.device)
            exchange.post(layer, q[queries].to("cpu", torch.float32))
        rows = self._whole.attend(q, k_cache, v_cache)
        if fold is None:
            return rows.o
        parts = []
        if self._own is not None:
            own = self._plan.parts[Home.DEVICE]
            source = own.queries[own.rows].to(q.device)
            parts.append(self._own.attend(q[source], k_cache, v_cache))
        parts += [exchange.collect(layer) for exchange in self._exchanges.values()]
        self._backend.fold(fold, _concatenated(parts, q.device), rows)
        return rows.o


def _concatenated(parts: list[State], device: torch.device) -> State:
    if len(parts) == 1 and parts[0].o.device == device:
        return parts[0]
    o = torch.cat([part.o.to(device) for part in parts])
    return State(o, torch.cat([part.lse.to(device) for part in parts]))
