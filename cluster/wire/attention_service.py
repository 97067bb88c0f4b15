"""Attention over the keys and values of engines on other hosts, by the worker of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from cluster.attention.server import AttentionServer
from cluster.wire.attention_relay import Relay
from cluster.wire.serving import CallContext, streaming
from protos.thoth.v1 import attention_pb2 as pb
from protos.thoth.v1 import attention_pb2_grpc


class AttentionServicer(attention_pb2_grpc.AttentionServiceServicer):
    """Each client may have `max_bytes` of blocks here. The server is the caller's, and outlives the
    streams."""

    def __init__(self, server: AttentionServer, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes
        # Streams that are open.
        self.num_clients = 0

    @streaming(lambda detail: pb.AttendResponse(failed=detail))
    async def Attend(
        self, requests: AsyncIterator[pb.AttendRequest], context: CallContext
    ) -> AsyncIterator[pb.AttendResponse]:
        """The relay waits, on a thread of its own, and takes the next request when the one before
        was answered: what the client sends meanwhile waits in the transport, which is bounded."""
        loop = asyncio.get_running_loop()
        relay = Relay(self._server, self._max_bytes)
        thread = ThreadPoolExecutor(1, "attention-relay")
        self.num_clients += 1
        try:
            async for request in requests:
                for response in await loop.run_in_executor(thread, relay.answers, request):
                    yield response
        finally:
            self.num_clients -= 1
            # Behind whatever the thread does now; a call may be cancelled again meanwhile.
            closed = asyncio.shield(loop.run_in_executor(thread, relay.close))
            thread.shutdown(wait=False)
            await closed
