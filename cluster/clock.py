"""Time is a parameter: brains are handed a clock and never look at the wall."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds from an arbitrary origin."""

    def now_s(self) -> float: ...


class MonotonicClock:
    """The clock of the machine."""

    def now_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when it is told to: for tests and simulation."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time runs forwards: {seconds} s")
        self._now_s += seconds
