"""Several streams of tokens, read side by side, for one reader who takes his time.

Each stream is read by a task of its own as fast as it comes. What the reader has not taken yet is
joined, choice by choice: the first token is taken at once, and a reader who is slow gets fewer and
larger pieces, never an older one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from actors.gateway.generation import Ended, Tokens

Source = AsyncGenerator[Tokens | Ended, None]


class Gathering:
    """Yields (choice, event), the tokens of a choice before its end, until all streams ended.

    Whoever makes one closes it, which closes the streams. A stream's error is raised when what
    arrived before it has been taken; the other streams go on until it is closed.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._tokens: dict[int, Tokens] = {}
        self._ends: dict[int, Ended] = {}
        self._has_news = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._read(choice, source), name=f"choice {choice}")
            for choice, source in enumerate(sources)
        ]

    def __aiter__(self) -> Gathering:
        return self

    async def __anext__(self) -> tuple[int, Tokens | Ended]:
        while True:
            for arrived in (self._tokens, self._ends):
                if arrived:
                    choice = next(iter(arrived))
                    return choice, arrived.pop(choice)
            self._raise_failure()
            if all(task.done() for task in self._tasks):
                raise StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()

    async def arrives_within(self, seconds: float) -> bool:
        """True when there is an event to be taken, or none will come. Raises a stream's error."""
        try:
            async with asyncio.timeout(seconds):
                await self._has_news.wait()
        except TimeoutError:
            return False
        self._raise_failure()
        return True

    async def drop(self, choice: int) -> None:
        """Closes one stream; what arrived of it is gone."""
        task = self._tasks[choice]
        task.cancel()
        await asyncio.wait({task})
        self._tokens.pop(choice, None)
        self._ends.pop(choice, None)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        # Looked at, so that asyncio does not report a failure as forgotten.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, choice: int, source: Source) -> None:
        try:
            async with aclosing(source):
                async for event in source:
                    self._put(choice, event)
        finally:
            self._has_news.set()

    def _put(self, choice: int, event: Tokens | Ended) -> None:
        if isinstance(event, Tokens):
            waiting = self._tokens.get(choice)
            self._tokens[choice] = event if waiting is None else waiting.joined(event)
        else:
            self._ends[choice] = event
        self._has_news.set()

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
