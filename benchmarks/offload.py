"""Keys and values of requests on the host, by the real engine: one core is the device, its pool for
keys and values capped; an attention worker has another core, and is the host.

    gpu_only             who finds no room in the pool waits, or is computed again
    neo, adaptive        the same device, with a host of 100, 20, 10 or 5% of a core's speed
    uncapped             gpu_only with room for everything: what the cap costs
    gpu_only, 2 threads  the capped pool and both cores as the device: what else the second core
                         could do

The ways are taken in turn, round by round, with the same requests; every round draws others, and
begins with another way. A
ratio is the median of the rounds' own, with its 95% interval. A host of less speed than a core is a
core whose answers are held back (`offload_host`). Copies between device and host are made by the
device's core, for lack of anything else: a GPU has engines for that.

Loads: prompts and answers of given lengths, arriving as Poisson has them, and Azure's traces of
2023 with their own bursts, all tokens divided by 4; all at once, or at a share of the rate that
gpu_only reaches so. Idle seconds are skipped. Weights are `float32`, for a step of few rows waits
for those as a GPU's does, and in one case `int8`, with which a core soon does nothing but compute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.offload_cells import COUNTS, ROUNDS, Case, cases
from benchmarks.offload_load import Load
from benchmarks.offload_numbers import Interval, latency, numbers, throughput
from benchmarks.offload_play import Played
from benchmarks.offload_rig import GPU_ONLY, SEED, VOCAB, Rig, Way, rig
from benchmarks.offload_verdicts import Results, Rounds, speed, verdicts
from benchmarks.result import Outcome, Row


def run(scale: Scale, console: Console) -> Outcome:
    """A row for each case, way and speed of the host."""
    wanted, left_out = cases(scale)
    if left_out:
        console.print(left_out, soft_wrap=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="thoth-offload-")))
        table = Table(stack.enter_context(rig(folder)), scale, console)
        table.left = ROUNDS[scale] * sum(len(case.ways) for case in wanted)
        found: dict[Case, Rounds] = {}
        count = COUNTS[scale]
        for setup, group in groupby(wanted, key=lambda case: case.setup(count)):
            together = list(group)
            ways = dict.fromkeys(way for case in together for way in case.ways)
            with table.rig.engines(setup, list(ways)):
                table.warm(list(ways), together[0])
                found |= {case: table.rounds(case) for case in together}
    rows = [row for case, rounds in found.items() for row in _rows(case, rounds)]
    return Outcome(rows, verdicts(Results(found)), SEED)


@dataclass(slots=True)
class Table:
    """`left` counts the runs to come."""

    rig: Rig
    scale: Scale
    console: Console
    left: int = 0
    _num_done: int = field(init=False, default=0)
    _begun_s: float = field(init=False, default_factory=time.monotonic)

    def warm(self, ways: Sequence[Way], case: Case) -> None:
        """Not counted."""
        for way in ways:
            self.rig.play(way, self._load(case, inf, round_number=-1))

    def rounds(self, case: Case) -> Rounds:
        rate = self._rate(case)
        rounds: dict[Way, list[Played]] = {way: [] for way in case.ways}
        for number in range(ROUNDS[self.scale]):
            load = self._load(case, rate, number)
            for way in _turned(case.ways, number):
                rounds[way].append(self.rig.play(way, load))
                self._num_done += 1
                self.left -= 1
            self._say(f"{case}: round {number + 1} of {ROUNDS[self.scale]}")
        return rounds

    def _rate(self, case: Case) -> float:
        if case.rate == inf:
            return inf
        played = self.rig.play(GPU_ONLY, self._load(case, inf, round_number=-1))
        return case.rate * len(played.lives) / played.seconds

    def _load(self, case: Case, rate: float, round_number: int) -> Load:
        seed = SEED + round_number + 1
        return Load(case.lengths, COUNTS[self.scale], rate, vocab=VOCAB, seed=seed)

    def _say(self, what: str) -> None:
        took_s = time.monotonic() - self._begun_s
        left_s = took_s / self._num_done * self.left
        self.console.print(f"{what}; about {left_s / 60:.0f} minutes left", soft_wrap=True)


def _turned(ways: Sequence[Way], by: int) -> Sequence[Way]:
    """Each round begins with another way: what a machine does at times meets none more often."""
    first = by % len(ways)
    return [*ways[first:], *ways[:first]]


def _rows(case: Case, rounds: Rounds) -> Iterator[Row]:
    alone = rounds[GPU_ONLY]
    for way, played in rounds.items():
        yield {
            "lengths": str(case.lengths),
            "weights": case.weights.value,
            "cap_tokens": case.cap_tokens or "all",
            "arrivals": case.arrivals,
            "host": f"{way.share:.0%}" if way.share else "-",
            "mode": str(way),
            "beside_gpu_only": _word(speed(case, played, alone)),
            **_interval("throughput_ratio", throughput(played, alone)),
            **_interval("latency_ratio", latency(played, alone)),
            **numbers(played),
        }


def _interval(name: str, interval: Interval) -> Row:
    return {name: interval.middle, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _word(ratio: Interval) -> str:
    """For the eye that looks for cells where offloading loses."""
    if ratio.low > 1.0:
        return "ahead"
    return "behind" if ratio.high < 1.0 else "even"
