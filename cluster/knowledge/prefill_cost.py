"""T(alpha, beta): seconds to compute beta tokens that come after alpha cached ones.

A grid of one chunk's seconds is measured at start. Between its points T is bilinear, outside it is
clamped; a prefill longer than the grid's longest chunk is computed in chunks, so its seconds are
theirs added up:

    T(alpha, beta) = sum over i of  chunk(alpha + i * c, min(c, beta - i * c)),  c = longest chunk

Every measured chunk corrects the four points around it, each by its share in the prediction, with
an exponentially weighted mean: the grid follows a machine that other work slows down.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from cluster.errors import InvalidArgument

# A measured chunk moves a point by this share of its error.
LEARNING_RATE = 0.1
# A chunk that took longer than this times the prediction met something else than its own work.
MAX_RATIO = 8.0


@dataclass(frozen=True, slots=True)
class _Corner:
    row: int
    column: int
    share: float


@dataclass(slots=True)
class PrefillCost:
    """`seconds[i][j]` of a chunk of `betas[j]` tokens after `alphas[i]` cached ones."""

    alphas: tuple[int, ...]
    betas: tuple[int, ...]
    seconds: list[list[float]]

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a grid that is none."""
        for name, axis, least in (("alphas", self.alphas, 0), ("betas", self.betas, 1)):
            if not axis or list(axis) != sorted(set(axis)) or axis[0] < least:
                raise InvalidArgument(f"{name} {axis} do not grow from {least} on", field=name)
        if [len(row) for row in self.seconds] != [len(self.betas)] * len(self.alphas):
            raise InvalidArgument("seconds are not [alphas][betas]", field="seconds")
        if any(value < 0 for row in self.seconds for value in row):
            raise InvalidArgument("seconds are negative", field="seconds", limit="at least 0")

    def prefill_s(self, alpha: int, beta: int) -> float:
        """T(alpha, beta); 0 for nothing to compute."""
        longest = self.betas[-1]
        total = 0.0
        while beta > 0:
            chunk = min(beta, longest)
            total += self.chunk_s(alpha, chunk)
            alpha, beta = alpha + chunk, beta - chunk
        return total

    def chunk_s(self, alpha: int, beta: int) -> float:
        """One chunk, within the grid."""
        return sum(self.seconds[c.row][c.column] * c.share for c in self._corners(alpha, beta))

    def observed(self, alpha: int, beta: int, seconds: float) -> None:
        """A step that computed nothing but this chunk took so long. A chunk outside the grid says
        nothing of its points."""
        is_inside = _is_within(self.alphas, alpha) and _is_within(self.betas, beta)
        if not is_inside:
            return
        predicted = self.chunk_s(alpha, beta)
        if predicted <= 0.0 or seconds <= 0.0:
            return
        ratio = min(MAX_RATIO, max(1 / MAX_RATIO, seconds / predicted))
        for corner in self._corners(alpha, beta):
            self.seconds[corner.row][corner.column] *= 1 + LEARNING_RATE * corner.share * (
                ratio - 1
            )

    def _corners(self, alpha: int, beta: int) -> Iterator[_Corner]:
        for row, row_share in _neighbours(self.alphas, alpha):
            for column, column_share in _neighbours(self.betas, beta):
                yield _Corner(row, column, row_share * column_share)


def _is_within(axis: Sequence[int], value: int) -> bool:
    return axis[0] <= value <= axis[-1]


def _neighbours(axis: Sequence[int], value: int) -> tuple[tuple[int, float], ...]:
    """The points around a value and how much each counts; outside the axis, its end alone."""
    above = bisect_right(axis, value)
    if above == 0:
        return ((0, 1.0),)
    if above == len(axis):
        return ((above - 1, 1.0),)
    share = (value - axis[above - 1]) / (axis[above] - axis[above - 1])
    return ((above - 1, 1.0 - share), (above, share))


@dataclass(frozen=True, slots=True)
class TransferCost:
    """Seconds to bring one block up, from the host to the device and from disk to the host; and how
    much longer a row takes to attend a block on the host than on the device, over all layers
    (infinite where nobody attends there)."""

    host_block_s: float
    disk_block_s: float
    attend_block_s: float = inf
