"""The metrics that a gpu_worker feeds, under the catalogue's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import prometheus_client as prometheus

from cluster.engine.engine import StepReport
from cluster.knowledge.node import Tier
from cluster.knowledge.snapshot import CacheSums
from cluster.request import WorkerLoad
from cluster.scheduling.plan import FirstToken
from cluster.scheduling.stages import StageTimes
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics


class WorkerMetrics:
    """Counts steps and requests."""

    def __init__(self, metrics: Metrics) -> None:
        self._queue_seconds = metrics.histogram(catalogue.REQUEST_QUEUE_SECONDS)
        self._prefill_seconds = metrics.histogram(catalogue.PREFILL_SECONDS)
        self._step_seconds = metrics.histogram(catalogue.STEP_SECONDS)
        self._step_tokens = metrics.histogram(catalogue.STEP_TOKENS)
        self._running = metrics.gauge(catalogue.NUM_REQUESTS_RUNNING)
        self._waiting = metrics.gauge(catalogue.NUM_REQUESTS_WAITING)
        self._blocks = metrics.gauge(catalogue.KV_BLOCKS)
        self._prompt_tokens = metrics.counter(catalogue.PROMPT_TOKENS)
        self._generated_tokens = metrics.counter(catalogue.GENERATED_TOKENS)
        self._recomputed_tokens = metrics.counter(catalogue.RECOMPUTED_TOKENS)
        self._preemptions = metrics.counter(catalogue.PREEMPTIONS)
        self._cached_tokens = metrics.counter(catalogue.CACHED_PROMPT_TOKENS)
        self._computed_tokens = metrics.counter(catalogue.COMPUTED_PROMPT_TOKENS)
        self._on_host = metrics.gauge(catalogue.NUM_REQUESTS_ON_HOST)
        self._cache = CacheMetrics(metrics)
        self._stages = StageMetrics(metrics)

    def built(self, load: WorkerLoad, block_bytes: int) -> None:
        """The engine is there; a block of its KV takes so many bytes."""
        self._cache.block_bytes = block_bytes
        self.loaded(load)

    def stepped(self, report: StepReport, load: WorkerLoad) -> None:
        self._step_seconds.observe(report.seconds)
        if report.num_prefill_rows:
            self._step_tokens.labels("prefill").observe(report.num_prefill_rows)
        if report.num_decode_rows:
            self._step_tokens.labels("decode").observe(report.num_decode_rows)
        self._generated_tokens.inc(len(report.tokens))
        self._preemptions.inc(report.num_preempted)
        for first in report.first_tokens:
            self._queue_seconds.observe(first.queue_s)
            self._prefill_seconds.observe(first.prefill_s)
            self._count_prompt(first)
        for finished in report.finished:
            self._recomputed_tokens.inc(finished.num_recomputed)
        self._stages.stepped(report)
        self.loaded(load)
        if report.cache is not None:
            self._cache.counted(report.cache)

    def _count_prompt(self, first: FirstToken) -> None:
        for tier, num_tokens in asdict(first.cached).items():
            self._cached_tokens.labels(tier).inc(num_tokens)
        self._computed_tokens.inc(first.num_computed)
        self._prompt_tokens.inc(first.cached.total + first.num_computed)

    def loaded(self, load: WorkerLoad) -> None:
        """Sets the gauges."""
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        self._on_host.set(load.num_on_host)
        num_free, num_cached = load.num_free_blocks, load.num_cached_blocks
        self._blocks.labels("device", "free").set(num_free)
        self._blocks.labels("device", "cached").set(num_cached)
        self._blocks.labels("device", "used").set(load.num_blocks - num_free - num_cached)


class CacheMetrics:
    """Counters from sums: each is told what was added since the last time."""

    def __init__(self, metrics: Metrics) -> None:
        self._nodes = metrics.gauge(catalogue.CACHE_NODES)
        self._blocks = metrics.gauge(catalogue.KV_BLOCKS)
        self._evictions = metrics.counter(catalogue.CACHE_EVICTIONS)
        self._moved_bytes = metrics.counter(catalogue.CACHE_MOVED_BYTES)
        self._attended_bytes = metrics.counter(catalogue.CACHE_ATTENDED_BYTES)
        self._faults = metrics.counter(catalogue.CACHE_FAULTS)
        self._paged_bytes = metrics.counter(catalogue.PAGED_BYTES)
        self._failed_writes = metrics.counter(catalogue.CACHE_FAILED_WRITES)
        self._last = CacheSums()
        self.block_bytes = 0

    def counted(self, now: CacheSums) -> None:
        last, self._last = self._last, now
        self._nodes.set(now.num_nodes)
        for tier, held in now.held.items():
            self._blocks.labels(tier.label, "free").set(held.num_free)
            self._blocks.labels(tier.label, "used").set(held.num_lent)
            num_cached = held.num_blocks - held.num_free - held.num_lent
            self._blocks.labels(tier.label, "cached").set(num_cached)
        for (tier, reason), count in (now.evictions - last.evictions).items():
            self._evictions.labels(tier.label, str(reason)).inc(count)
        self._count_bytes(self._moved_bytes, now.moved_blocks - last.moved_blocks)
        self._count_bytes(self._paged_bytes, now.paged_blocks - last.paged_blocks)
        attended = now.attended_blocks - last.attended_blocks
        self._attended_bytes.inc(attended * self.block_bytes)
        faults: Counter[Tier] = now.faults - last.faults
        for tier, count in faults.items():
            self._faults.labels(tier.label).inc(count)
        self._failed_writes.inc(now.failed_writes - last.failed_writes)

    def _count_bytes(self, counter: prometheus.Counter, blocks: Counter[tuple[Tier, Tier]]) -> None:
        for (source, target), count in blocks.items():
            counter.labels(f"{source.label}_to_{target.label}").inc(count * self.block_bytes)


class StageMetrics:
    """How steps were planned, what that was to take, and what it took."""

    def __init__(self, metrics: Metrics) -> None:
        self._steps = metrics.counter(catalogue.STEPS)
        self._stages = metrics.counter(catalogue.STAGE_SECONDS)
        self._predicted_stages = metrics.counter(catalogue.PREDICTED_STAGE_SECONDS)
        self._busy = metrics.counter(catalogue.STEP_BUSY_SECONDS)
        self._timed = metrics.counter(catalogue.TIMED_STEP_SECONDS)
        self._predicted = metrics.counter(catalogue.PREDICTED_STEP_SECONDS)
        self._measured = metrics.counter(catalogue.MEASURED_STEP_SECONDS)

    def stepped(self, report: StepReport) -> None:
        why, times = report.why, report.times
        if why.works:
            self._steps.labels(str(why.kind)).inc()
        if why.seconds:
            self._predicted.inc(why.seconds)
            self._measured.inc(report.seconds)
        if times:
            self._timed.inc(report.seconds)
            self._busy.labels("device").inc(sum(t.busy_s for t in times))
            self._busy.labels("host").inc(sum(t.host_s for t in times))
            _count_stages(self._stages, times)
            _count_stages(self._predicted_stages, why.times)


def _count_stages(counter: prometheus.Counter, times: Iterable[StageTimes]) -> None:
    for batch, took in zip(("first", "second"), times, strict=False):
        counter.labels(batch, "linear").inc(took.linear_s)
        counter.labels(batch, "device_attention").inc(took.device_s)
        counter.labels(batch, "exchange").inc(took.exchange_s)
        counter.labels(batch, "host_attention").inc(took.host_s)
        counter.labels(batch, "waited").inc(took.waited_s)
