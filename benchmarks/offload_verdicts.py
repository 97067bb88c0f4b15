"""What the table says about the aims of offloading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from benchmarks.offload_cells import Case
from benchmarks.offload_numbers import Interval, latency, tail, throughput
from benchmarks.offload_play import Played
from benchmarks.offload_rig import GPU_ONLY, Way
from benchmarks.result import Verdict
from cluster.scheduling.offload import OffloadMode

LEAST_WITHOUT_PRESSURE = 0.99
MOST_OF_TAIL = 1.02
MOST_TOLD = 4

Rounds = Mapping[Way, Sequence[Played]]
# A case beside a host of some speed.
Cell = tuple[Case, Way]


@dataclass(frozen=True, slots=True)
class Results:
    """Of every case, every way's rounds in the order in which they were run."""

    rounds: Mapping[Case, Rounds]

    @property
    def cells(self) -> list[Cell]:
        """Of `adaptive`."""
        return [
            (case, way)
            for case, rounds in self.rounds.items()
            for way in rounds
            if way.mode is OffloadMode.ADAPTIVE
        ]


def verdicts(results: Results) -> list[Verdict]:
    return [
        *_ahead_of_neo(results),
        _never_behind(results),
        *_no_pressure(results),
        _same_answers(results),
    ]


def speed(case: Case, ours: Sequence[Played], theirs: Sequence[Played]) -> Interval:
    """The ratio of throughput where all requests come at once. At a rate that both keep up with it
    is the latency of a token that tells them apart: then it is theirs to ours."""
    return throughput(ours, theirs) if case.rate == inf else latency(theirs, ours)


def _ahead_of_neo(results: Results) -> Iterator[Verdict]:
    found = {}
    for case, way in results.cells:
        rounds = results.rounds[case]
        if case.cap_tokens:
            neo = rounds[Way(OffloadMode.NEO, way.share)]
            found[case, way] = speed(case, rounds[way], neo)
    if found:
        yield _all(
            "adaptive is ahead of neo in every cell with pressure: in throughput where all come at "
            "once, in latency at a rate, by the whole interval of the ratio",
            found,
            lambda interval: interval.low > 1.0,
        )


def _never_behind(results: Results) -> Verdict:
    found = {
        (case, way): speed(case, results.rounds[case][way], results.rounds[case][GPU_ONLY])
        for case, way in results.cells
    }
    return _all(
        "adaptive is nowhere behind gpu_only: the interval of the same ratio reaches 1.0",
        found,
        lambda interval: interval.high >= 1.0,
    )


def _no_pressure(results: Results) -> Iterator[Verdict]:
    cells = [(case, way) for case, way in results.cells if not case.cap_tokens]
    if not cells:
        return
    yield _same_plans(results, cells)
    pairs = {
        (case, way): (results.rounds[case][way], results.rounds[case][GPU_ONLY])
        for case, way in cells
    }
    yield _all(
        f"without pressure adaptive has {LEAST_WITHOUT_PRESSURE:.0%} of gpu_only's throughput, by "
        "the median",
        {cell: throughput(*pair) for cell, pair in pairs.items()},
        lambda interval: interval.middle >= LEAST_WITHOUT_PRESSURE,
    )
    yield _all(
        f"without pressure the interval of adaptive's p99 of a token's latency to gpu_only's "
        f"reaches {MOST_OF_TAIL}",
        {cell: tail(*pair) for cell, pair in pairs.items()},
        lambda interval: interval.low <= MOST_OF_TAIL,
        worst=max,
    )


def _same_plans(results: Results, cells: Sequence[Cell]) -> Verdict:
    """Only where all come at once do plans not depend on how long steps take."""
    pairs = [
        ours.plans == alone.plans
        for case, way in cells
        if case.rate == inf
        for ours, alone in zip(
            results.rounds[case][way], results.rounds[case][GPU_ONLY], strict=True
        )
    ]
    return Verdict(
        "without pressure adaptive's plans are exactly gpu_only's, step by step",
        f"in {sum(pairs)} of {len(pairs)} runs",
        all(pairs),
    )


def _same_answers(results: Results) -> Verdict:
    """Over all ways of a case, round by round."""
    num_runs, differing = 0, set()
    for case, rounds in results.rounds.items():
        for way, runs in rounds.items():
            for ours, alone in zip(runs, rounds[GPU_ONLY], strict=True):
                num_runs += 1
                if ours.ids != alone.ids:
                    differing.add(f"{way}, {_said((case, way))}")
    return Verdict(
        "every answer has the same tokens in every mode",
        f"in {num_runs} runs" + "".join(f"; not {each}" for each in sorted(differing)),
        not differing,
    )


def _all(
    aim: str,
    found: Mapping[Cell, Interval],
    is_met: Callable[[Interval], bool],
    worst: Callable[..., Cell] = min,
) -> Verdict:
    """In how many cells it is met, the worst of all, and some in which it is not, the worst first:
    the rows tell of each."""
    last = worst(found, key=lambda each: found[each].middle)
    missed = [cell for cell in found if not is_met(found[cell])]
    missed.sort(key=lambda cell: found[cell].middle, reverse=worst is max)
    said = f"{len(found) - len(missed)} of {len(found)}; the worst {found[last]} ({_said(last)})"
    some = "".join(f"; not {_said(cell)}: {found[cell]}" for cell in missed[:MOST_TOLD])
    more = f"; nor {len(missed) - MOST_TOLD} more" if len(missed) > MOST_TOLD else ""
    return Verdict(aim, said + some + more, not missed)


def _said(cell: Cell) -> str:
    case, way = cell
    return f"{case}, host {way.share:.0%}"
