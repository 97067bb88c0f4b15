"""Which of those that decode on the host get a row in a step, and in which sub-batch.

The value of a step is rows per second (NEO, arXiv 2411.01142, section 4.3). More rows of the host
are worth their linear operators, and cost nothing else as long as the device hides them; when they
take longer, they cost everybody's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageCosts, Work


@dataclass(frozen=True, slots=True)
class Split:
    """The first `num_beside` parked rows go with the device's batch, the next `num_apart` make a
    sub-batch of their own."""

    num_beside: int
    num_apart: int
    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds if self.seconds > 0.0 else float(self.rows)

    @property
    def kind(self) -> PlanKind:
        if self.num_apart:
            return PlanKind.TWO_BATCH
        return PlanKind.ONE_BATCH if self.num_beside else PlanKind.GPU_ONLY


@dataclass(frozen=True, slots=True)
class Balance:
    """`first` is the device's own work, `parked` the work of rows on the host in the order in which
    they are to be served; `num_given` rows are not counted. A plan of the `last` kind is kept
    unless another is better by `hysteresis`."""

    costs: StageCosts
    first: Work
    parked: Sequence[Work]
    last: PlanKind = PlanKind.GPU_ONLY
    hysteresis: float = 0.0
    num_given: int = 0

    def best(self, num_forced: int = 0, most: int | None = None) -> Split:
        """With at least the forced rows, and at most so many: from the best of a few on, by shorter
        and shorter ways."""
        least, most = self._bounds(num_forced, most)
        sums = self._sums()
        best = self._coarse(sums, least, most)
        way = max(1, (most - least) // 8)
        while way:
            near = _near(best, way, least, most, self.first.rows > 0)
            better = max((self._split(sums, *pair) for pair in near), key=self._score, default=best)
            if self._score(better) > self._score(best):
                best = better
            else:
                way //= 2
        return best

    def coarse(self, num_forced: int, most: int) -> Split:
        """The best of a few."""
        return self._coarse(self._sums(), *self._bounds(num_forced, most))

    def _bounds(self, num_forced: int, most: int | None) -> tuple[int, int]:
        most = len(self.parked) if most is None else min(most, len(self.parked))
        least = min(num_forced if self.first.rows else max(1, num_forced), most)
        return least, most

    def _sums(self) -> list[Work]:
        return list(accumulate(self.parked, initial=Work()))

    def _coarse(self, sums: Sequence[Work], least: int, most: int) -> Split:
        splits = [self._split(sums, *pair) for pair in _pairs(least, most, self.first.rows > 0)]
        return max(splits, key=self._score)

    def _score(self, split: Split) -> float:
        return split.rate * (1.0 + self.hysteresis * (split.kind is self.last))

    def _split(self, sums: Sequence[Work], num_beside: int, num_apart: int) -> Split:
        total, beside = sums[num_beside + num_apart], sums[num_beside]
        first = self.first + beside
        second = total - beside
        seconds = self.costs.step_seconds(first, second)
        return Split(num_beside, num_apart, first.rows + second.rows - self.num_given, seconds)


def _pairs(least: int, most: int, has_first: bool) -> Iterator[tuple[int, int]]:
    """Numbers of rows beside the device's batch and apart from it: few counts, a step doubled each
    time, and of each some ways to share it."""
    for count in counts(least, most):
        shares = {0, count // 4, count // 2, count - count // 4, count}
        for beside in sorted(shares):
            if has_first or beside or not count:
                yield beside, count - beside


def _near(
    split: Split, way: int, least: int, most: int, has_first: bool
) -> Iterator[tuple[int, int]]:
    """One of the numbers, or both, a way off."""
    for more_beside, more_apart in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)):
        beside, apart = split.num_beside + way * more_beside, split.num_apart + way * more_apart
        is_within = min(beside, apart) >= 0 and least <= beside + apart <= most
        if is_within and (has_first or beside or not apart):
            yield beside, apart


def counts(least: int, most: int, growth: float = 2.0) -> list[int]:
    """Numbers from `least` to `most`, close to each other near both ends, and further in between by
    this factor."""
    found = {least, most}
    grown = 1
    while grown < most - least:
        found.update((least + grown, most - grown))
        grown = max(grown + 1, int(grown * growth))
    return sorted(found)
