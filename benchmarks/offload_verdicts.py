"""What the table says about the aims of offloading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from benchmarks.offload_cells import Case
from benchmarks.offload_numbers import Interval, latency_ratios, ratios
from benchmarks.offload_play import Played
from benchmarks.offload_rig import GPU_ONLY, Way
from benchmarks.result import Verdict
from cluster.scheduling.offload import OffloadMode

LEAST_WITHOUT_PRESSURE = 0.99
MOST_LATENCY = 1.02

Rounds = Mapping[Way, Sequence[Played]]


@dataclass(frozen=True, slots=True)
class Results:
    """Of every case, every way's rounds in the order in which they were run."""

    rounds: Mapping[Case, Rounds]

    def cells(self, mode: OffloadMode) -> Iterator[tuple[str, Case, Way]]:
        """A case beside a host of some speed, and what that is called."""
        for case, rounds in self.rounds.items():
            for way in rounds:
                if way.mode is mode:
                    yield f"{case}, host {way.share:.0%}", case, way


def verdicts(results: Results) -> list[Verdict]:
    return [
        _ahead_of_neo(results),
        _never_behind(results),
        *_no_pressure(results),
        *_latency(results),
        same_answers(results),
    ]


def _ahead_of_neo(results: Results) -> Verdict:
    found = {}
    for name, case, way in results.cells(OffloadMode.ADAPTIVE):
        rounds = results.rounds[case]
        found[name] = ratios(rounds[way], rounds[Way(OffloadMode.NEO, way.share)])
    return _all(
        "adaptive's throughput is ahead of neo's in every cell: the whole interval of the ratio "
        "is above 1",
        found,
        lambda interval: interval.low > 1.0,
    )


def _never_behind(results: Results) -> Verdict:
    found = {
        name: against_gpu_only(results.rounds[case], way)
        for name, case, way in results.cells(OffloadMode.ADAPTIVE)
    }
    return _all(
        "the interval of adaptive's throughput to gpu_only's reaches 1.0 in every cell",
        found,
        lambda interval: interval.high >= 1.0,
    )


def _no_pressure(results: Results) -> Iterator[Verdict]:
    found = {
        name: (case, way)
        for name, case, way in results.cells(OffloadMode.ADAPTIVE)
        if not case.cap_tokens
    }
    if not found:
        return
    # Only where all come at once do plans not depend on how long steps take.
    planned = [(case, way) for case, way in found.values() if case.rate == inf]
    pairs = [
        ours.plans == alone.plans
        for case, way in planned
        for ours, alone in zip(
            results.rounds[case][way], results.rounds[case][GPU_ONLY], strict=True
        )
    ]
    yield Verdict(
        "without pressure adaptive's plans are exactly gpu_only's, step by step",
        f"in {sum(pairs)} of {len(pairs)} runs",
        all(pairs),
    )
    throughput = {
        name: against_gpu_only(results.rounds[case], way) for name, (case, way) in found.items()
    }
    yield _all(
        f"without pressure adaptive has {LEAST_WITHOUT_PRESSURE:.0%} of gpu_only's throughput, by "
        "the median",
        throughput,
        lambda interval: interval.middle >= LEAST_WITHOUT_PRESSURE,
    )


def _latency(results: Results) -> Iterator[Verdict]:
    found = {
        name: latency_ratios(results.rounds[case][way], results.rounds[case][GPU_ONLY])
        for name, case, way in results.cells(OffloadMode.ADAPTIVE)
        if case.rate < 1.0
    }
    if found:
        yield _all(
            f"at a moderate rate the interval of adaptive's latency of a token to gpu_only's "
            f"reaches {MOST_LATENCY}",
            found,
            lambda interval: interval.low <= MOST_LATENCY,
            best=min,
        )


def same_answers(results: Results) -> Verdict:
    """Over all ways of a case, round by round."""
    num_runs, differing = 0, set()
    for case, rounds in results.rounds.items():
        for way, runs in rounds.items():
            for ours, alone in zip(runs, rounds[GPU_ONLY], strict=True):
                num_runs += 1
                if ours.ids != alone.ids:
                    differing.add(f"{way}, {case}")
    return Verdict(
        "every answer has the same tokens in every mode",
        f"in {num_runs} runs" + "".join(f"; not {each}" for each in sorted(differing)),
        not differing,
    )


def against_gpu_only(rounds: Rounds, way: Way) -> Interval:
    return ratios(rounds[way], rounds[GPU_ONLY])


def _all(
    aim: str,
    found: Mapping[str, Interval],
    is_met: Callable[[Interval], bool],
    best: Callable[..., str] = max,
) -> Verdict:
    """The cells in which it is not met are told one by one, and the worst of all."""
    worst = min if best is max else max
    name = worst(found, key=lambda each: found[each].middle)
    missed = [f"{each}: {interval}" for each, interval in found.items() if not is_met(interval)]
    said = f"{len(found) - len(missed)} of {len(found)}; the worst {found[name]} ({name})"
    return Verdict(aim, said + "".join(f"; not {each}" for each in missed), not missed)
