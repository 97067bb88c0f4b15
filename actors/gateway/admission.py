"""A bounded number of requests in progress; one more is told when to come again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.clock import Clock
from cluster.errors import Overloaded
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics

# Weight of the newest duration in the running mean.
_NEWEST = 0.1
_MIN_RETRY_S = 1.0
_MAX_RETRY_S = 60.0


class Admission:
    """Counts who is inside. A slot comes free about every `mean duration / limit` seconds."""

    def __init__(self, limit: int, clock: Clock, metrics: Metrics) -> None:
        self._limit = limit
        self._clock = clock
        self._rejected = metrics.counter(catalogue.REQUESTS_REJECTED).labels("gateway_full")
        self._mean_s = 0.0
        self.num_inside = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one slot. Raises Overloaded when all are held."""
        if self.num_inside >= self._limit:
            self._rejected.inc()
            raise Overloaded(
                f"{self.num_inside} requests are in progress, the limit is {self._limit}",
                retry_after_s=self.retry_after_s,
                limit=f"at most {self._limit} requests in progress (gateway.max_requests)",
            )
        self.num_inside += 1
        began_s = self._clock.now_s()
        try:
            yield
        finally:
            self.num_inside -= 1
            took_s = self._clock.now_s() - began_s
            self._mean_s += _NEWEST * (took_s - self._mean_s) if self._mean_s else took_s

    @property
    def retry_after_s(self) -> float:
        """When the newcomer may find a slot: those that are refused with it compete for half."""
        return min(max(self._mean_s / 2, _MIN_RETRY_S), _MAX_RETRY_S)
