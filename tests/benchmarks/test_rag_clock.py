"""Requests come when they come; idle time costs nothing, and waiting is counted in full."""

from __future__ import annotations

from collections import deque

import pytest

from benchmarks.rag_clock import Ask, Event, Patience, Reuse, Served, SkippingClock, replay

REUSE = Reuse(1, 2, 3, 4)


class HandClock:
    """Moves when it is told to, and remembers how far it jumped."""

    def __init__(self) -> None:
        self.at_s = 1000.0
        self.skipped: list[float] = []

    def now_s(self) -> float:
        return self.at_s

    def skip(self, seconds: float, /) -> None:
        self.skipped.append(seconds)
        self.at_s += seconds


class OneByOne:
    """Serves in order of arrival: `first_s` to a first token, as long again to the last."""

    def __init__(self, clock: HandClock, first_s: float) -> None:
        self._clock, self._first_s = clock, first_s
        self._waiting: deque[Ask] = deque()
        self._has_first = False
        self.waits: list[float] = []

    def submit(self, ask: Ask, /) -> None:
        self._waiting.append(ask)

    def step(self, wait_s: float, /) -> list[Event]:
        self.waits.append(wait_s)
        self._clock.at_s += self._first_s
        number, self._has_first = self._waiting[0].number, not self._has_first
        if self._has_first:
            return [Event(number, is_last=False)]
        self._waiting.popleft()
        return [Event(number, is_last=True, reuse=REUSE)]


def asks(*at_s: float) -> list[Ask]:
    return [Ask(i, at, ((1, 2), (3,)), ("a",), 2) for i, at in enumerate(at_s)]


def served(*at_s: float, first_s: float, patience: Patience | None = None) -> list[Served]:
    clock = HandClock()
    return replay(OneByOne(clock, first_s), asks(*at_s), clock, patience)


def test_whoever_comes_alone_is_served_at_once_and_the_time_between_is_skipped() -> None:
    clock = HandClock()
    done = replay(OneByOne(clock, 1.0), asks(0.0, 100.0), clock)
    assert [each.ttft_s for each in done] == [1.0, 1.0]
    assert [each.done_s for each in done] == [2.0, 102.0]
    assert clock.skipped == [98.0]
    assert clock.at_s == 1000.0 + 102.0


def test_whoever_comes_while_another_is_served_waits_from_its_own_arrival() -> None:
    done = served(0.0, 0.5, 3.0, first_s=1.0)
    # Served from 0, 2 and 4 s; heard at the end of a step.
    assert [each.first_s for each in done] == [1.0, 3.0, 5.0]
    assert [each.ttft_s for each in done] == [1.0, 2.5, 2.0]


def test_a_slow_server_does_not_slow_the_arrivals() -> None:
    done = served(0.0, 1.0, 2.0, first_s=10.0)
    assert [each.at_s for each in done] == [0.0, 1.0, 2.0]
    assert [each.ttft_s for each in done] == [10.0, 29.0, 48.0]


def test_arrivals_need_not_be_told_in_order() -> None:
    assert [each.at_s for each in served(5.0, 0.0, first_s=1.0)] == [0.0, 5.0]


def test_what_was_served_says_what_it_had_and_what_was_found() -> None:
    (only,) = served(0.0, first_s=1.0)
    assert only == Served(0.0, 3, first_s=1.0, done_s=2.0, reuse=REUSE)


def test_a_server_beside_us_may_wait_until_the_next_arrival_at_most() -> None:
    clock = HandClock()
    server = OneByOne(clock, 1.0)
    replay(server, asks(0.0, 1.25), clock)
    assert server.waits == [1.25, 0.25, 1.0, 1.0]


def test_a_replay_that_is_late_too_often_ends_early() -> None:
    times = [0.0, 0.0, 0.0, 0.0]
    # First tokens after 1, 3, 5 and 7 s.
    assert len(served(*times, first_s=1.0, patience=Patience(4.0, 0))) == 3
    assert len(served(*times, first_s=1.0, patience=Patience(4.0, 1))) == 4
    assert len(served(*times, first_s=1.0, patience=Patience(2.0, 1))) == 3
    assert len(served(*times, first_s=1.0, patience=Patience(7.0, 0))) == 4


def test_the_clock_of_the_machine_runs_on_and_jumps() -> None:
    clock = SkippingClock()
    before_s = clock.now_s()
    clock.skip(1e6)
    assert clock.now_s() - before_s == pytest.approx(1e6, abs=60.0)
    assert clock.now_s() - before_s >= 1e6
