"""Bodies in and event streams out, watching all the while whether the client is still there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from actors.gateway.ahead import Ahead
from cluster.errors import DeadlineExceeded, InvalidArgument, TooLarge

Result = TypeVar("Result")

KEEP_ALIVE_S = 15.0
DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_BODY_TIMEOUT_S = 60.0
# Of a body that is too large, so many times the limit are read, and not kept, before we hang up.
_DISCARDED = 16


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, having held no more than `max_bytes` of it.

    A client that is still sending when the connection is closed never sees the refusal: what comes
    after the limit is thrown away for a while, unless the client waits to be told to send.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal():
        raise InvalidArgument("content-length is no number", field="content-length", limit="bytes")
    if int(announced) > max_bytes and "expect" in request.headers:
        raise _too_large(int(announced), max_bytes)
    body, num_bytes = bytearray(), 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.stream():
                num_bytes += len(part)
                if num_bytes <= max_bytes:
                    body += part
                elif num_bytes > _DISCARDED * max_bytes:
                    break
    except TimeoutError:
        raise DeadlineExceeded(
            f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} s", field="body"
        ) from None
    if num_bytes > max_bytes:
        raise _too_large(max(num_bytes, int(announced)), max_bytes)
    return bytes(body)


def _too_large(num_bytes: int, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"the body has {num_bytes} bytes or more, {max_bytes} are allowed",
        field="body",
        limit=f"at most {max_bytes} bytes (gateway.max_body_bytes)",
    )


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes away: then ClientDisconnect.

    The request's body has been read before.
    """
    working = asyncio.create_task(work, name="answer")
    watching = asyncio.create_task(_disconnected(receive), name="disconnect")
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def frame(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


class EventStream(Response):
    """Server-sent events as they come; silence is broken by comments every `KEEP_ALIVE_S`.

    It owns `frames`, of which `first` was taken: they are closed with the stream.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, frames: Ahead[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            with suppress(ClientDisconnect):
                await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send(_more(self._first))
        while True:
            if not await self._frames.arrives_within(KEEP_ALIVE_S):
                await send(_more(_KEEP_ALIVE))
                continue
            try:
                await send(_more(await anext(self._frames)))
            except StopAsyncIteration:
                break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _more(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}
