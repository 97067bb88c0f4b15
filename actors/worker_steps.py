"""What a gpu_worker remembers of its steps, and tells to whoever asks."""

from __future__ import annotations

from cluster.engine.engine import StepReport
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.telemetry.steps import RecentSteps, StepRecord, SubBatch, steps_of
from protos.thoth.v1 import worker_pb2


class WorkerSteps:
    """The last steps, each as a small record."""

    def __init__(self) -> None:
        self._recent = RecentSteps()
        self._num_steps = 0

    def stepped(self, report: StepReport) -> None:
        self._num_steps += 1
        self._recent.add(record_of(report, self._num_steps))

    def asked(
        self, request: worker_pb2.DescribeStepsRequest, now_s: float
    ) -> tuple[StepRecord, ...]:
        """Raises InvalidArgument for a time that is none."""
        seconds = request.seconds if request.HasField("seconds") else None
        if seconds is not None and not seconds > 0.0:
            raise InvalidArgument(f"seconds is {seconds}", field="seconds", limit="more than 0")
        steps = self._recent.last(seconds, now_s)
        return steps_of(steps, RequestId(request.request_id)) if request.request_id else steps


def record_of(report: StepReport, number: int) -> StepRecord:
    why = report.why
    measured = report.times or (None,) * len(report.request_ids)
    parts = zip(report.request_ids, why.works, why.times, measured, strict=True)
    return StepRecord(
        started_s=report.begun_s - report.decide_s,
        seconds=report.seconds,
        decide_s=report.decide_s,
        draw_s=report.draw_s,
        kind=why.kind,
        predicted_s=why.seconds,
        said=why.said,
        batches=tuple(SubBatch(*part) for part in parts),
        num_preempted=report.num_preempted,
        first_tokens=tuple(first.request_id for first in report.first_tokens),
        finished=tuple(end.request_id for end in report.finished),
        number=number,
    )
