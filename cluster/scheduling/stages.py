"""What a step costs, part by part: the seconds that a plan is chosen by.

A sub-batch is linear operators on the device, attention on the device, and attention beside the
host's memory. Two sub-batches take turns, layer by layer, so that each is attended on the host
while the device computes the other:

    device   linear 0 | attention 0 | linear 1 | linear 0 | attention 0 | linear 1 | ..
    host              |<------ of batch 0 ---->|<---- of batch 1 ------>|

A layer of both takes as long as the longest of four rounds, each of which must end before it can
begin again: the device's work, the host's work, and for either batch its linear operators and then
its host attention. NEO (arXiv 2411.01142, section 4) asks for the case in which the first is the
longest.

All seconds are those of a whole step: the layers of a model are alike, so that a step's rounds are
to each other as a layer's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log

from cluster.errors import InvalidArgument

# What one measurement moves: the whole curve, and of it the two points around.
SCALE_RATE = 0.25
POINT_RATE = 0.05
# What one step moves the costs of its rest, which depend on what is drawn.
REST_RATE = 0.1
# What was not measured for so many steps, while it was wanted, is believed to cost less, step by
# step, until it is tried; a trial that finds it dearer than that doubles the steps.
PATIENCE = 8
MOST_PATIENCE = 1024
DOUBT = 0.9
LEAST_BELIEF = 1 / 8
# What is measured as nothing would stay nothing, whatever it takes.
LEAST_S = 1e-6
# What took longer than this times its prediction met something else than its own work.
MAX_RATIO = 8.0


@dataclass(frozen=True, slots=True)
class Work:
    """A sub-batch in the quantities that its time depends on.

    rows            through the linear operators
    prefill_keys    pairs of a prompt's row and a key that it attends on the device
    device_tokens   keys that decoding rows attend on the device
    host_rows       rows that attend anything on the host
    host_tokens     keys that they attend there
    """

    rows: int = 0
    prefill_keys: int = 0
    device_tokens: int = 0
    host_rows: int = 0
    host_tokens: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows,
            self.prefill_keys + other.prefill_keys,
            self.device_tokens + other.device_tokens,
            self.host_rows + other.host_rows,
            self.host_tokens + other.host_tokens,
        )


def keys_of(start: int, rows: int) -> int:
    """Pairs of a row and a key that it attends, of rows after `start` tokens."""
    return rows * start + rows * (rows + 1) // 2


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of one sub-batch, measured or predicted: on the device in linear operators and in
    attention, on the host in attention, and of the device's while it waited for the host."""

    linear_s: float = 0.0
    device_s: float = 0.0
    host_s: float = 0.0
    waited_s: float = 0.0


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
        points, seconds = self.points, self.seconds
        if quantity <= 0 or len(points) == 1:
            return self.scale * seconds[0] if quantity > 0 else 0.0
        above = min(max(bisect_right(points, quantity), 1), len(points) - 1)
        left, low = points[above - 1], seconds[above - 1]
        share = max(0, quantity - left) / (points[above] - left)
        rise = seconds[above] - low
        return self.scale * (low + (min(share, 1.0) if rise < 0.0 else share) * rise)

    def observed(self, quantity: int, seconds: float, rate: float = SCALE_RATE) -> None:
        """`rate` is the share of the error by which the factor is corrected."""
        predicted = self.at(quantity)
        if predicted <= 0.0 or seconds <= 0.0:
            return
        error = log(min(MAX_RATIO, max(1 / MAX_RATIO, seconds / predicted)))
        self.scale *= exp(rate * error)
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


def measured_curve(seconds: Mapping[int, float]) -> Curve:
    """By what was measured. Fewer never take longer: what disturbed a measurement has only added to
    it."""
    points = sorted(seconds)
    least = [max(LEAST_S, min(seconds[more] for more in points[i:])) for i in range(len(points))]
    return Curve(tuple(points), least)


