"""One table from errors to gRPC and HTTP codes, and the way of an error over gRPC and back.

error -> code, message, google.rpc.Status(ErrorInfo, BadRequest, RetryInfo) in the trailers -> error
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from cluster import errors
from cluster.errors import ThothError, Unavailable
from protos.thoth.v1 import types_pb2

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "thoth"


@dataclass(frozen=True, slots=True)
class Code:
    """What an error is called on each edge. `kind` is the `type` of an OpenAI error object."""

    grpc: grpc.StatusCode
    http: int
    kind: str


CODES: dict[type[ThothError], Code] = {
    errors.InvalidArgument: Code(grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_request_error"),
    errors.NotFound: Code(grpc.StatusCode.NOT_FOUND, 404, "invalid_request_error"),
    errors.Unauthenticated: Code(grpc.StatusCode.UNAUTHENTICATED, 401, "authentication_error"),
    errors.PermissionDenied: Code(grpc.StatusCode.PERMISSION_DENIED, 403, "permission_error"),
    errors.TooLarge: Code(grpc.StatusCode.INVALID_ARGUMENT, 413, "invalid_request_error"),
    errors.Unsupported: Code(grpc.StatusCode.UNIMPLEMENTED, 400, "invalid_request_error"),
    errors.Refused: Code(grpc.StatusCode.FAILED_PRECONDITION, 400, "invalid_request_error"),
    errors.Overloaded: Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "rate_limit_error"),
    errors.Starting: Code(grpc.StatusCode.UNAVAILABLE, 503, "server_error"),
    errors.DeadlineExceeded: Code(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "timeout_error"),
    errors.Unavailable: Code(grpc.StatusCode.UNAVAILABLE, 503, "server_error"),
    errors.Lost: Code(grpc.StatusCode.ABORTED, 503, "server_error"),
    errors.InvariantBroken: Code(grpc.StatusCode.INTERNAL, 500, "server_error"),
}

# TooLarge shares its gRPC code with InvalidArgument, so the way back goes by reason.
_BY_REASON: dict[str, type[ThothError]] = {kind.reason: kind for kind in CODES}


def reason_of(error: ThothError) -> str:
    """The class name in upper snake case: INVALID_ARGUMENT, OVERLOADED."""
    return error.reason


# When a peer speaks no google.rpc.Status: the transport itself, or a proxy in between.
_BY_CODE: dict[grpc.StatusCode, type[ThothError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: errors.Lost,
    grpc.StatusCode.CANCELLED: errors.Lost,
    grpc.StatusCode.ABORTED: errors.Lost,
}


def code_of(error: ThothError) -> Code:
    """The row of the nearest class of the error's tree."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return CODES[errors.InvariantBroken]


def to_detail(error: ThothError, request_id: str = "") -> types_pb2.ErrorDetail:
    """The error as it stands inside a started stream."""
    return types_pb2.ErrorDetail(
        reason=reason_of(error),
        message=error.message,
        field=error.field,
        limit=error.limit,
        retry_after_s=error.retry_after_s if isinstance(error, Unavailable) else None,
        request_id=request_id,
    )


def from_detail(detail: types_pb2.ErrorDetail) -> ThothError:
    """The error of a stream's last event."""
    retry_after_s = detail.retry_after_s if detail.HasField("retry_after_s") else None
    error = _build(detail.reason, detail.message, retry_after_s)
    error.field, error.limit, error.request_id = detail.field, detail.limit, detail.request_id
    return error


def to_trailers(error: ThothError, request_id: str = "") -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata that carries the whole error as a google.rpc.Status."""
    info = error_details_pb2.ErrorInfo(
        reason=reason_of(error),
        domain=DOMAIN,
        metadata={"field": error.field, "limit": error.limit, "request_id": request_id},
    )
    details: list[object] = [info]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Unavailable):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = Status(code=code_of(error).grpc.value[0], message=error.message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)  # type: ignore[arg-type]
        status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)


def from_rpc_error(error: grpc.RpcError) -> ThothError:
    """The error a peer sent, or what the transport's own failure amounts to.

    A broken connection is `Lost`. Works for sync and aio errors, both of which are also calls.
    """
    code = error.code()
    message = error.details() or code.name
    for key, value in _pairs(error.trailing_metadata()):
        if key == DETAILS_KEY:
            return _from_status(Status.FromString(value))
    return _BY_CODE.get(code, errors.InvariantBroken)(message)


@contextmanager
def translated() -> Iterator[None]:
    """Around calls to a peer: what comes out is a `ThothError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None


def _pairs(metadata: Any) -> Iterator[tuple[str, Any]]:
    """Metadata is None, a tuple of pairs or a grpc.aio.Metadata; all but None iterate as pairs."""
    yield from metadata or ()


def _from_status(status: Status) -> ThothError:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    error = _build(info.reason, status.message, retry_after_s)
    said = dict(info.metadata)
    error.field, error.limit = said.get("field", ""), said.get("limit", "")
    error.request_id = said.get("request_id", "")
    return error


def _build(reason: str, message: str, retry_after_s: float | None) -> ThothError:
    kind = _BY_REASON.get(reason, errors.InvariantBroken)
    if issubclass(kind, Unavailable) and retry_after_s is not None:
        return kind(message, retry_after_s=retry_after_s)
    return kind(message)
