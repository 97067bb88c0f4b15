"""The client's end of a stream to an attention worker: one thread's, with another that reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

import grpc

from cluster.errors import Lost, ThothError
from cluster.wire.serving import MESSAGE_OPTIONS
from cluster.wire.status import from_detail, from_rpc_error
from protos.thoth.v1 import attention_pb2 as pb
from protos.thoth.v1 import attention_pb2_grpc

# A connection of its own: one that failed before tells nothing about it.
_OPTIONS = (*MESSAGE_OPTIONS, ("grpc.use_local_subchannel_pool", 1))


class AttentionStream:
    """Connects when it is made; nothing is awaited but by `receive`."""

    def __init__(self, address: str) -> None:
        self._requests: SimpleQueue[Callable[[], pb.AttendRequest] | None] = SimpleQueue()
        self._arrived: SimpleQueue[pb.AttendResponse | ThothError] = SimpleQueue()
        # When a request last began its way: the one before was on it until then.
        self._moved_s = 0.0
        self._has_ended = False
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        stub = attention_pb2_grpc.AttentionServiceStub(self._channel)
        self._call = stub.Attend(self._outgoing())
        self._reader = threading.Thread(target=self._read, name="attention-stream", daemon=True)
        self._reader.start()

    @property
    def has_ended(self) -> bool:
        """Nothing more comes, beyond what has arrived."""
        return self._has_ended

    def send(self, request: Callable[[], pb.AttendRequest]) -> None:
        """After all that was sent before. The request is made by another thread, when its turn has
        come, so that one waits as a message and the others as nothing much."""
        self._requests.put(request)

    def receive(self, since_s: float, timeout_s: float) -> pb.AttendResponse:
        """The next response. Raises the error that the stream ended with, and Lost when for
        `timeout_s` after `since_s`, of the monotonic clock, none came and no request left."""
        while True:
            until = max(since_s, self._moved_s) + timeout_s
            left = until - time.monotonic()
            try:
                arrived = self._arrived.get(timeout=max(0.0, left))
            except Empty:
                if self._moved_s + timeout_s > until:
                    continue
                raise Lost("the attention worker gave no answer in time") from None
            if isinstance(arrived, ThothError):
                raise arrived
            if arrived.WhichOneof("event") == "failed":
                raise from_detail(arrived.failed)
            return arrived

    def close(self) -> None:
        """More than once, if need be."""
        self._requests.put(None)
        self._call.cancel()
        self._channel.close()
        self._reader.join()

    def _outgoing(self) -> Iterator[pb.AttendRequest]:
        while (request := self._requests.get()) is not None:
            self._moved_s = time.monotonic()
            yield request()

    def _read(self) -> None:
        error: ThothError = Lost("the attention worker ended the stream")
        try:
            for response in self._call:
                self._arrived.put(response)
        except grpc.RpcError as broken:
            error = from_rpc_error(broken)
        self._has_ended = True
        self._arrived.put(error)
