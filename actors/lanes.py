"""A thread of one's own for work that would block the event loop, with a queue that has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cluster.errors import Overloaded

Result = TypeVar("Result")


class Lane:
    """One thread: what is given to it runs in order, one at a time."""

    def __init__(self, name: str, max_waiting: int) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self._num_pending = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises. Raises Overloaded when too much waits already.

        Work that was begun goes on when the caller is cancelled; work that was not is dropped.
        """
        if self._num_pending > self._max_waiting:
            raise Overloaded(
                f"{self._name} has {self._num_pending - 1} calls waiting, at most "
                f"{self._max_waiting} may",
                limit=f"at most {self._max_waiting} waiting calls",
            )
        loop = asyncio.get_running_loop()
        self._num_pending += 1
        future = self._executor.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._num_pending -= 1

    async def close(self) -> None:
        """Waits for what runs; what only waits is dropped."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
