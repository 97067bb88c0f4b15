"""A body's gRPC server, and how the errors of its methods leave it.

The decorators work on `grpc.aio` contexts and on the contexts that Ray Serve hands to a replica:
both know `set_code`, `set_details` and `set_trailing_metadata`. No exception leaves a method: a
unary method sets the code and returns an empty message, a stream yields one last error event first.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from cluster.errors import InvariantBroken, ThothError
from cluster.wire.status import code_of, to_detail, to_trailers
from protos.thoth.v1 import types_pb2

log = logging.getLogger(__name__)

# Largest message a body accepts or sends; documents are bounded below it.
MAX_MESSAGE_BYTES = 32 * 2**20
MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
# A client whose host is gone says nothing: it is asked, and its calls end when it does not answer.
ASKED_AFTER_S = 30.0
ASKED_FOR_S = 20.0

Response = TypeVar("Response")


class CallContext(Protocol):
    """What a method may ask of a call, whoever serves it."""

    def invocation_metadata(self) -> Any: ...
    def peer(self) -> str: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


def refuse(context: CallContext, error: ThothError) -> None:
    """Ends the call with the error's code, message and google.rpc.Status trailers."""
    context.set_code(code_of(error).grpc)
    context.set_details(error.message)
    # A list: the context of Ray Serve puts its own pairs before ours with `+`.
    context.set_trailing_metadata(list(to_trailers(error, error.request_id)))


def _ours(error: Exception, method: str) -> ThothError:
    if isinstance(error, ThothError):
        return error
    log.exception("unforeseen failure in %s", method)
    return InvariantBroken(f"internal error in {method}")


def unary(
    response_type: type[Response],
) -> Callable[[Callable[..., Awaitable[Response]]], Callable[..., Awaitable[Response]]]:
    """A unary method that may raise `ThothError`."""

    def decorate(method: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        @functools.wraps(method)
        async def call(self: Any, request: Any, context: CallContext) -> Response:
            try:
                return await method(self, request, context)
            except Exception as error:
                refuse(context, _ours(error, method.__name__))
                return response_type()

        return call

    return decorate


def streaming(
    error_event: Callable[[types_pb2.ErrorDetail], Any],
) -> Callable[[Callable[..., AsyncIterator[Response]]], Callable[..., AsyncIterator[Response]]]:
    """A stream that may raise `ThothError`; `error_event` wraps it as the last message, or gives
    None where the contract has no such message and the status must do."""

    def decorate(
        method: Callable[..., AsyncIterator[Response]],
    ) -> Callable[..., AsyncIterator[Response]]:
        @functools.wraps(method)
        async def call(self: Any, request: Any, context: CallContext) -> AsyncIterator[Response]:
            try:
                stream = cast(AsyncGenerator[Response], method(self, request, context))
                async with aclosing(stream):  # at once, whoever holds on to it
                    async for response in stream:
                        yield response
            except Exception as error:
                known = _ours(error, method.__name__)
                # First: behind Ray Serve the code travels with the last message.
                refuse(context, known)
                last = error_event(to_detail(known, known.request_id))
                if last is not None:
                    yield last

        return call

    return decorate


def _server_options() -> list[tuple[str, int]]:
    return [
        *MESSAGE_OPTIONS,
        ("grpc.keepalive_time_ms", int(ASKED_AFTER_S * 1e3)),
        ("grpc.http2.ping_timeout_ms", int(ASKED_FOR_S * 1e3)),
        # However long nothing else is sent.
        ("grpc.http2.max_pings_without_data", 0),
    ]


class GrpcServer:
    """A `grpc.aio` server with the standard health service; port 0 takes a free one."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._server = grpc.aio.server(options=_server_options())
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._host = host
        self._port = port
        self.address = ""

    def add(self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Registers a servicer with its generated `add_...Servicer_to_server`."""
        add_to_server(servicer, self._server)

    async def start(self) -> str:
        """Binds and serves; returns `host:port`. Raises RuntimeError when the port is taken."""
        port = self._server.add_insecure_port(f"{self._host}:{self._port}")
        await self._server.start()
        self.address = f"{self._host}:{port}"
        await self.set_serving(True)
        return self.address

    async def set_serving(self, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set("", status.SERVING if is_serving else status.NOT_SERVING)

    async def stop(self, grace_s: float = 2.0) -> None:
        """Stops accepting; running calls get `grace_s` to end."""
        await self._server.stop(grace_s)
