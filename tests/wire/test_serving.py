"""A server notices clients that are gone without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import cast

import grpc
import pytest

from cluster.wire import serving
from cluster.wire.serving import CallContext, GrpcServer, streaming
from protos.thoth.v1 import attention_pb2 as pb
from protos.thoth.v1 import attention_pb2_grpc
from tests.attention.workers import PATIENCE_S


class Waiting(attention_pb2_grpc.AttentionServiceServicer):
    """Says one word, and listens until the stream ends."""

    def __init__(self) -> None:
        self.has_ended = asyncio.Event()

    async def Attend(
        self, requests: AsyncIterator[pb.AttendRequest], context: CallContext
    ) -> AsyncIterator[pb.AttendResponse]:
        try:
            yield pb.AttendResponse()
            async for _ in requests:
                pass
        finally:
            self.has_ended.set()


class Wire:
    """Between a client and a server, until it is cut: then both think that the other is silent."""

    def __init__(self, address: str) -> None:
        self.host, self.port = address.split(":")
        self.is_cut = False

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self.host, int(self.port))
        ways = [self.pump(reader, there_writer), self.pump(there_reader, writer)]
        await asyncio.gather(*ways)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(2**16):
                if not self.is_cut:
                    writer.write(content)
                    await writer.drain()
        writer.close()


async def test_a_client_whose_host_is_gone_does_not_hold_its_call_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "ASKED_AFTER_S", 1.0)
    monkeypatch.setattr(serving, "ASKED_FOR_S", 1.0)
    server, servicer = GrpcServer("127.0.0.1"), Waiting()
    server.add(attention_pb2_grpc.add_AttentionServiceServicer_to_server, servicer)
    wire = Wire(await server.start())
    between = await asyncio.start_server(wire.join, "127.0.0.1", 0)
    port = between.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = attention_pb2_grpc.AttentionServiceStub(channel).Attend()
        await call.read()
        assert not servicer.has_ended.is_set()
        wire.is_cut = True
        async with asyncio.timeout(PATIENCE_S):
            await servicer.has_ended.wait()
        call.cancel()
    await server.stop(0.0)
    between.close()


async def test_a_stream_that_is_given_up_has_ended_its_method() -> None:
    """And not only once it is collected: a method may hold what others wait for."""
    ended: list[object] = []

    async def says(servicer: object, request: object, _context: object) -> AsyncIterator[object]:
        try:
            yield servicer
            yield request
        finally:
            ended.append(request)

    call = streaming(lambda _: None)(says)
    stream = cast(AsyncGenerator[object], call("servicer", "request", None))
    assert await anext(stream) == "servicer"
    await stream.aclose()
    assert ended == ["request"]
