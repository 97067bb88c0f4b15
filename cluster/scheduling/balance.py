"""Which of those that decode on the host get a row in a step, and in which sub-batch.

The value of a step is rows per second (NEO, arXiv 2411.01142, section 4.3). More rows of the host
are worth their linear operators, and cost nothing else as long as the device hides them; when they
take longer, they cost everybody's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    def best(
        self, num_forced: int = 0, most: int | None = None, around: Split | None = None
    ) -> Split:
        """With at least the forced rows, and at most so many: from another plan's numbers on, or
        from the best of a few of each kind, by shorter and shorter ways."""
        least, most = self._bounds(num_forced, most)
        sums = self._sums()
        if around is not None:
            nearest = self._split(sums, *self._nearest(around, least, most))
            return self._from(nearest, sums, least, most, 1)
        begun = [self._split(sums, *pair) for pair in _pairs(least, most, self.first.rows > 0)]
        of_kinds = {split.kind: split for split in sorted(begun, key=self._score)}
        way = max(1, (most - least) // 8)
        found = [self._from(split, sums, least, most, way) for split in of_kinds.values()]
        return max(found, key=self._score)

    def _from(self, best: Split, sums: Sequence[Work], least: int, most: int, way: int) -> Split:
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
        sums, bounds = self._sums(), self._bounds(num_forced, most)
        splits = [self._split(sums, *pair) for pair in _pairs(*bounds, self.first.rows > 0)]
        return max(splits, key=self._score)

    def _bounds(self, num_forced: int, most: int | None) -> tuple[int, int]:
        most = len(self.parked) if most is None else min(most, len(self.parked))
        least = min(num_forced if self.first.rows else max(1, num_forced), most)
        return least, most

    def _nearest(self, split: Split, least: int, most: int) -> tuple[int, int]:
        """Its numbers within the bounds: beside the device's batch, and apart."""
        count = min(most, max(least, split.num_beside + split.num_apart))
        beside = min(split.num_beside, count) if self.first.rows or split.num_beside else count
        return beside, count - beside

    def _sums(self) -> list[Work]:
        return list(accumulate(self.parked, initial=Work()))

    def _score(self, split: Split) -> float:
        return split.rate * (1.0 + self.hysteresis * (split.kind is self.last))

    def _split(self, sums: Sequence[Work], num_beside: int, num_apart: int) -> Split:
        total, beside = sums[num_beside + num_apart], sums[num_beside]
        first = self.first + beside
        second = total - beside
        seconds = self.costs.step_seconds(first, second)
        return Split(num_beside, num_apart, first.rows + second.rows - self.num_given, seconds)


@dataclass(frozen=True, slots=True)
class Rates:
    """Decoding rows a second in the long run, by how many lie on the host.

    Most steps only decode; for each row of theirs there are `prompt_steps` steps with prompts
    beside, which take `streamed_s` more if all of those go to the host. Either kind takes as many
    rows of the host as are best for it. Nobody there goes without a row for more than
    `progress_steps` steps.
    """

    decoding: Balance
    with_prompts: Balance
    prompt_steps: float
    progress_steps: int
    streamed_s: float = 0.0

    def by_number(self) -> dict[int, float]:
        numbers = counts(0, len(self.decoding.parked), 1.25)
        plain = {n: self.decoding.coarse(n, n) for n in numbers}
        prompts = {n: self.with_prompts.coarse(n, n) for n in numbers}
        own = self.decoding.first.rows
        rates = {}
        for number in numbers:
            row_s = self._row_s(number, plain)
            more_s = min(prompts[n].seconds - (own + n) * row_s for n in numbers if n <= number)
            more_s += self.streamed_s * number / max(1, own + number)
            rates[number] = 1.0 / max(row_s + self.prompt_steps * more_s, 1e-12)
        return rates

    def _row_s(self, number: int, plain: Mapping[int, Split]) -> float:
        """Seconds for a row of steps that only decode, with so many on the host: of all that keep
        the promise the least. Less than a row a step is promised by a row in some steps."""
        own, promised = self.decoding.first.rows, number / self.progress_steps
        found = [
            each.seconds / (own + n)
            for n, each in plain.items()
            if promised <= n <= number and own + n
        ]
        if own and 0.0 < promised < 1.0:
            mixed_s = (1.0 - promised) * plain[0].seconds + promised * plain[1].seconds
            found.append(mixed_s / (own + promised))
        return min(found, default=1.0)


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
