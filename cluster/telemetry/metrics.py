"""The metrics of one actor, and the page on which Prometheus reads them.

A metric exists from the moment its actor first asks for it, with every combination of its labels
at zero: a rate then sees the first event too. Actors therefore ask in their constructors.
"""

from __future__ import annotations

import asyncio
import socketserver
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import TypeVar

import prometheus_client as prometheus
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from cluster.telemetry.declared import Counter, Gauge, Histogram, Metric

PATH = "/metrics"
# A peer that connects and then says nothing is let go after this.
_PATIENCE_S = 5.0
# How often the listening thread looks whether it should end.
_STOP_CHECK_S = 0.1

Made = TypeVar("Made", prometheus.Counter, prometheus.Gauge, prometheus.Histogram)


class Metrics:
    """A registry of its own: two actors in one process do not share counts."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, role: str) -> None:
        self.role = role
        self._registry = prometheus.CollectorRegistry()
        self._counters: dict[str, prometheus.Counter] = {}
        self._gauges: dict[str, prometheus.Gauge] = {}
        self._histograms: dict[str, prometheus.Histogram] = {}
        # A process-wide switch of the library: without it each counter has a twin, `_created`.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        prometheus.ProcessCollector(registry=self._registry)

    def counter(self, declared: Counter) -> prometheus.Counter:
        if declared.name not in self._counters:
            made = prometheus.Counter(
                declared.name, declared.help, declared.label_names, registry=self._registry
            )
            self._counters[declared.name] = _at_zero(made, declared)
        return self._counters[declared.name]

    def gauge(self, declared: Gauge) -> prometheus.Gauge:
        if declared.name not in self._gauges:
            made = prometheus.Gauge(
                declared.name, declared.help, declared.label_names, registry=self._registry
            )
            self._gauges[declared.name] = _at_zero(made, declared)
        return self._gauges[declared.name]

    def histogram(self, declared: Histogram) -> prometheus.Histogram:
        if declared.name not in self._histograms:
            made = prometheus.Histogram(
                declared.name,
                declared.help,
                declared.label_names,
                buckets=declared.buckets,
                registry=self._registry,
            )
            self._histograms[declared.name] = _at_zero(made, declared)
        return self._histograms[declared.name]

    def exposition(self) -> bytes:
        """Everything counted so far, in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)


def _at_zero(made: Made, declared: Metric) -> Made:
    for values in declared.children:
        made.labels(*values)
    return made


class MetricsServer:
    """Answers `GET /metrics` from its own threads: a busy event loop can still be looked into."""

    def __init__(self, metrics: Metrics, host: str, port: int = 0) -> None:
        self._metrics = metrics
        self._address = (host, port)
        self._listener: _Listener | None = None

    async def start(self) -> str:
        """Binds and serves; returns `host:port`. Raises OSError when the port is taken."""
        self._listener = _Listener(self._address, self._metrics)
        serve = partial(self._listener.serve_forever, poll_interval=_STOP_CHECK_S)
        Thread(target=serve, name="metrics", daemon=True).start()
        return f"{self._address[0]}:{self._listener.server_address[1]}"

    async def stop(self) -> None:
        """Gives the port back; without a start there is nothing to do."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await asyncio.to_thread(listener.shutdown)
            listener.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], metrics: Metrics) -> None:
        super().__init__(address, _Page)
        self.metrics = metrics


class _Page(BaseHTTPRequestHandler):
    server: _Listener
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == PATH:
            self._answer(HTTPStatus.OK, Metrics.content_type, self.server.metrics.exposition())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", f"only {PATH} is here\n".encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is not news."""