def line(per_unit: float, at_least: float = 0.0) -> Curve:
    """A curve of `at_least` and so many seconds for each unit."""
    return Curve((0, 2**20), [at_least, at_least + per_unit * 2**20])


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Of whoever attends on the host: by keys, for each row besides, and whether that is done while
    the device computes, or after it."""

    keys: Curve
    row_s: float
    is_beside: bool


@dataclass(slots=True)
class StageCosts:
    """Seconds of the parts of a step, over all layers. Believed at first, then measured.

    linear        by rows
    prefill       attention of a prompt's rows, by pairs of row and key
    decode        attention of decoding rows on the device, by keys
    host          attention on the host, by keys
    host_row_s    on the host for each row besides
    exchange_s    on the device for a sub-batch that attends on the host: q there, o back
    step_s        once a step: deciding, the head, drawing
    is_beside     whether the host is attended while the device computes, or after it
    """

    linear: Curve
    prefill: Curve
    decode: Curve
    host: Curve
    host_row_s: float = 0.0
    exchange_s: float = 0.0
    step_s: float = 0.0
    is_beside: bool = True
    # Steps since the host was measured last, and the factor that it had then.
    host_age: int = field(init=False, default=0)
    patience: int = field(init=False, default=PATIENCE)
    _measured_scale: float = field(init=False, default=1.0)

    def __post_init__(self) -> None:
        self._measured_scale = self.host.scale

    def attended_by(self, host: HostCosts) -> None:
        """Who attends on the host from now on; what was learnt of others is kept with them."""
        if self.host is not host.keys:
            self.host, self._measured_scale = host.keys, host.keys.scale
            self.host_age, self.patience = 0, PATIENCE
        self.host_row_s, self.is_beside = host.row_s, host.is_beside

    @property
    def is_doubted(self) -> bool:
        """Whether the host's costs are to be tried before much rests on them."""
        return self.host_age > self.patience

    def doubt(self, is_wanted: bool) -> None:
        """A step is planned; whether it could do with the host."""
        if is_wanted and self.is_doubted:
            least = LEAST_BELIEF * self._measured_scale
            self.host.scale = max(least, DOUBT * self.host.scale)

    def times(self, work: Work) -> StageTimes:
        """Of a sub-batch, as if it were alone."""
        return StageTimes(
            self.linear.at(work.rows),
            self.attention_s(work) + self._exchange_s(work),
            self.host_s(work.host_rows, work.host_tokens),
        )

    def attention_s(self, work: Work) -> float:
        """On the device, without what goes to the host and comes from there."""
        return self.prefill.at(work.prefill_keys) + self.decode.at(work.device_tokens)

    def _exchange_s(self, work: Work) -> float:
        return self.exchange_s if work.host_rows else 0.0

    def host_s(self, rows: int, tokens: int) -> float:
        if not rows:
            return 0.0
        return self.host.at(tokens) + self.host.scale * self.host_row_s * rows

    def round_s(self, first: StageTimes, second: StageTimes) -> float:
        """Of a step's layers with two sub-batches in turn; the second may be empty."""
        device_s = first.linear_s + first.device_s + second.linear_s + second.device_s
        host_s = first.host_s + second.host_s
        if not self.is_beside:
            return device_s + host_s
        return max(
            device_s,
            host_s,
            first.linear_s + first.host_s,
            second.linear_s + second.host_s,
        )

    def step_seconds(self, first: Work, second: Work) -> float:
        """Of a whole step."""
        return self.step_s + self.round_s(self.times(first), self.times(second))

    def observed(
        self, works: Iterable[Work], times: Collection[StageTimes], rest_s: float | None = None
    ) -> None:
        """What the sub-batches of a step have taken, and the rest of it, if nothing but deciding,
        the head and drawing was in it."""
        if rest_s is not None:
            self.step_s += REST_RATE * (rest_s - self.step_s)
        self.host_age += 1
        for work, took in zip(works, times, strict=True):
            self.linear.observed(work.rows, took.linear_s)
            self._observe_device(work, took.device_s)
            if work.host_rows:
                self._observe_host(work, took.host_s)

    def _observe_device(self, work: Work, seconds: float) -> None:
        """Attention of prompts, of decoding rows and the exchange with the host are measured
        together, and corrected in proportion."""
        prefill_s, decode_s = self.prefill.at(work.prefill_keys), self.decode.at(work.device_tokens)
        predicted_s = prefill_s + decode_s + self._exchange_s(work)
        ratio = min(MAX_RATIO, max(1 / MAX_RATIO, seconds / max(predicted_s, 1e-12)))
        self.prefill.observed(work.prefill_keys, ratio * prefill_s)
        self.decode.observed(work.device_tokens, ratio * decode_s)
        if work.host_rows:
            self.exchange_s *= ratio**SCALE_RATE

    def _observe_host(self, work: Work, seconds: float) -> None:
        predicted = self.host_s(work.host_rows, work.host_tokens)
        if predicted <= 0.0:
            return
        is_trial, self.host_age = self.is_doubted, 0
        if is_trial:
            is_dearer = seconds > 1.25 * predicted
            self.patience = min(MOST_PATIENCE, 2 * self.patience) if is_dearer else PATIENCE
        own_s = self.host.at(work.host_tokens)
        rate = 1.0 if is_trial else SCALE_RATE
        self.host.observed(work.host_tokens, own_s * seconds / predicted, rate)
        self._measured_scale = self.host.scale


def free_costs() -> StageCosts:
    """Nothing takes any time: where nobody asks."""
    return StageCosts(line(0.0), line(0.0), line(0.0), line(0.0))
