"""Steps as a Chrome trace: the JSON that chrome://tracing and ui.perfetto.dev open.

    engine    | step 17                                                   | step 18 ..
              | deciding |                                      | drawing |
    device               | sub-batch 0             | sub-batch 1 |
                         | linear | attention | waiting | linear | ..
    host                 | attention of 0 | attention of 1 |
    requests  |<- from its first row that is remembered to its last --------------------- ..

Of a step it is known when it began, how long it took, and of each stage the sum over the layers:
how long, and not when. Stages are therefore laid end to end from where the sub-batches began,
though in truth they alternate layer by layer. Widths are measured, positions inside a step are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum

from cluster.ids import RequestId
from cluster.telemetry.steps import StepRecord, SubBatch

Event = dict[str, object]

LAYOUT = (
    "Inside a step, positions are not measured: each stage is the sum over all layers, and the "
    "stages are laid end to end, though they alternate layer by layer."
)
SUMS = "sums over the layers, laid end to end"


class Lane(IntEnum):
    """Thread ids of the trace."""

    ENGINE = 1
    DEVICE = 2
    HOST = 3
    REQUESTS = 4


@dataclass(frozen=True, slots=True)
class WorkerSteps:
    """What a worker remembered when its clock said `now_s`."""

    worker: str
    steps: tuple[StepRecord, ...]
    now_s: float


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a lane, in seconds on the worker's clock."""

    lane: Lane
    name: str
    start_s: float
    end_s: float
    args: Mapping[str, object] = field(default_factory=dict)


def chrome_trace(
    workers: Sequence[WorkerSteps], request_id: RequestId | None = None
) -> dict[str, object]:
    """All workers on one axis, which begins with the oldest step: their clocks are brought together
    at the moments when they answered. With `request_id` only that request is drawn beside the
    steps."""
    begins = [step.started_s - each.now_s for each in workers for step in each.steps[:1]]
    zero_s = min(begins, default=0.0)
    events = [
        event
        for pid, each in enumerate(workers, start=1)
        for event in _Page(pid, each, each.now_s + zero_s).events(request_id)
    ]
    said = {"layout": LAYOUT, "workers": [each.worker for each in workers]}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": said}


@dataclass(frozen=True, slots=True)
class _Page:
    """A worker's part of the trace; `zero_s` on its clock is where the axis begins."""

    pid: int
    worker: WorkerSteps
    zero_s: float

    def events(self, request_id: RequestId | None) -> Iterator[Event]:
        yield self._named("process_name", Lane.ENGINE, self.worker.worker)
        for lane in Lane:
            yield self._named("thread_name", lane, lane.name.lower())
        for step in self.worker.steps:
            for part in slices(step):
                yield self._complete(part, step.ended_s)
        for span in spans(self.worker.steps):
            if request_id in {None, span.request_id}:
                yield from self._span(span, is_alone=request_id is not None)

    def _named(self, what: str, lane: Lane, name: str) -> Event:
        return self._event("M", what, lane, self.zero_s) | {"args": {"name": name}}

    def _complete(self, part: Slice, end_s: float) -> Event:
        """Whole nanoseconds, so that what lies inside a step does so after rounding as well."""
        start, end = self._ns(part.start_s), self._ns(min(part.end_s, end_s))
        made = self._event("X", part.name, part.lane, part.start_s)
        return made | {"dur": max(0, end - start) / 1e3, "args": dict(part.args)}

    def _span(self, span: Span, is_alone: bool) -> Iterator[Event]:
        yield self._async("b", span, span.request_id, span.start_s)
        for at_s in span.first_tokens_s:
            yield self._async("n", span, "first token", at_s)
        for step in span.steps if is_alone else ():
            yield self._async("b", span, f"rows in step {step.number}", step.started_s)
            yield self._async("e", span, f"rows in step {step.number}", step.ended_s)
        args = {"steps": len(span.steps), "has_ended": span.has_ended}
        yield self._async("e", span, span.request_id, span.end_s) | {"args": args}

    def _async(self, phase: str, span: Span, name: str, at_s: float) -> Event:
        said = {"cat": "request", "id": f"{self.worker.worker}/{span.request_id}"}
        return self._event(phase, name, Lane.REQUESTS, at_s) | said

    def _event(self, phase: str, name: str, lane: Lane, at_s: float) -> Event:
        where = {"pid": self.pid, "tid": int(lane)}
        return {"ph": phase, "name": name, "ts": self._ns(at_s) / 1e3, **where}

    def _ns(self, at_s: float) -> int:
        return max(0, round((at_s - self.zero_s) * 1e9))


