"""The metrics that an attention worker feeds, under the catalogue's names."""

from __future__ import annotations

from cluster.attention.server import ServerCounts
from cluster.numa import Pinning
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics


class AttentionMetrics:
    """Counters from sums: each is told what was added since the last time."""

    def __init__(self, metrics: Metrics) -> None:
        self._clients = metrics.gauge(catalogue.ATTENTION_CLIENTS)
        self._unpinned = metrics.gauge(catalogue.ATTENTION_UNPINNED)
        self._layers = metrics.counter(catalogue.ATTENTION_LAYERS)
        self._parts = metrics.counter(catalogue.ATTENTION_PARTS)
        self._errors = metrics.counter(catalogue.ATTENTION_ERRORS)
        self._busy_seconds = metrics.counter(catalogue.ATTENTION_BUSY_SECONDS)
        self._last = ServerCounts(0, 0, 0, 0, 0.0)

    def began(self, pinning: Pinning) -> None:
        self._unpinned.labels("cpus").set(bool(pinning.cpus_denied))
        self._unpinned.labels("memory").set(bool(pinning.memory_denied))

    def counted(self, now: ServerCounts, num_clients: int) -> None:
        last, self._last = self._last, now
        self._clients.set(num_clients)
        self._layers.inc(now.layers - last.layers)
        self._parts.inc(now.parts - last.parts)
        self._errors.inc(now.errors - last.errors)
        self._busy_seconds.inc(now.busy_s - last.busy_s)
