"""Seconds as they depend on a quantity: believed at first, and corrected by what was measured."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log

from cluster.errors import InvalidArgument

# What one measurement moves: the whole curve, and of it the two points around.
SCALE_RATE = 0.25
POINT_RATE = 0.05
# What is further off than this (in e-fold) is the fault of the whole curve, not of two points.
MOST_BENT = 0.4
# What is measured as nothing would stay nothing, whatever it takes.
LEAST_S = 1e-6
# What took longer than this times its prediction met something else than its own work.
MAX_RATIO = 8.0
# What one measurement moves a trend once there were enough; at first it counts as so many.
TREND_RATE = 0.05
FIRST_BELIEF = 1
# Where quantities vary by less than this, a trend's slope moves slowly.
RIDGE = 1.0


def bounded_ratio(seconds: float, predicted_s: float) -> float:
    """Measured over predicted, as far as it is believed."""
    return min(MAX_RATIO, max(1 / MAX_RATIO, seconds / max(predicted_s, 1e-12)))


@dataclass(slots=True)
class Curve:
    """Seconds over one quantity, none negative: linear between its points, and beyond the last on
    its last slope, which may be level but does not fall.

    A measurement corrects all of it by a factor, quickly, and the points around it, slowly: a
    profile of another machine comes right everywhere, and a step in it stays.
    """

    points: tuple[int, ...]
    seconds: list[float]
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a curve that is none."""
        if list(self.points) != sorted(set(self.points)) or not self.points or self.points[0] < 0:
            raise InvalidArgument(f"points {self.points} do not grow from 0 on", field="points")
        if len(self.seconds) != len(self.points) or min(self.seconds) < 0:
            raise InvalidArgument("each point has its seconds, none negative", field="seconds")

    def at(self, quantity: int) -> float:
        """0 for nothing."""
        if quantity <= 0:
            return 0.0
        points, seconds = self.points, self.seconds
        if quantity <= points[0] or len(points) == 1:
            return self.scale * seconds[0]
        above = bisect_right(points, quantity)
        if above == len(points):
            above -= 1
        left, low, high = points[above - 1], seconds[above - 1], seconds[above]
        if quantity > points[above] and high < low:
            return self.scale * high
        return self.scale * (low + (quantity - left) / (points[above] - left) * (high - low))

    def observed(self, quantity: int, seconds: float, rate: float = SCALE_RATE) -> None:
        """`rate` is the share of the error by which the factor is corrected."""
        predicted = self.at(quantity)
        if predicted <= 0.0 or seconds <= 0.0:
            return
        error = log(bounded_ratio(seconds, predicted))
        self.scale *= exp(rate * error)
        if abs(error) > MOST_BENT:
            return
        for i, share in self._around(quantity):
            if 0.0 < share <= 1.0:
                self.seconds[i] *= exp(POINT_RATE * share * error)

    def _around(self, quantity: int) -> tuple[tuple[int, float], ...]:
        points = self.points
        above = bisect_right(points, quantity)
        if above == 0 or len(points) == 1:
            return ((0, 1.0),)
        above = min(above, len(points) - 1)
        left, right = points[above - 1], points[above]
        share = (quantity - left) / (right - left)
        return ((above - 1, 1.0 - share), (above, share))


@dataclass(slots=True)
class Trend:
    """Seconds as a line over a quantity: `base_s`, and `unit_s` for each of it, neither negative.

    The line of least squares through what was measured, in which the past counts less and less.
    """

    base_s: float = 0.0
    unit_s: float = 0.0
    _count: int = FIRST_BELIEF
    _mean: float = 1.0
    _mean_s: float = -1.0
    _variance: float = 0.0
    _covariance: float = 0.0

    def __post_init__(self) -> None:
        if min(self.base_s, self.unit_s) < 0.0:
            raise InvalidArgument("a trend has no negative seconds", field="base_s or unit_s")
        self._mean_s = self.at(1)

    def at(self, quantity: int) -> float:
        return self.base_s + self.unit_s * quantity

    def observed(self, quantity: int, seconds: float) -> None:
        self._count += 1
        rate = max(TREND_RATE, 1 / self._count)
        off, off_s = quantity - self._mean, seconds - self._mean_s
        self._mean += rate * off
        self._mean_s += rate * off_s
        kept = 1.0 - rate
        self._variance = kept * (self._variance + rate * off * off)
        self._covariance = kept * (self._covariance + rate * off * off_s)
        slope = (self._covariance + RIDGE * self.unit_s) / (self._variance + RIDGE)
        # A line that would begin below nothing goes through the middle of what was measured.
        most = self._mean_s / self._mean if self._mean > 0.0 else 0.0
        self.unit_s = min(max(0.0, slope), max(0.0, most))
        self.base_s = max(0.0, self._mean_s - self.unit_s * self._mean)


def measured_curve(seconds: Mapping[int, float]) -> Curve:
    """By what was measured. Fewer never take longer: what disturbed a measurement has only added to
    it."""
    points = sorted(seconds)
    least = [max(LEAST_S, min(seconds[more] for more in points[i:])) for i in range(len(points))]
    return Curve(tuple(points), least)


def line(per_unit: float, at_least: float = 0.0) -> Curve:
    """A curve of `at_least` and so many seconds for each unit."""
    return Curve((0, 2**20), [at_least, at_least + per_unit * 2**20])
