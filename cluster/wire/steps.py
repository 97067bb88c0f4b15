"""The steps that a worker remembers, on the wire and back. A request is named once and then counted
by its place: a step has many, and they stay for many steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.ids import RequestId
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.steps import StepRecord, SubBatch
from protos.thoth.v1 import worker_pb2


class _Places:
    """Request ids by the order in which they are first asked for."""

    def __init__(self) -> None:
        self.places: dict[RequestId, int] = {}

    def of(self, request_ids: Iterable[RequestId]) -> list[int]:
        return [self.places.setdefault(each, len(self.places)) for each in request_ids]


def steps_to_pb(steps: Iterable[StepRecord], now_s: float) -> worker_pb2.DescribeStepsResponse:
    places = _Places()
    made = [_step_to_pb(step, places) for step in steps]
    return worker_pb2.DescribeStepsResponse(steps=made, request_ids=places.places, now_s=now_s)


def steps_from_pb(message: worker_pb2.DescribeStepsResponse) -> tuple[StepRecord, ...]:
    request_ids = [RequestId(each) for each in message.request_ids]
    return tuple(_step_from_pb(step, request_ids) for step in message.steps)


def _step_to_pb(step: StepRecord, places: _Places) -> worker_pb2.StepRecord:
    return worker_pb2.StepRecord(
        number=step.number,
        started_s=step.started_s,
        seconds=step.seconds,
        decide_s=step.decide_s,
        draw_s=step.draw_s,
        kind=str(step.kind),
        predicted_s=step.predicted_s,
        said=step.said,
        batches=[_batch_to_pb(batch, places) for batch in step.batches],
        num_preempted=step.num_preempted,
        first_tokens=places.of(step.first_tokens),
        finished=places.of(step.finished),
    )


def _step_from_pb(message: worker_pb2.StepRecord, request_ids: Sequence[RequestId]) -> StepRecord:
    return StepRecord(
        number=message.number,
        started_s=message.started_s,
        seconds=message.seconds,
        decide_s=message.decide_s,
        draw_s=message.draw_s,
        kind=PlanKind(message.kind),
        predicted_s=message.predicted_s,
        said=message.said,
        batches=tuple(_batch_from_pb(batch, request_ids) for batch in message.batches),
        num_preempted=message.num_preempted,
        first_tokens=tuple(request_ids[place] for place in message.first_tokens),
        finished=tuple(request_ids[place] for place in message.finished),
    )


def _batch_to_pb(batch: SubBatch, places: _Places) -> worker_pb2.SubBatch:
    work = batch.work
    return worker_pb2.SubBatch(
        requests=places.of(batch.request_ids),
        work=worker_pb2.StepWork(
            rows=work.rows,
            prefill_keys=work.prefill_keys,
            device_tokens=work.device_tokens,
            host_rows=work.host_rows,
            host_tokens=work.host_tokens,
            streamed_rows=work.streamed_rows,
            drawn=work.drawn,
        ),
        predicted=_stages_to_pb(batch.predicted),
        measured=None if batch.measured is None else _stages_to_pb(batch.measured),
    )


def _batch_from_pb(message: worker_pb2.SubBatch, request_ids: Sequence[RequestId]) -> SubBatch:
    work = message.work
    return SubBatch(
        request_ids=tuple(request_ids[place] for place in message.requests),
        work=Work(
            work.rows,
            work.prefill_keys,
            work.device_tokens,
            work.host_rows,
            work.host_tokens,
            work.streamed_rows,
            work.drawn,
        ),
        predicted=_stages_from_pb(message.predicted),
        measured=_stages_from_pb(message.measured) if message.HasField("measured") else None,
    )


def _stages_to_pb(times: StageTimes) -> worker_pb2.StageSeconds:
    return worker_pb2.StageSeconds(
        linear_s=times.linear_s,
        device_s=times.device_s,
        host_s=times.host_s,
        waited_s=times.waited_s,
        exchange_s=times.exchange_s,
    )


def _stages_from_pb(message: worker_pb2.StageSeconds) -> StageTimes:
    return StageTimes(
        message.linear_s, message.device_s, message.host_s, message.waited_s, message.exchange_s
    )
