"""Turns: every tenant's come round, in the order in which it asked, and none is lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.turns import Turns


class Table:
    """Guests who sit until they are told to leave."""

    def __init__(self, num_places: int) -> None:
        self.turns = Turns(num_places)
        self.served: list[str] = []
        self.guests: list[tuple[str, asyncio.Task[None], asyncio.Event]] = []

    def come(self, tenant: str, name: str) -> None:
        leave = asyncio.Event()

        async def guest() -> None:
            async with self.turns.turn(tenant):
                self.served.append(name)
                await leave.wait()

        self.guests.append((name, asyncio.create_task(guest()), leave))

    async def leave(self, name: str) -> None:
        ((_, task, event),) = (each for each in self.guests if each[0] == name)
        event.set()
        await task
        await settled()

    async def close(self) -> None:
        for _, task, _ in self.guests:
            task.cancel()
        for _, task, _ in self.guests:
            with suppress(asyncio.CancelledError):
                await task


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_tenants_are_served_in_a_ring() -> None:
    table = Table(1)
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        table.come(name[0], name)
        await settled()
    for name in ("a1", "a2", "b1", "c1", "a3"):
        await table.leave(name)
        table.turns.check()
    assert table.served == ["a1", "a2", "b1", "c1", "a3", "b2"]
    await table.close()
    assert table.turns.num_free == 1


async def test_a_spare_place_is_one_that_nobody_waits_for() -> None:
    turns = Turns(2)
    async with (
        turns.turn("a"),
        turns.spare(0) as none,
        turns.spare(2) as one,
        turns.spare(1) as more,
    ):
        assert (none, one, more) == (0, 1, 0)
    assert turns.num_free == 2


async def test_who_leaves_the_queue_takes_no_place_with_them() -> None:
    table = Table(1)
    for name in ("a1", "b1", "b2"):
        table.come(name[0], name)
        await settled()
    table.guests[1][1].cancel()
    await settled()
    table.turns.check()
    await table.leave("a1")
    assert table.served == ["a1", "b2"]
    await table.close()


async def test_a_place_that_comes_too_late_goes_on_to_the_next() -> None:
    table = Table(1)
    for name in ("a1", "b1", "c1"):
        table.come(name[0], name)
        await settled()
    table.guests[0][2].set()
    while not table.guests[0][1].done():  # b1 has been given the place, and has not run since
        await asyncio.sleep(0)
        table.guests[1][1].cancel()
    await settled()
    table.turns.check()
    assert table.served == ["a1", "c1"]
    await table.close()
    assert table.turns.num_free == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from(["come", "leave", "go"]),
                                             st.integers(0, 7)), max_size=40))  # fmt: skip
def test_no_place_is_lost_whatever_guests_do(num_places: int, story: list[tuple[str, int]]) -> None:
    async def tell() -> None:
        table = Table(num_places)
        for number, (what, which) in enumerate(story):
            if what == "come":
                table.come("abc"[which % 3], str(number))
            elif table.guests:
                _, task, leave = table.guests[which % len(table.guests)]
                leave.set() if what == "leave" else task.cancel()
            if which % 2:
                await settled()
                table.turns.check()
        await table.close()
        table.turns.check()
        assert table.turns.num_free == num_places

    asyncio.run(tell())


@pytest.mark.parametrize("num_places", [1, 2])
async def test_nobody_waits_while_a_place_is_free(num_places: int) -> None:
    table = Table(num_places)
    for number in range(5):
        table.come("a", str(number))
    await settled()
    assert table.served == [str(number) for number in range(num_places)]
    await table.close()
