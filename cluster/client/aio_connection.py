"""A `grpc.aio` channel with deadlines, retries and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import grpc

from cluster.client.calls import StreamReader, to_proofs
from cluster.client.policy import (
    CHANNEL_OPTIONS,
    Attempts,
    RetryPolicy,
    Target,
    transport_timeout_s,
)
from cluster.clock import MonotonicClock
from cluster.errors import ThothError
from cluster.wire.answers import Answer, Finished, StreamEvent
from cluster.wire.proofs import ProofEvent, Proofs
from cluster.wire.requests import Call

Reply = TypeVar("Reply")
StreamCall: TypeAlias = "grpc.aio.UnaryStreamCall[bytes, StreamEvent | ThothError]"


class AsyncConnection:
    """One gateway, as many calls as one likes, all from one event loop."""

    def __init__(self, target: Target, timeout_s: float, retries: RetryPolicy) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._retries = retries
        # A channel belongs to the loop it is made in, and a client may be made before the loop.
        self._opened: grpc.aio.Channel | None = None

    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            self._opened = grpc.aio.insecure_channel(self.target.endpoint, options=CHANNEL_OPTIONS)
        return self._opened

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def attempts(self, timeout_s: float) -> Attempts:
        return Attempts(self._retries, timeout_s, MonotonicClock(), Random())

    async def run(self, call: Call[Reply], timeout_s: float | None = None) -> Reply:
        """Makes a unary call until it is answered, refused or out of time."""
        attempts = self.attempts(timeout_s or self.timeout_s)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, Reply] = self._channel().unary_unary(
            call.method, response_deserializer=call.read
        )
        while True:
            left_s = attempts.remaining_s()
            metadata = self.target.metadata(left_s)
            try:
                return await method(
                    call.request, timeout=transport_timeout_s(left_s), metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                failure = self.target.explain(error)
            await asyncio.sleep(attempts.pause_s(failure))

    async def collect(self, call: Call[ProofEvent], timeout_s: float) -> Proofs:
        """Reads outcomes to their end, from the beginning again where one try did not come there:
        nobody has seen a part of them."""
        attempts = self.attempts(timeout_s)
        while True:
            try:
                return to_proofs(await self._read_all(call, attempts.remaining_s()))
            except ThothError as error:
                failure = error
            await asyncio.sleep(attempts.pause_s(failure))

    async def _read_all(self, call: Call[ProofEvent], left_s: float) -> list[ProofEvent]:
        """Every event; what the transport fails with is the last."""
        running, events = self.open(call, left_s), list[ProofEvent]()
        try:
            async for event in running:
                events.append(event)
        except grpc.aio.AioRpcError as error:
            if not events or not isinstance(events[-1], ThothError):
                events.append(self.target.explain(error))
        finally:
            running.cancel()
        return events

    def open(self, call: Call[Reply], left_s: float) -> grpc.aio.UnaryStreamCall[bytes, Reply]:
        """Starts a streaming call, once."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, Reply]
        method = self._channel().unary_stream(call.method, response_deserializer=call.read)
        return method(
            call.request, timeout=transport_timeout_s(left_s), metadata=self.target.metadata(left_s)
        )


class AsyncStream:
    """An answer as it is written: `async with client.stream(...) as stream: async for event ...`

    Entering waits for the first event, retrying until it is there. Leaving early cancels the call,
    and the cluster stops working on it. After the last event `answer()` has all of it.
    """

    def __init__(
        self, connection: AsyncConnection, call: Call[StreamEvent | ThothError], timeout_s: float
    ) -> None:
        self._connection = connection
        self._call = call
        self._attempts = connection.attempts(timeout_s)
        self._reader = StreamReader()
        self._running: StreamCall | None = None
        self._events: AsyncIterator[StreamEvent] = _no_events()

    async def __aenter__(self) -> Self:
        while True:
            try:
                self._events = await self._open()
                return self
            except ThothError as error:
                self.close()
                failure = error
            await asyncio.sleep(self._attempts.pause_s(failure))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self._events

    def close(self) -> None:
        """Cancels what still runs; a stream that was closed has no more events."""
        self._events = _no_events()
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def answer(self) -> Answer:
        """The whole answer, once the stream was read to its end. Raises Refused before."""
        return self._reader.answer()

    async def _open(self) -> AsyncIterator[StreamEvent]:
        """All events, the first of which has arrived."""
        running = self._connection.open(self._call, self._attempts.remaining_s())
        self._running = running
        return self._follow(running, await self._next(running))

    async def _follow(self, running: StreamCall, first: StreamEvent) -> AsyncIterator[StreamEvent]:
        event = first
        yield event
        while not isinstance(event, Finished):
            event = await self._next(running)
            yield event
        # The call itself ends now; cancelling it instead would look like a caller who left.
        with suppress(grpc.aio.AioRpcError):
            await running.read()

    async def _next(self, running: StreamCall) -> StreamEvent:
        try:
            event = await running.read()
        except grpc.aio.AioRpcError as error:
            raise self._connection.target.explain(error) from None
        if isinstance(event, StreamEvent | ThothError):
            return self._reader.read(event)
        raise self._reader.ended()


async def _no_events() -> AsyncIterator[StreamEvent]:
    nothing: tuple[StreamEvent, ...] = ()
    for event in nothing:
        yield event