def slices(step: StepRecord) -> Iterator[Slice]:
    """Parents before what lies in them."""
    begun_s = step.started_s + step.decide_s
    drawn_s = max(begun_s, step.ended_s - step.draw_s)
    yield Slice(Lane.ENGINE, f"step {step.number}", step.started_s, step.ended_s, _facts(step))
    yield Slice(Lane.ENGINE, "deciding", step.started_s, begun_s, {"seconds": step.decide_s})
    if any(batch.measured is None for batch in step.batches):
        said = {"seconds": drawn_s - begun_s, "layout": "the clock sees no stages of this device"}
        yield Slice(Lane.DEVICE, "computing", begun_s, drawn_s, said)
    else:
        yield from _on_device(step.batches, begun_s)
        yield from _on_host(step.batches, begun_s)
    yield Slice(Lane.ENGINE, "drawing", drawn_s, step.ended_s, {"seconds": step.draw_s})


def _facts(step: StepRecord) -> dict[str, object]:
    facts: dict[str, object] = {
        "kind": str(step.kind),
        "measured_s": step.seconds,
        "predicted_s": step.predicted_s or None,
        "said": step.said,
        "rows": sum(batch.work.rows for batch in step.batches),
        "requests": sum(len(batch.request_ids) for batch in step.batches),
    }
    if step.num_preempted:
        facts["preempted"] = step.num_preempted
    if step.finished:
        facts["finished"] = list(step.finished)
    return facts


def _on_device(batches: Iterable[SubBatch], start_s: float) -> Iterator[Slice]:
    for index, batch in enumerate(batches):
        stages = (
            ("linear", "linear_s"),
            ("attention", "device_s"),
            ("exchange", "exchange_s"),
            ("waiting", "waited_s"),
        )
        parts = list(_end_to_end(Lane.DEVICE, stages, batch, start_s))
        end_s = parts[-1].end_s if parts else start_s
        yield Slice(Lane.DEVICE, f"sub-batch {index}", start_s, end_s, _work(batch))
        yield from parts
        start_s = end_s


def _on_host(batches: Iterable[SubBatch], start_s: float) -> Iterator[Slice]:
    for index, batch in enumerate(batches):
        stages = ((f"attention of {index}", "host_s"),)
        for part in _end_to_end(Lane.HOST, stages, batch, start_s):
            yield part
            start_s = part.end_s


def _work(batch: SubBatch) -> dict[str, object]:
    return {"requests": list(batch.request_ids), **asdict(batch.work), "layout": SUMS}


def _end_to_end(
    lane: Lane, stages: Iterable[tuple[str, str]], batch: SubBatch, start_s: float
) -> Iterator[Slice]:
    """Those stages, by name and field, that took any time."""
    for name, which in stages:
        seconds: float = getattr(batch.measured, which)
        said = {"seconds": seconds, "predicted_s": getattr(batch.predicted, which)}
        if seconds:
            yield Slice(lane, name, start_s, start_s + seconds, said)
            start_s += seconds


@dataclass(slots=True)
class Span:
    """A request over the steps that computed its rows."""

    request_id: RequestId
    steps: list[StepRecord]
    first_tokens_s: list[float] = field(default_factory=list)
    has_ended: bool = False

    @property
    def start_s(self) -> float:
        return self.steps[0].started_s

    @property
    def end_s(self) -> float:
        return self.steps[-1].ended_s


def spans(steps: Iterable[StepRecord]) -> Iterator[Span]:
    """In the order of their first steps."""
    found: dict[RequestId, Span] = {}
    for step in steps:
        for request_id in (each for batch in step.batches for each in batch.request_ids):
            found.setdefault(request_id, Span(request_id, [])).steps.append(step)
        for request_id in step.first_tokens:
            if request_id in found:
                found[request_id].first_tokens_s.append(step.ended_s)
        for request_id in step.finished:
            if request_id in found:
                found[request_id].has_ended = True
    yield from found.values()
