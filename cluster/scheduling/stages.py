"""What a step costs, part by part: the seconds that a plan is chosen by.

A sub-batch is linear operators on the device, attention on the device, and attention beside the
host's memory, before and after which the device exchanges rows with the host: q, k and v there,
states back. Two sub-batches take turns, layer by layer, so that each is attended on the host while
the device computes the other:

    device   linear 0 | attention 0 | linear 1 | linear 0 | attention 0 | linear 1 | ..
    host              |<------ of batch 0 ---->|<---- of batch 1 ------>|

A layer of both takes as long as the longest of four rounds, each of which must end before it can
begin again: the device's work, the host's work, and for either batch its linear operators, its
exchange and its host attention. NEO (arXiv 2411.01142, section 4) asks for the case in which the
first is the longest.

All seconds are those of a whole step: the layers of a model are alike, so that a step's rounds are
to each other as a layer's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cluster.scheduling.curves import SCALE_RATE, Curve, Trend, bounded_ratio, line

# A host that was not measured for so many steps, while it was wanted, is probed; the next probe
# comes after so many times as many steps, until rows that are attended there bear it out.
PATIENCE = 8
PATIENCE_GROWTH = 2
MOST_PATIENCE = 1024
# What one step with the host moves its stall.
STALL_RATE = 0.1
# Rows that took longer than so many times what was believed after a probe belie it.
BELIED = 1.25


@dataclass(frozen=True, slots=True)
class Work:
    """A sub-batch in the quantities that its time depends on.

    rows            through the linear operators
    prefill_keys    pairs of a prompt's row and a key that it attends on the device
    device_tokens   keys that decoding rows attend on the device
    host_rows       rows that attend anything on the host
    host_tokens     keys that they attend there
    streamed_rows   rows of prompts whose own keys and values go to the host
    drawn           rows whose next token is drawn
    """

    rows: int = 0
    prefill_keys: int = 0
    device_tokens: int = 0
    host_rows: int = 0
    host_tokens: int = 0
    streamed_rows: int = 0
    drawn: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows,
            self.prefill_keys + other.prefill_keys,
            self.device_tokens + other.device_tokens,
            self.host_rows + other.host_rows,
            self.host_tokens + other.host_tokens,
            self.streamed_rows + other.streamed_rows,
            self.drawn + other.drawn,
        )

    def __sub__(self, other: Work) -> Work:
        """Of a part of it."""
        return Work(
            self.rows - other.rows,
            self.prefill_keys - other.prefill_keys,
            self.device_tokens - other.device_tokens,
            self.host_rows - other.host_rows,
            self.host_tokens - other.host_tokens,
            self.streamed_rows - other.streamed_rows,
            self.drawn - other.drawn,
        )

    @property
    def exchanged_rows(self) -> int:
        """With the host, in every layer."""
        return self.host_rows + self.streamed_rows


def keys_of(start: int, rows: int) -> int:
    """Pairs of a row and a key that it attends, of rows after `start` tokens."""
    return rows * start + rows * (rows + 1) // 2


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of one sub-batch, measured or predicted: on the device in linear operators and in
    attention, on the host in attention, of the device's while it waited for the host, and in the
    exchange of rows with it."""

    linear_s: float = 0.0
    device_s: float = 0.0
    host_s: float = 0.0
    waited_s: float = 0.0
    exchange_s: float = 0.0

    @property
    def busy_s(self) -> float:
        """The device's, but for waiting."""
        return self.linear_s + self.device_s + self.exchange_s

    @property
    def chain_s(self) -> float:
        """Until what one layer attends on the host is there for the next."""
        return self.linear_s + self.exchange_s + self.host_s


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

    linear      by rows
    prefill     attention of a prompt's rows, by pairs of row and key
    decode      attention of decoding rows on the device, by keys
    host        attention on the host, by keys
    host_row_s  on the host for each row besides
    exchange    on the device, by rows exchanged with the host
    rest        once a step, by rows drawn: deciding, the head, drawing
    is_beside   whether the host is attended while the device computes, or after it
    stall       by what factor rounds with the host take longer than said: of parts that vary the
                longest takes longer than the longest does usually
    """

    linear: Curve
    prefill: Curve
    decode: Curve
    host: Curve
    host_row_s: float = 0.0
    exchange: Curve = field(default_factory=lambda: line(0.0))
    rest: Trend = field(default_factory=Trend)
    is_beside: bool = True
    stall: float = 1.0
    # Whether a probe of the host is wanted.
    is_doubted: bool = field(init=False, default=False)
    # Steps since the host was measured last, and how many are too many.
    _host_age: int = field(init=False, default=0)
    _patience: int = field(init=False, default=PATIENCE)
    _was_probed: bool = field(init=False, default=False)

    def attended_by(self, host: HostCosts) -> None:
        """Who attends on the host from now on; what was learnt of others is kept with them."""
        if self.host is not host.keys:
            self.host, self._host_age, self._patience = host.keys, 0, PATIENCE
        self.host_row_s, self.is_beside = host.row_s, host.is_beside

    def doubt(self, is_wanted: bool) -> None:
        """A step is planned; whether it could do with the host."""
        self.is_doubted = is_wanted and self._host_age > self._patience

    def probed(self, rows: int, tokens: int, seconds: float) -> None:
        """What the host has taken for this of its own, for nobody's sake."""
        self._observe_host(rows, tokens, seconds, 1.0)
        self.is_doubted, self._was_probed = False, True
        self._patience = min(MOST_PATIENCE, PATIENCE_GROWTH * self._patience)

    def times(self, work: Work) -> StageTimes:
        """Of a sub-batch, as if it were alone."""
        return StageTimes(
            self.linear.at(work.rows),
            self.attention_s(work),
            self.host_s(work.host_rows, work.host_tokens),
            exchange_s=self.exchange.at(work.exchanged_rows),
        )

    def attention_s(self, work: Work) -> float:
        """On the device."""
        return self.prefill.at(work.prefill_keys) + self.decode.at(work.device_tokens)

    def host_s(self, rows: int, tokens: int) -> float:
        if not rows:
            return 0.0
        return self.host.at(tokens) + self.host.scale * self.host_row_s * rows

    def round_s(self, first: StageTimes, second: StageTimes) -> float:
        """Of a step's layers with two sub-batches in turn; the second may be empty."""
        device_s, host_s = first.busy_s + second.busy_s, first.host_s + second.host_s
        if not self.is_beside:
            return device_s + host_s
        return max(device_s, host_s, first.chain_s, second.chain_s)

    def step_seconds(self, first: Work, second: Work) -> float:
        """Of a whole step."""
        layers_s = self.round_s(self.times(first), self.times(second))
        if first.host_rows or second.host_rows:
            layers_s *= self.stall
        return self.rest.at(first.drawn + second.drawn) + layers_s

    def observed(
        self, works: Collection[Work], times: Collection[StageTimes], rest_s: float | None = None
    ) -> None:
        """What the sub-batches of a step have taken, and the rest of it, if nothing but deciding,
        the head and drawing was in it."""
        if rest_s is not None:
            self.rest.observed(sum(work.drawn for work in works), rest_s)
        if any(work.host_rows for work in works):
            self._observe_rounds(works, times)
        self._host_age += 1
        for work, took in zip(works, times, strict=True):
            self.linear.observed(work.rows, took.linear_s)
            self.exchange.observed(work.exchanged_rows, took.exchange_s)
            self._observe_attention(work, took.device_s)
            if work.host_rows:
                self._observe_rows(work, took.host_s)

    def _observe_rounds(self, works: Collection[Work], times: Collection[StageTimes]) -> None:
        first, second = (*map(self.times, works), StageTimes())[:2]
        took_s = sum(each.busy_s + each.waited_s for each in times)
        ratio = bounded_ratio(took_s, self.round_s(first, second))
        self.stall = max(1.0, self.stall + STALL_RATE * (ratio - self.stall))

    def _observe_attention(self, work: Work, seconds: float) -> None:
        """Attention of prompts and of decoding rows is measured together, and corrected in
        proportion."""
        prefill_s, decode_s = self.prefill.at(work.prefill_keys), self.decode.at(work.device_tokens)
        ratio = bounded_ratio(seconds, prefill_s + decode_s)
        self.prefill.observed(work.prefill_keys, ratio * prefill_s)
        self.decode.observed(work.device_tokens, ratio * decode_s)

    def _observe_rows(self, work: Work, seconds: float) -> None:
        if self._was_probed:
            is_belied = seconds > BELIED * self.host_s(work.host_rows, work.host_tokens)
            self._was_probed = False
            if not is_belied:
                self._patience = PATIENCE
        self._observe_host(work.host_rows, work.host_tokens, seconds, SCALE_RATE)

    def _observe_host(self, rows: int, tokens: int, seconds: float, rate: float) -> None:
        self._host_age = 0
        predicted = self.host_s(rows, tokens)
        if predicted > 0.0:
            own_s = self.host.at(tokens)
            self.host.observed(tokens, own_s * seconds / predicted, rate)


def free_costs() -> StageCosts:
    """Nothing takes any time: where nobody asks."""
    return StageCosts(line(0.0), line(0.0), line(0.0), line(0.0))
