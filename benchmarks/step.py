"""Where the milliseconds of one step go: a chunk of prefill, and decodes of 1, 8 and 32 streams.

Every engine holds its requests at the same time and their steps are taken in turn, so that what
else the machine does falls on all of them alike. A cell is the median over the rounds.

    schedule    the iteration scheduler's plan and record
    prepare     the step's attention plan, made ready for the kernels
    append      keys and values into their blocks, all layers
    attention   all layers
    linear      the rest of the forward pass: products, norms, rotation
    draw        logits to tokens
    rest        laying out, reports, Python between the parts
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from torch import Tensor

from benchmarks.catalogue import Scale
from benchmarks.result import Outcome, Row, Verdict
from cluster.attention.backend import Attention, AttentionBackend
from cluster.attention.plan import AttentionPlan
from cluster.attention.split import Fold
from cluster.attention.state import State
from cluster.blocks.pool import blocks_for
from cluster.clock import MonotonicClock
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine
from cluster.engine.forward import Computed, EagerForward, Forward
from cluster.engine.options import Backend, EngineOptions, KvFormat, WeightFormat
from cluster.engine.sampling import Draw, Drawn, Sampler
from cluster.engine.step import Step
from cluster.errors import ThothError
from cluster.ids import RequestId
from cluster.kernels import kernels_available
from cluster.models.catalogue import resolve_model
from cluster.request import Request, Sampling
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.plan import StepOutcome, StepPlan

SEED = 0
MODEL = "smollm2-135m-instruct"
CONTEXT_TOKENS = 512
STAGES = ("schedule", "prepare", "append", "attention", "linear", "draw", "rest")
STREAMS = {Scale.QUICK: (1, 8), Scale.FULL: (1, 8, 32)}
ROUNDS = {Scale.QUICK: 5, Scale.FULL: 15}
THREADS = {Scale.QUICK: (1,), Scale.FULL: (1, 2)}


class Stopwatch(defaultdict[str, float]):
    """Seconds by stage. A stage inside another is taken out of it by whoever reads."""

    def __init__(self) -> None:
        super().__init__(float)

    def add(self, stage: str, started: float) -> None:
        self[stage] += time.perf_counter() - started


@dataclass
class TimedAttention:
    inner: Attention
    watch: Stopwatch

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        started = time.perf_counter()
        state = self.inner.attend(q, k_cache, v_cache)
        self.watch.add("attention", started)
        return state


@dataclass
class TimedBackend:
    inner: AttentionBackend
    watch: Stopwatch

    @property
    def name(self) -> str:
        return self.inner.name

    def prepare(self, plan: AttentionPlan, /) -> TimedAttention:
        started = time.perf_counter()
        attention = self.inner.prepare(plan)
        self.watch.add("prepare", started)
        return TimedAttention(attention, self.watch)

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        started = time.perf_counter()
        self.inner.append(k_cache, v_cache, slots, k, v)
        self.watch.add("append", started)

    def fold(self, fold: Fold, parts: State, rows: State, /) -> None:
        self.inner.fold(fold, parts, rows)


@dataclass
class TimedForward:
    inner: Forward
    watch: Stopwatch

    def logits(self, step: Step, /) -> Tensor:
        return self.compute((step,)).logits

    def compute(self, steps: Sequence[Step], /) -> Computed:
        started = time.perf_counter()
        computed = self.inner.compute(steps)
        self.watch.add("forward", started)
        return computed


class TimedSampler(Sampler):
    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self._watch = watch

    def draw(self, logits: Tensor, draws: Sequence[Draw]) -> list[Drawn | ThothError]:
        started = time.perf_counter()
        drawn = super().draw(logits, draws)
        self._watch.add("draw", started)
        return drawn


@dataclass(slots=True)
class TimedScheduler(IterationScheduler):
    watch: Stopwatch = field(default_factory=Stopwatch)

    def plan(self, now_s: float) -> StepPlan:
        started = time.perf_counter()
        plan = IterationScheduler.plan(self, now_s)
        self.watch.add("schedule", started)
        return plan

    def record(
        self,
        sampled: Mapping[RequestId, int],
        now_s: float,
        ended: Collection[RequestId] = (),
    ) -> StepOutcome:
        started = time.perf_counter()
        outcome = IterationScheduler.record(self, sampled, now_s, ended)
        self.watch.add("schedule", started)
        return outcome


@dataclass
class Timed:
    """An engine of one kind, holding `streams` requests."""

    name: str
    engine: Engine
    watch: Stopwatch

    def step(self) -> dict[str, float]:
        """Milliseconds of one step by stage, and in all."""
        self.watch.clear()
        started = time.perf_counter()
        self.engine.step()
        total = time.perf_counter() - started
        seconds = {stage: self.watch[stage] for stage in STAGES}
        seconds["linear"] = self.watch["forward"] - seconds["append"] - seconds["attention"]
        seconds["rest"] = total - sum(seconds.values())
        return {"total": total * 1e3, **{stage: s * 1e3 for stage, s in seconds.items()}}

    def send(self, name: str, max_tokens: int) -> None:
        segment = tuple((7 * i + 13 * len(name)) % 40_000 + 5 for i in range(CONTEXT_TOKENS))
        sampling = Sampling(max_tokens=max_tokens)
        self.engine.submit(Request(RequestId(name), (segment,), sampling, float("inf")))


KINDS = (
    ("torch float32", EngineOptions(backend=Backend.TORCH, weights=WeightFormat.FLOAT32)),
    ("float32", EngineOptions(backend=Backend.NATIVE, weights=WeightFormat.FLOAT32)),
    (
        "int8, float16 KV",
        EngineOptions(backend=Backend.NATIVE, weights=WeightFormat.INT8, kv=KvFormat.FLOAT16),
    ),
)


def engines(folder: Path, streams: int, threads: int) -> list[Timed]:
    """One of each kind that can be built here."""
    num_blocks = streams * (blocks_for(CONTEXT_TOKENS) + 4) + 8
    found = []
    for name, options in KINDS:
        if options.backend is Backend.NATIVE and not kernels_available():
            continue
        sized = replace(options, threads=threads, kv_blocks=num_blocks, max_waiting=64)
        engine = assemble_engine(folder, sized, MonotonicClock()).engine
        watch = Stopwatch()
        eager = engine.forward
        if not isinstance(eager, EagerForward):
            raise TypeError(f"{name} is not computed eagerly")
        timed = replace(
            engine,
            forward=TimedForward(replace(eager, backend=TimedBackend(eager.backend, watch)), watch),
            sampler=TimedSampler(watch),
            scheduler=TimedScheduler(engine.scheduler.limits, engine.scheduler.cache, watch=watch),
        )
        found.append(Timed(name, timed, watch))
    return found


def prefill(found: Sequence[Timed], rounds: int) -> dict[str, list[dict[str, float]]]:
    """A whole prompt in one step, and the request is over with its first token."""
    times: dict[str, list[dict[str, float]]] = {timed.name: [] for timed in found}
    for i in range(rounds + 1):
        for timed in found:
            timed.send(f"prefill{i}", max_tokens=1)
            times[timed.name].append(timed.step())
    return {name: steps[1:] for name, steps in times.items()}


def decode(found: Sequence[Timed], streams: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """All streams decode; their prompts were computed before."""
    for timed in found:
        for i in range(streams):
            timed.send(f"stream{i}", max_tokens=rounds + streams + 8)
        while timed.engine.step().num_decode_rows < streams:
            pass
    times: dict[str, list[dict[str, float]]] = {timed.name: [] for timed in found}
    for _ in range(rounds):
        for timed in found:
            times[timed.name].append(timed.step())
    return times


def _row(name: str, phase: str, streams: int, threads: int, steps: list[dict[str, float]]) -> Row:
    cells = {key: statistics.median(s[key] for s in steps) for key in steps[0]}
    named = {f"{stage}_ms": cells[stage] for stage in ("total", *STAGES)}
    return {"engine": name, "threads": threads, "phase": phase, "streams": streams, **named}


def run(scale: Scale, console: Console) -> Outcome:
    """A row for each engine, phase, number of streams and threads."""
    rows: list[Row] = []
    with TemporaryDirectory() as cache_dir:
        folder = resolve_model(MODEL, Path(cache_dir)).path
        for threads, streams in product(THREADS[scale], STREAMS[scale]):
            found = engines(folder, streams, threads)
            if streams == 1:
                for name, steps in prefill(found, ROUNDS[scale]).items():
                    rows.append(_row(name, f"prefill {CONTEXT_TOKENS}", 1, threads, steps))
            for name, steps in decode(found, streams, ROUNDS[scale]).items():
                rows.append(_row(name, "decode", streams, threads, steps))
            console.print(f"{threads} threads, {streams} streams: done")
    return Outcome(rows=rows, verdicts=tuple(_verdicts(rows)), seed=SEED)


def _verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What is neither a product nor attention stays small where a step is shortest."""
    shares = []
    for row in rows:
        if row["engine"] != "torch float32" and row["phase"] == "decode":
            small = sum(float(row[f"{s}_ms"]) for s in ("schedule", "prepare", "draw", "rest"))
            shares.append(small / float(row["total_ms"]))
    if not shares:
        return []
    worst = max(shares)
    return [
        Verdict(
            "planning, laying out and drawing take at most 10% of a decode step",
            f"at most {worst:.1%}",
            worst <= 0.1,
        )
    ]
