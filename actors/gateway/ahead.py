"""Waiting for the next item of a stream with a time limit, without losing the item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """An async generator that is read one item ahead, in a task of its own.

    `asyncio.wait_for(anext(stream), ...)` cancels the stream when time is up; this does not.
    Whoever makes one closes it, which closes the generator.
    """

    def __init__(self, source: AsyncGenerator[Item, None]) -> None:
        self._source = source
        self._next: asyncio.Task[Item] | None = None

    def __aiter__(self) -> Ahead[Item]:
        return self

    async def __anext__(self) -> Item:
        item = await self._pending()
        self._next = None
        return item

    async def arrives_within(self, seconds: float) -> bool:
        """True when the next item, or the end, can be taken at once. Raises the stream's error."""
        await asyncio.wait({self._pending()}, timeout=seconds)
        if not self._pending().done():
            return False
        error = self._pending().exception()
        if error is not None and not isinstance(error, StopAsyncIteration):
            raise error
        return True

    async def aclose(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                # Looked at, so that asyncio does not report it as forgotten.
                self._next.exception()
        await self._source.aclose()

    def _pending(self) -> asyncio.Task[Item]:
        if self._next is None:
            self._next = asyncio.create_task(self._step(), name="ahead")
        return self._next

    async def _step(self) -> Item:
        return await anext(self._source)
