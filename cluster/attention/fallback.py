"""Attention over the host by a worker as long as there is one, and by this process else.

    attach --> worker --Lost--> own --attach--> worker

A worker that is lost in the middle of a step leaves no trace in it: the layer that it owes is
computed here, and so are those that follow. Who computes a state does not change its bits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from torch import Tensor

from cluster.attention.port import AttentionPort, Exchange, LocalPort
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import Lost

log = logging.getLogger(__name__)


@dataclass(slots=True)
class FallbackPort:
    """`own` needs nobody. The port of a worker that was attached is closed when it is lost, when
    another takes its place, or with this one."""

    own: LocalPort
    num_lost: int = field(init=False, default=0)
    _worker: AttentionPort | None = field(init=False, default=None)

    @property
    def worker(self) -> AttentionPort | None:
        return self._worker

    def attach(self, worker: AttentionPort | None) -> None:
        """Between two steps: the port of who attends from now on; None: of nobody else."""
        before, self._worker = self._worker, worker
        if before is not None:
            before.close()

    def lost(self, port: AttentionPort, error: Lost) -> None:
        """Of two exchanges that find out, the second brings no news."""
        if port is self._worker:
            log.warning("the host is attended by this process: %s", error.message)
            self.num_lost += 1
            self.attach(None)

    def prepare(self, plan: PartPlan, /) -> Exchange:
        worker = self._worker
        if worker is None or not worker.carries(plan):
            return self.own.prepare(plan)
        try:
            return FallbackExchange(self, worker, plan, worker.prepare(plan))
        except Lost as error:
            self.lost(worker, error)
            return self.own.prepare(plan)

    def carries(self, plan: PartPlan, /) -> bool:
        """What a worker's port does not, this process's own does."""
        return self.own.carries(plan)

    def close(self) -> None:
        self.attach(None)


@dataclass(slots=True)
class FallbackExchange:
    """`exchange` is the worker's until it is lost, and then this process's own. Of what was posted
    a copy is kept until it is collected."""

    port: FallbackPort
    worker: AttentionPort
    plan: PartPlan
    exchange: Exchange
    _posted: tuple[int, Tensor] | None = field(init=False, default=None)
    _is_lost: bool = field(init=False, default=False)
    _lost_s: float = field(init=False, default=0.0)

    @property
    def busy_s(self) -> float:
        """Of the worker, and of this process after its loss."""
        return self._lost_s + self.exchange.busy_s

    def post(self, layer: int, q: Tensor, /) -> None:
        try:
            self.exchange.post(layer, q)
            self._posted = None if self._is_lost else (layer, q.clone())
        except Lost as error:
            self._lost(error)
            self.exchange.post(layer, q)

    def collect(self, layer: int, /) -> State:
        posted, self._posted = self._posted, None
        try:
            return self.exchange.collect(layer)
        except Lost as error:
            if self._is_lost or posted is None:
                raise
            self._lost(error)
            self.exchange.post(*posted)
            return self.exchange.collect(layer)

    def _lost(self, error: Lost) -> None:
        self._is_lost = True
        self._lost_s = self.exchange.busy_s
        self.exchange.close()
        self.port.lost(self.worker, error)
        self.exchange = self.port.own.prepare(self.plan)

    def close(self) -> None:
        self.exchange.close()
