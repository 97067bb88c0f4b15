"""A sync channel with deadlines, retries and typed errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Protocol, Self, TypeVar

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
Event_co = TypeVar("Event_co", covariant=True)

CLOSE_S = 2.0


class RunningCall(Protocol[Event_co]):
    """A streaming call as the grpc package returns it."""

    def __iter__(self) -> Iterator[Event_co]: ...
    def __next__(self) -> Event_co: ...
    def cancel(self) -> object: ...


class Connection:
    """One gateway, as many calls as one likes."""

    def __init__(self, target: Target, timeout_s: float, retries: RetryPolicy) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._retries = retries
        self._channel = grpc.insecure_channel(target.endpoint, options=CHANNEL_OPTIONS)

    def close(self) -> None:
        """Within `CLOSE_S`: grpc waits for every call to end, and one that Ctrl+C met as it was
        being opened has nobody left to end it."""
        closing = threading.Thread(target=self._channel.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def attempts(self, timeout_s: float) -> Attempts:
        return Attempts(self._retries, timeout_s, MonotonicClock(), Random())

    def run(self, call: Call[Reply], timeout_s: float | None = None) -> Reply:
        """Makes a unary call until it is answered, refused or out of time."""
        attempts = self.attempts(timeout_s or self.timeout_s)
        method: grpc.UnaryUnaryMultiCallable[bytes, Reply] = self._channel.unary_unary(
            call.method, response_deserializer=call.read
        )
        while True:
            left_s = attempts.remaining_s()
            metadata = self.target.metadata(left_s)
            try:
                return method(call.request, timeout=transport_timeout_s(left_s), metadata=metadata)
            except grpc.RpcError as error:
                failure = self.target.explain(error)
            time.sleep(attempts.pause_s(failure))

    def collect(self, call: Call[ProofEvent], timeout_s: float) -> Proofs:
        """Reads outcomes to their end, from the beginning again where one try did not come there:
        nobody has seen a part of them."""
        attempts = self.attempts(timeout_s)
        while True:
            try:
                return to_proofs(self._read_all(call, attempts.remaining_s()))
            except ThothError as error:
                failure = error
            time.sleep(attempts.pause_s(failure))

    def _read_all(self, call: Call[ProofEvent], left_s: float) -> list[ProofEvent]:
        """Every event; what the transport fails with is the last."""
        running, events = self.open(call, left_s), list[ProofEvent]()
        try:
            events.extend(running)
        except grpc.RpcError as error:
            # It is the call itself: see `Stream._read`.
            error.__traceback__ = None
            if not events or not isinstance(events[-1], ThothError):
                events.append(self.target.explain(error))
        finally:
            running.cancel()
        return events

    def open(self, call: Call[Reply], left_s: float) -> RunningCall[Reply]:
        """Starts a streaming call, once."""
        method: grpc.UnaryStreamMultiCallable[bytes, Reply]
        method = self._channel.unary_stream(call.method, response_deserializer=call.read)
        return method(
            call.request, timeout=transport_timeout_s(left_s), metadata=self.target.metadata(left_s)
        )


class Stream:
    """An answer as it is written: `with client.stream(...) as stream: for event in stream: ...`

    Entering waits for the first event, retrying until it is there. Leaving early cancels the call,
    and the cluster stops working on it. After the last event `answer()` has all of it.
    """

    def __init__(
        self, connection: Connection, call: Call[StreamEvent | ThothError], timeout_s: float
    ) -> None:
        self._connection = connection
        self._call = call
        self._attempts = connection.attempts(timeout_s)
        self._reader = StreamReader()
        self._running: RunningCall[StreamEvent | ThothError] | None = None
        self._events: Iterator[StreamEvent] = iter(())

    def __enter__(self) -> Self:
        while True:
            try:
                self._events = self._open()
                return self
            except ThothError as error:
                self.close()
                failure = error
            time.sleep(self._attempts.pause_s(failure))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    def close(self) -> None:
        """Cancels what still runs; a stream that was closed has no more events."""
        self._events = iter(())
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def answer(self) -> Answer:
        """The whole answer, once the stream was read to its end. Raises Refused before."""
        return self._reader.answer()

    def _open(self) -> Iterator[StreamEvent]:
        """All events, the first of which has arrived."""
        self._running = self._connection.open(self._call, self._attempts.remaining_s())
        return self._follow(self._next())

    def _follow(self, first: StreamEvent) -> Iterator[StreamEvent]:
        event = first
        yield event
        while not isinstance(event, Finished):
            event = self._next()
            yield event
        # The call itself ends now; cancelling it instead would look like a caller who left.
        self._read()

    def _next(self) -> StreamEvent:
        return self._reader.read(self._read())

    def _read(self) -> StreamEvent | ThothError:
        # The call is only ever named by `self`, and its own error (which it is itself) is stripped
        # of the frames it went through: left in a cycle it would live until the interpreter ends,
        # where its finalizer can wait for ever.
        if self._running is None:
            return self._reader.ended()
        try:
            event = next(self._running, None)
        except grpc.RpcError as error:
            error.__traceback__ = None
            return self._connection.target.explain(error)
        return self._reader.ended() if event is None else event
