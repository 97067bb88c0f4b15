"""Requests of a given shape that arrive at a given rate, and what became of them."""

from __future__ import annotations

import csv
import statistics
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from random import Random

from benchmarks.offload_sim_clock import TOKEN, Life, SimulatedEngine, Step
from cluster.ids import RequestId
from cluster.request import Request, Sampling
from cluster.scheduling.plan import PlanKind

# Throughput is taken between these shares of the answers, latency without this first one.
BEGIN, END, WARM = 0.3, 0.7, 0.25


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts and answers: uniform within a tenth of these."""

    prompt: int
    answer: int

    def draw(self, random: Random) -> tuple[int, int]:
        return _within(self.prompt, random), _within(self.answer, random)

    def __str__(self) -> str:
        return f"{self.prompt} in, {self.answer} out"


@dataclass(frozen=True, slots=True)
class Traced:
    """Lengths drawn from a real service's, in pairs; those beyond `most_tokens` are left out."""

    file: Path
    most_tokens: int

    def draw(self, random: Random) -> tuple[int, int]:
        return random.choice(_pairs(self.file, self.most_tokens))

    def __str__(self) -> str:
        return self.file.stem


@cache
def _pairs(file: Path, most_tokens: int) -> Sequence[tuple[int, int]]:
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    pairs = [(int(row["ContextTokens"]), max(1, int(row["GeneratedTokens"]))) for row in rows]
    return [pair for pair in pairs if sum(pair) <= most_tokens]


def _within(mean: int, random: Random) -> int:
    return max(1, random.randint(round(0.9 * mean), round(1.1 * mean)))


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    request: Request


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson arrivals of so many a second; infinitely many: all at once. As many as `begun` have
    a part of their answer behind them already, so that they do not all end together, and others
    begin as they do in the long run."""

    lengths: Lengths | Traced
    count: int
    rate: float = inf
    begun: int = 0
    seed: int = 0

    def arrivals(self) -> Iterator[Arrival]:
        shapes, gaps = Random(self.seed), Random(self.seed + 1)
        at_s = 0.0
        for number in range(self.count):
            at_s += gaps.expovariate(1.0) / self.rate
            prompt, answer = self.lengths.draw(shapes)
            rest = shapes.randint(1, answer) if number < self.begun else answer
            yield Arrival(at_s, request_of(number, prompt, rest))


def request_of(number: int, prompt_tokens: int, max_tokens: int) -> Request:
    return Request(
        RequestId(f"r{number}"),
        ((TOKEN,) * prompt_tokens,),
        Sampling(max_tokens=max_tokens),
        deadline_s=inf,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """Of a load that was served to its end. Latency is the seconds of an answer, from arrival to
    last token, for each of its tokens; a gap lies between two tokens of one answer."""

    tokens_per_s: float
    whole_tokens_per_s: float
    answers_per_s: float
    latency_s: float
    latency_p99_s: float
    gap_p99_s: float
    longest_gap_s: float
    longest_gap_steps: int
    num_preempted: int
    recomputed_share: float
    num_steps: int
    kinds: dict[PlanKind, float]
    host_share: float


def served(engine: SimulatedEngine, load: Load) -> Found:
    """Runs all of it."""
    coming, steps = deque(load.arrivals()), []
    while coming or engine.scheduler.has_work:
        if not engine.scheduler.has_work:
            engine.now_s = max(engine.now_s, coming[0].at_s)
        while coming and coming[0].at_s <= engine.now_s:
            engine.arrived(coming.popleft().request)
        steps.append(seen(engine.step()))
    return found(steps, list(engine.lives.values()))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a step: its plan holds every token's number."""

    ended_s: float
    num_tokens: int
    kind: PlanKind
    rows: int
    host_rows: int
    num_preempted: int


def seen(step: Step) -> Seen:
    return Seen(
        step.ended_s,
        step.num_tokens,
        step.plan.why.kind,
        sum(work.rows for work in step.works),
        sum(work.host_rows for work in step.works),
        len(step.plan.preempted),
    )


def found(steps: Sequence[Seen], lives: Sequence[Life]) -> Found:
    finished = sorted(life.finished_s for life in lives if life.finished_s is not None)
    begun_s, ended_s = (finished[int(share * len(finished))] for share in (BEGIN, END))
    within = [step for step in steps if begun_s < step.ended_s <= ended_s]
    span_s = max(ended_s - begun_s, 1e-9)
    late = lives[int(WARM * len(lives)) :]
    latencies = [_latency_s(life) for life in late]
    gaps = [life.longest_gap_s for life in late]
    num_tokens = sum(step.num_tokens for step in steps)
    kinds = Counter(step.kind for step in within)
    return Found(
        tokens_per_s=sum(step.num_tokens for step in within) / span_s,
        whole_tokens_per_s=num_tokens / steps[-1].ended_s,
        answers_per_s=(int(END * len(finished)) - int(BEGIN * len(finished))) / span_s,
        latency_s=statistics.fmean(latencies),
        latency_p99_s=_p99(latencies),
        gap_p99_s=_p99(gaps),
        longest_gap_s=max(gaps),
        longest_gap_steps=max(life.longest_gap_steps for life in lives),
        num_preempted=sum(step.num_preempted for step in steps),
        recomputed_share=sum(life.num_recomputed for life in lives) / num_tokens,
        num_steps=len(steps),
        kinds={kind: kinds[kind] / max(1, len(within)) for kind in PlanKind},
        host_share=sum(s.host_rows for s in within) / max(1, sum(s.num_tokens for s in within)),
    )


def _latency_s(life: Life) -> float:
    return ((life.finished_s or 0.0) - life.arrived_s) / max(1, life.num_tokens)


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
