"""Requests go into an engine when they come, and every token's time is taken down."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.offload_load import Arrival
from benchmarks.rag_clock import Skips
from cluster.engine.engine import Engine, StepReport
from cluster.errors import InvariantBroken
from cluster.ids import RequestId
from cluster.scheduling.plan import PlanKind

# So many steps without a row, one after another, and nothing will come of the rest either.
MOST_IDLE = 100


@dataclass(slots=True)
class Life:
    """Seconds from the first arrival; `token_s` holds each token's."""

    at_s: float
    token_s: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.at_s

    @property
    def latency_s(self) -> float:
        return self.token_s[-1] - self.at_s

    @property
    def latency_per_token_s(self) -> float:
        return self.latency_s / len(self.token_s)

    @property
    def gaps_s(self) -> list[float]:
        return [b - a for a, b in zip(self.token_s, self.token_s[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a step. `rows` says who computed in which sub-batch, and how many rows of
    prompts there were: two runs with the same are the same plans."""

    kind: PlanKind
    rows: tuple[tuple[tuple[RequestId, ...], ...], int]
    predicted_s: float
    seconds: float
    num_preempted: int
    num_host_rows: int

    @classmethod
    def of(cls, report: StepReport) -> Seen:
        return cls(
            report.why.kind,
            (report.request_ids, report.num_prefill_rows),
            report.why.seconds,
            report.seconds,
            report.num_preempted,
            sum(work.host_rows for work in report.why.works),
        )


@dataclass(frozen=True, slots=True)
class Played:
    """One load, to its end."""

    lives: Sequence[Life]
    steps: Sequence[Seen]

    @property
    def seconds(self) -> float:
        """From the first arrival to the last token."""
        return max(life.token_s[-1] for life in self.lives)

    @property
    def num_tokens(self) -> int:
        return sum(len(life.ids) for life in self.lives)

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(life.ids) for life in self.lives)

    @property
    def plans(self) -> list[object]:
        return [(step.kind, step.rows) for step in self.steps]


def play(engine: Engine, arrivals: Sequence[Arrival], clock: Skips) -> Played:
    """The engine's clock is the one given. While there is nothing to do it jumps to the next
    arrival. Raises what a request fails with, and InvariantBroken when nothing goes on."""
    run = _Play(engine, clock, deque(arrivals))
    while run.coming or engine.has_work:
        run.advance()
    return Played([run.lives[arrival.request.id] for arrival in arrivals], run.steps)


class _Play:
    def __init__(self, engine: Engine, clock: Skips, coming: deque[Arrival]) -> None:
        self._engine, self._clock, self.coming = engine, clock, coming
        self._begun_s = clock.now_s()
        self._num_idle = 0
        self.lives: dict[RequestId, Life] = {}
        self.steps: list[Seen] = []

    def advance(self) -> None:
        while self.coming and self.coming[0].at_s <= self._now_s():
            arrival = self.coming.popleft()
            self.lives[arrival.request.id] = Life(arrival.at_s)
            self._engine.submit(arrival.request)
        if self._engine.has_work:
            self._record(self._engine.step())
        else:
            self._clock.skip(max(0.0, self.coming[0].at_s - self._now_s()))

    def _record(self, report: StepReport) -> None:
        now_s = self._now_s()
        for _, error in report.failed:
            raise error
        for request_id, token in report.tokens:
            life = self.lives[request_id]
            life.token_s.append(now_s)
            life.ids.append(token)
        self.steps.append(Seen.of(report))
        self._num_idle = 0 if report.why.works else self._num_idle + 1
        if self._num_idle > MOST_IDLE:
            raise InvariantBroken(f"{MOST_IDLE} steps without a row, and requests are left")

    def _now_s(self) -> float:
        return self._clock.now_s() - self._begun_s
