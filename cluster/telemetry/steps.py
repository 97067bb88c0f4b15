"""The last steps of a worker, for whoever asks where the time went.

    StepRecord   seconds   | decide | sub-batches, layer by layer ... | draw | record |
                 of each sub-batch: linear, device, host, waited, summed over the layers

What is remembered is bounded by count and by age: a worker that has been idle remembers nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from cluster.ids import RequestId
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageTimes, Work

MOST_STEPS = 8192
OLDEST_S = 300.0


@dataclass(frozen=True, slots=True)
class SubBatch:
    """`measured` None: the clock does not see the device."""

    request_ids: tuple[RequestId, ...]
    work: Work
    predicted: StageTimes
    measured: StageTimes | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """`started_s` is on the worker's clock; `seconds` are those of the whole step, `decide_s` of it
    lie before the first sub-batch, `draw_s` after the last. `predicted_s` 0: nothing was
    predicted."""

    started_s: float
    seconds: float
    decide_s: float = 0.0
    draw_s: float = 0.0
    kind: PlanKind = PlanKind.GPU_ONLY
    predicted_s: float = 0.0
    said: str = ""
    batches: tuple[SubBatch, ...] = ()
    num_preempted: int = 0
    first_tokens: tuple[RequestId, ...] = ()
    finished: tuple[RequestId, ...] = ()
    number: int = 0

    @property
    def ended_s(self) -> float:
        return self.started_s + self.seconds

    def computes(self, request_id: RequestId) -> bool:
        return any(request_id in batch.request_ids for batch in self.batches)


@dataclass(slots=True)
class RecentSteps:
    """Steps in, in their order; the latest of them out."""

    most: int = MOST_STEPS
    oldest_s: float = OLDEST_S
    _steps: deque[StepRecord] = field(init=False, default_factory=deque)

    def add(self, step: StepRecord) -> None:
        self._steps.append(step)
        self._forget(step.ended_s)

    def _forget(self, now_s: float) -> None:
        steps = self._steps
        while steps and (len(steps) > self.most or steps[0].ended_s < now_s - self.oldest_s):
            steps.popleft()

    def last(self, seconds: float | None, now_s: float) -> tuple[StepRecord, ...]:
        """Those that ended in so many seconds before now, the oldest first; None: all."""
        self._forget(now_s)
        since_s = now_s - (self.oldest_s if seconds is None else seconds)
        return tuple(step for step in self._steps if step.ended_s >= since_s)


def steps_of(steps: tuple[StepRecord, ...], request_id: RequestId) -> tuple[StepRecord, ...]:
    """From the first to the last that computed rows of the request: also those between, in which it
    had none."""
    own = list(_places(steps, request_id))
    return steps[own[0] : own[-1] + 1] if own else ()


def _places(steps: tuple[StepRecord, ...], request_id: RequestId) -> Iterator[int]:
    for place, step in zip(count(), steps, strict=False):
        if step.computes(request_id):
            yield place
