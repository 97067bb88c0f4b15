"""A step's attention over all memories that its segments lie in.

begin    post the queries of the other memories' parts; attend what lies on the device, and what is
         streamed there
         ..                          whoever attends elsewhere has time until then
end      collect the parts, and fold those of a row in the order of its context
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from cluster.attention.backend import Attention, AttentionBackend
from cluster.attention.port import AttentionPort, Exchange
from cluster.attention.split import SplitPlan
from cluster.attention.state import State
from cluster.blocks.segment import Home
from cluster.clock import Clock, MonotonicClock
from cluster.errors import InvariantBroken


@dataclass(slots=True)
class _Begun:
    """A layer whose parts are on their way: the rows of the device alone, and what the device has
    computed of the parts."""

    layer: int
    rows: State
    parts: dict[Home, State]


class SpreadAttention:
    """Layer after layer, inside a `with`; `backend` computes on the device."""

    def __init__(
        self,
        plan: SplitPlan,
        backend: AttentionBackend,
        ports: Mapping[Home, AttentionPort],
        clock: Clock | None = None,
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._clock = clock or MonotonicClock()
        # Seconds in which the device waited for the host's states, and in which it sent rows there
        # and folded what came back.
        self.waited_s = 0.0
        self.exchange_s = 0.0
        self._begun: _Begun | None = None
        self._whole = backend.prepare(plan.whole)
        own = plan.parts.get(Home.DEVICE)
        self._own = backend.prepare(own.attention) if own is not None else None
        self._exchanges: dict[Home, Exchange] = {}
        with ExitStack() as opened:
            for home, part in plan.parts.items():
                if home is not Home.DEVICE:
                    exchange = self._exchanges[home] = ports[home].prepare(part)
                    opened.callback(exchange.close)
            self._opened = opened.pop_all()

    def __enter__(self) -> SpreadAttention:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    @property
    def busy_s(self) -> float:
        """Seconds that whoever attends on the host has computed, since the beginning."""
        exchange = self._exchanges.get(Home.HOST)
        return 0.0 if exchange is None else exchange.busy_s

    def attend(self, layer: int, q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """Both, with nothing in between."""
        self.begin(layer, q, k_cache, v_cache)
        return self.end(layer)

    def begin(self, layer: int, q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
        """`q` may be written again afterwards."""
        if self._begun is not None:
            raise InvariantBroken(
                f"layer {layer} begins before layer {self._begun.layer} has ended"
            )
        begun_s = self._clock.now_s()
        for home, exchange in self._exchanges.items():
            queries = self._plan.parts[home].queries.to(q.device)
            exchange.post(layer, q[queries].to("cpu", torch.float32))
        if Home.HOST in self._exchanges:
            self.exchange_s += self._clock.now_s() - begun_s
        rows = self._whole.attend(q, k_cache, v_cache)
        self._begun = _Begun(layer, rows, {})
        if self._own is not None:
            own = self._attend_own(self._own, q, k_cache, v_cache)
            self._begun.parts[Home.DEVICE] = own
        if Home.STREAMED in self._exchanges:
            streamed = self._exchanges[Home.STREAMED].collect(layer)
            self._begun.parts[Home.STREAMED] = streamed

    def _attend_own(
        self, attention: Attention, q: Tensor, k_cache: Tensor, v_cache: Tensor
    ) -> State:
        own = self._plan.parts[Home.DEVICE]
        return attention.attend(q[own.queries[own.rows].to(q.device)], k_cache, v_cache)

    def end(self, layer: int) -> Tensor:
        """o [rows, heads, head_dim]."""
        begun, self._begun = self._begun, None
        if begun is None or begun.layer != layer:
            raise InvariantBroken(f"layer {layer} ends and has not begun")
        fold = self._plan.fold
        if fold is None:
            return begun.rows.o
        begun_s, waited_s = self._clock.now_s(), self.waited_s
        if Home.HOST in self._exchanges:
            begun.parts[Home.HOST] = self._collect(self._exchanges[Home.HOST], layer)
        parts = [begun.parts[home] for home in sorted(begun.parts)]
        self._backend.fold(fold, _concatenated(parts, begun.rows.o.device), begun.rows)
        self.exchange_s += self._clock.now_s() - begun_s - (self.waited_s - waited_s)
        return begun.rows.o

    def _collect(self, exchange: Exchange, layer: int) -> State:
        begun_s = self._clock.now_s()
        state = exchange.collect(layer)
        self.waited_s += self._clock.now_s() - begun_s
        return state


def _concatenated(parts: list[State], device: torch.device) -> State:
    if len(parts) == 1 and parts[0].o.device == device:
        return parts[0]
    o = torch.cat([part.o.to(device) for part in parts])
    return State(o, torch.cat([part.lse.to(device) for part in parts]))
