"""Usage, timings and the worker's messages on the wire."""

from __future__ import annotations

from itertools import takewhile, zip_longest

from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.request import (
    CachedTokens,
    FinishReason,
    Request,
    Sampling,
    SegmentSource,
    Timings,
    TokenIds,
    Usage,
    WorkerLoad,
)
from cluster.scheduling.plan import FirstToken
from cluster.wire.sampling import sampling_from_pb, sampling_to_pb
from protos.thoth.v1 import types_pb2, worker_pb2

MAX_SALT_BYTES = 64
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


def source_to_pb(source: SegmentSource) -> worker_pb2.SegmentSource:
    return worker_pb2.SegmentSource(
        collection=source.collection,
        document_id=source.document_id,
        chunk=source.chunk,
        version=source.version,
        salt=source.salt,
    )


def source_from_pb(message: worker_pb2.SegmentSource) -> SegmentSource:
    """Raises InvalidArgument for a salt that no key can be made with."""
    if len(message.salt) > MAX_SALT_BYTES:
        limit = f"at most {MAX_SALT_BYTES} bytes"
        raise InvalidArgument(
            f"a salt has {len(message.salt)} bytes; it may have {limit}", field="salt", limit=limit
        )
    return SegmentSource(
        collection=message.collection,
        document_id=message.document_id,
        chunk=message.chunk,
        version=message.version,
        salt=message.salt,
    )


def cached_to_pb(cached: CachedTokens) -> types_pb2.CachedTokens:
    return types_pb2.CachedTokens(device=cached.device, host=cached.host, disk=cached.disk)


def cached_from_pb(message: types_pb2.CachedTokens) -> CachedTokens:
    return CachedTokens(device=message.device, host=message.host, disk=message.disk)


def first_token_to_pb(first: FirstToken) -> worker_pb2.FirstToken:
    return worker_pb2.FirstToken(
        queue_s=first.queue_s,
        prefill_s=first.prefill_s,
        cached=cached_to_pb(first.cached),
        computed_tokens=first.num_computed,
    )


def request_to_pb(request: Request, timeout_s: float) -> worker_pb2.GenerateRequest:
    return worker_pb2.GenerateRequest(
        request_id=request.id,
        segments=[_segment(*pair) for pair in zip_longest(request.segments, request.sources)],
        sampling=sampling_to_pb(request.sampling),
        output_ids=request.output_ids,
        timeout_s=timeout_s,
        template=request.template,
    )


def _segment(ids: TokenIds, source: SegmentSource | None) -> worker_pb2.Segment:
    return worker_pb2.Segment(
        token_ids=ids, source=None if source is None else source_to_pb(source)
    )


def request_from_pb(message: worker_pb2.GenerateRequest, now_s: float) -> Request:
    """The deadline is put on the receiver's clock, which stands at `now_s`."""
    return Request(
        id=RequestId(message.request_id),
        segments=tuple(tuple(segment.token_ids) for segment in message.segments),
        sampling=sampling_from_pb(message.sampling, Sampling()),
        deadline_s=now_s + message.timeout_s,
        output_ids=tuple(message.output_ids),
        sources=tuple(
            source_from_pb(segment.source)
            for segment in takewhile(lambda segment: segment.HasField("source"), message.segments)
        ),
        template=message.template,
    )


def usage_to_pb(usage: Usage) -> types_pb2.Usage:
    return types_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached=cached_to_pb(usage.cached),
    )


def usage_from_pb(message: types_pb2.Usage) -> Usage:
    cached = cached_from_pb(message.cached)
    return Usage(message.prompt_tokens, message.completion_tokens, cached)


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
        num_cached_blocks=load.num_cached_blocks,
        max_waiting=load.max_waiting,
        max_running=load.max_running,
        num_evictable_blocks=load.num_evictable_blocks,
        num_host_blocks=load.num_host_blocks,
        num_lent_host_blocks=load.num_lent_host_blocks,
        num_on_host=load.num_on_host,
    )


def load_from_pb(message: worker_pb2.WorkerLoad) -> WorkerLoad:
    return WorkerLoad(
        num_running=message.num_running,
        num_waiting=message.num_waiting,
        prefill_tokens=message.prefill_tokens,
        num_blocks=message.num_blocks,
        num_free_blocks=message.num_free_blocks,
        num_cached_blocks=message.num_cached_blocks,
        max_waiting=message.max_waiting,
        max_running=message.max_running,
        num_evictable_blocks=message.num_evictable_blocks,
        num_host_blocks=message.num_host_blocks,
        num_lent_host_blocks=message.num_lent_host_blocks,
        num_on_host=message.num_on_host,
    )
