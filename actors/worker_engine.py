"""What a gpu_worker is made of: an engine built from the config, and the metrics it feeds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from cluster.clock import Clock
from cluster.config import GpuWorkerConfig, ThothConfig
from cluster.engine.assemble import (
    Backend,
    Device,
    EngineOptions,
    KvFormat,
    WeightFormat,
    assemble_engine,
)
from cluster.engine.engine import Engine, StepReport
from cluster.engine.sampling import Sampler
from cluster.models.catalogue import resolve_model
from cluster.request import Request, WorkerLoad
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics
from cluster.text.grammar import Grammars
from cluster.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Built:
    """An engine and what is to be said of it: `backend` says what computes."""

    engine: Engine
    model_name: str
    context_tokens: int
    grammars: Grammars
    backend: str


def build_engine(config: ThothConfig, clock: Clock) -> Built:
    """Loads the weights: seconds. Raises Refused for a model that cannot be served."""
    folder = resolve_model(config.model.source, config.models_dir)
    assembled = assemble_engine(folder.path, engine_options(config), clock)
    engine = assembled.engine
    grammars = Grammars(Tokenizer.from_folder(folder.path), engine.vocab_size)
    return Built(
        replace(engine, sampler=Sampler(grammars)),
        config.model.name or folder.name,
        assembled.context_tokens,
        grammars,
        assembled.backend,
    )


def engine_options(config: ThothConfig) -> EngineOptions:
    worker = config.gpu_worker
    return EngineOptions(
        device=Device(worker.device),
        backend=Backend(worker.backend),
        weights=WeightFormat(worker.weights),
        kv=KvFormat(worker.kv_dtype),
        threads=worker.threads or _fair_share(worker),
        deterministic=worker.deterministic,
        kv_blocks=worker.kv_blocks,
        step_tokens=worker.step_tokens,
        max_running=worker.max_running,
        max_waiting=worker.max_waiting,
        context_tokens=config.model.context_tokens,
    )


def _fair_share(worker: GpuWorkerConfig) -> int:
    """The cores this process may use, shared by the workers of the machine."""
    return max(1, len(os.sched_getaffinity(0)) // worker.count)


class WorkerMetrics:
    """Counts steps and requests under the catalogue's names."""

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

    def took_in(self, request: Request) -> None:
        self._prompt_tokens.inc(request.num_prompt_tokens)

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
        for finished in report.finished:
            self._recomputed_tokens.inc(finished.num_recomputed)
        self.loaded(load)

    def loaded(self, load: WorkerLoad) -> None:
        """Sets the gauges."""
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        self._blocks.labels("device", "free").set(load.num_free_blocks)
        self._blocks.labels("device", "used").set(load.num_blocks - load.num_free_blocks)
