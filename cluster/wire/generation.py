"""Usage, timings and the worker's messages on the wire."""

from __future__ import annotations

from cluster.ids import RequestId
from cluster.request import FinishReason, Request, Sampling, Timings, Usage, WorkerLoad
from cluster.wire.sampling import sampling_from_pb, sampling_to_pb
from protos.thoth.v1 import types_pb2, worker_pb2

_REASONS: dict[FinishReason, types_pb2.FinishReason.ValueType] = {
    FinishReason.STOP: types_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: types_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: types_pb2.FINISH_REASON_CANCELLED,
    FinishReason.DEADLINE: types_pb2.FINISH_REASON_DEADLINE,
}
_REASONS_BACK = {value: reason for reason, value in _REASONS.items()}


def finish_reason_to_pb(reason: FinishReason) -> types_pb2.FinishReason.ValueType:
    return _REASONS[reason]


def finish_reason_from_pb(value: types_pb2.FinishReason.ValueType) -> FinishReason:
    return _REASONS_BACK[value]


def request_to_pb(request: Request, timeout_s: float) -> worker_pb2.GenerateRequest:
    return worker_pb2.GenerateRequest(
        request_id=request.id,
        segments=[worker_pb2.Segment(token_ids=ids) for ids in request.segments],
        sampling=sampling_to_pb(request.sampling),
        output_ids=request.output_ids,
        timeout_s=timeout_s,
    )


def request_from_pb(message: worker_pb2.GenerateRequest, now_s: float) -> Request:
    """The deadline is put on the receiver's clock, which stands at `now_s`."""
    return Request(
        id=RequestId(message.request_id),
        segments=tuple(tuple(segment.token_ids) for segment in message.segments),
        sampling=sampling_from_pb(message.sampling, Sampling()),
        deadline_s=now_s + message.timeout_s,
        output_ids=tuple(message.output_ids),
    )


def usage_to_pb(usage: Usage) -> types_pb2.Usage:
    return types_pb2.Usage(
        prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
    )


def usage_from_pb(message: types_pb2.Usage) -> Usage:
    return Usage(message.prompt_tokens, message.completion_tokens)


def timings_to_pb(timings: Timings) -> types_pb2.Timings:
    return types_pb2.Timings(
        queue_s=timings.queue_s,
        retrieval_s=timings.retrieval_s,
        prefill_s=timings.prefill_s,
        time_to_first_token_s=timings.time_to_first_token_s,
        total_s=timings.total_s,
    )


def timings_from_pb(message: types_pb2.Timings) -> Timings:
    return Timings(
        queue_s=message.queue_s,
        retrieval_s=message.retrieval_s,
        prefill_s=message.prefill_s,
        time_to_first_token_s=message.time_to_first_token_s,
        total_s=message.total_s,
    )


def load_to_pb(load: WorkerLoad) -> worker_pb2.WorkerLoad:
    return worker_pb2.WorkerLoad(
        num_running=load.num_running,
        num_waiting=load.num_waiting,
        prefill_tokens=load.prefill_tokens,
        num_blocks=load.num_blocks,
        num_free_blocks=load.num_free_blocks,
        max_waiting=load.max_waiting,
        max_running=load.max_running,
    )


def load_from_pb(message: worker_pb2.WorkerLoad) -> WorkerLoad:
    return WorkerLoad(
        num_running=message.num_running,
        num_waiting=message.num_waiting,
        prefill_tokens=message.prefill_tokens,
        num_blocks=message.num_blocks,
        num_free_blocks=message.num_free_blocks,
        max_waiting=message.max_waiting,
        max_running=message.max_running,
    )
