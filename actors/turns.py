"""Turns at a bounded number of places, fair to tenants.

    tenant a: 1 2 3 4 ..      who waits         a b a b c a ..     who is next
    tenant b: 5 6

Tenants are served in a ring, each one's own in the order in which they came: who gives many
problems waits behind them, and nobody else does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Of one event loop."""

    def __init__(self, num_places: int) -> None:
        self.num_free = num_places
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """A place, as soon as it is the tenant's turn."""
        await self._wait(tenant)
        try:
            yield
        finally:
            self._give_back()

    @asynccontextmanager
    async def spare(self, most: int) -> AsyncIterator[int]:
        """At most so many places more, as far as they are free at once: nobody waits for them."""
        taken = min(most, self.num_free)
        self.num_free -= taken
        try:
            yield taken
        finally:
            for _ in range(taken):
                self._give_back()

    def check(self) -> None:
        assert self.num_free >= 0
        assert not (self.num_free and self._waiting), "a place is free, and somebody waits"
        assert all(self._waiting.values()), "a tenant is in the ring for whom nobody waits"

    async def _wait(self, tenant: str) -> None:
        if self.num_free:  # then nobody waits
            self.num_free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._forget(tenant, place)
            else:  # the place came, and nobody is there to take it
                self._give_back()
            raise

    def _forget(self, tenant: str, place: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant, deque())
        if place in queue:  # else it was passed over since
            queue.remove(place)
            if not queue:
                del self._waiting[tenant]

    def _give_back(self) -> None:
        """To the next tenant of the ring, who then is the last; free where nobody waits."""
        for tenant in tuple(self._waiting):
            queue = self._waiting.pop(tenant)
            while queue:
                place = queue.popleft()
                if place.done():  # who waited for it has left
                    continue
                if queue:
                    self._waiting[tenant] = queue
                place.set_result(None)
                return
        self.num_free += 1
