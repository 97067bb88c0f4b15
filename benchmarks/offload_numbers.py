"""What runs of one way come to, and how two ways that were taken in turn compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean, median

from benchmarks.offload_play import Life, Played
from benchmarks.rag_numbers import quantile
from benchmarks.result import Row
from cluster.scheduling.plan import PlanKind

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """The median of some observations, and what it lies between with 95% confidence whatever they
    are distributed like: their order alone tells (a median of six lies between the least and the
    greatest with 97%). Fewer than six cannot tell so much: then it is all of them."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Raises ValueError without observations."""
        if not values:
            raise ValueError("no observations")
        ordered, cut = sorted(values), num_cut(len(values))
        return cls(ordered[cut], median(ordered), ordered[-1 - cut])

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def num_cut(count: int) -> int:
    """How many of so many observations are left out at either end."""
    cut, outside = 0, 2 * 0.5**count
    while cut + 1 < count / 2:
        outside += 2 * comb(count, cut + 1) * 0.5**count
        if outside > 1 - CONFIDENCE:
            break
        cut += 1
    return cut


def throughput(ours: Sequence[Played], theirs: Sequence[Played]) -> Interval:
    """Ratios of ours to theirs, round by round; more is better."""
    return Interval.of([b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)])


def latency(ours: Sequence[Played], theirs: Sequence[Played]) -> Interval:
    """Ratios of the mean latency of a token, round by round; less is better."""
    pairs = zip(ours, theirs, strict=True)
    return Interval.of([fmean(_latencies_s(a)) / fmean(_latencies_s(b)) for a, b in pairs])


def tail(ours: Sequence[Played], theirs: Sequence[Played]) -> Interval:
    """As `latency`, of its 99th percentile."""
    pairs = zip(ours, theirs, strict=True)
    return Interval.of(
        [quantile(_latencies_s(a), 0.99) / quantile(_latencies_s(b), 0.99) for a, b in pairs]
    )


def _latencies_s(played: Played) -> list[float]:
    return [life.latency_per_token_s for life in played.lives]


def numbers(rounds: Sequence[Played]) -> Row:
    """Throughput is the middle one of the rounds; seconds are of all rounds' requests."""
    lives = [life for played in rounds for life in played.lives]
    return {
        "requests_per_s": median(len(played.lives) / played.seconds for played in rounds),
        "tokens_per_s": median(played.num_tokens / played.seconds for played in rounds),
        **_milliseconds("token", [life.latency_per_token_s for life in lives]),
        **_milliseconds("request", [life.latency_s for life in lives]),
        **_milliseconds("ttft", [life.ttft_s for life in lives]),
        **_gaps(lives),
        **_steps(rounds),
    }


def _milliseconds(name: str, seconds: Sequence[float]) -> Row:
    return {f"{name}_ms": 1e3 * fmean(seconds), f"{name}_p99_ms": 1e3 * quantile(seconds, 0.99)}


def _gaps(lives: Sequence[Life]) -> Row:
    """Between two tokens of one answer; those of one token have none."""
    gaps = [gap for life in lives for gap in life.gaps_s] or [0.0]
    return {
        "gap_p50_ms": 1e3 * quantile(gaps, 0.5),
        "gap_p99_ms": 1e3 * quantile(gaps, 0.99),
        "gap_max_ms": 1e3 * max(gaps),
    }


def _steps(rounds: Sequence[Played]) -> Row:
    """In numbers of a round. Who never asks what a step costs predicts nothing: 0."""
    steps = [step for played in rounds for step in played.steps]
    kinds = Counter(step.kind for step in steps)
    return {
        **{kind.value: kinds[kind] / len(rounds) for kind in PlanKind},
        "host_rows": sum(step.num_host_rows for step in steps) / len(rounds),
        "preempted": sum(step.num_preempted for step in steps) / len(rounds),
        "predicted_ms": 1e3 * fmean(step.predicted_s for step in steps),
        "measured_ms": 1e3 * fmean(step.seconds for step in steps),
    }
