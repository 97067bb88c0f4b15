"""Requests arrive when the trace says so, whether or not the server keeps up (an open loop).

The clock is the machine's, less the time in which there is nothing to do: while nobody is being
served it jumps to the next arrival. Every second of computing is real, so a cell costs the work in
it and not its span. Who arrives during a step is heard at its end, and waits from its own arrival.

This module is imported inside the environments of the peers: it needs the standard library alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


class SkippingClock:
    """The machine's monotonic seconds, and those that were skipped."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now_s(self) -> float:
        return time.perf_counter() + self._skipped_s

    def skip(self, seconds: float) -> None:
        self._skipped_s += seconds


class Skips(Protocol):
    """A clock of monotonic seconds that can jump ahead."""

    def now_s(self) -> float: ...

    def skip(self, seconds: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `names` are those of the leading segments, documents that others may ask for too;
    the last segment has none."""

    number: int
    at_s: float
    segments: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    max_tokens: int

    @property
    def ids(self) -> list[int]:
        return [token_id for segment in self.segments for token_id in segment]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True)
class Reuse:
    """Prompt tokens found in each tier, and those computed. A peer has one tier."""

    device: int
    host: int
    disk: int
    computed: int


@dataclass(frozen=True, slots=True)
class Event:
    """A request has its first token, or its last. With the last comes the `reuse`, where the
    server tells it."""

    number: int
    is_last: bool
    reuse: Reuse | None = None


class Server(Protocol):
    """An engine with its weights loaded and warm."""

    def submit(self, ask: Ask, /) -> None: ...

    def step(self, wait_s: float, /) -> list[Event]:
        """Called while something has been submitted and is not over. A server that computes beside
        the caller waits up to `wait_s` for an event; another one computes a step."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a request. Seconds count from the first arrival."""

    at_s: float
    prompt_tokens: int
    first_s: float = 0.0
    done_s: float = 0.0
    reuse: Reuse | None = None

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.at_s


@dataclass(frozen=True, slots=True)
class Patience:
    """A replay ends early when more than `num_late` requests had their first token after more than
    `ttft_s`: the aim is missed, and by how much would cost minutes to learn."""

    ttft_s: float = float("inf")
    num_late: int = 0


# A server that computes beside the caller is asked this often when nobody will arrive any more.
LONGEST_WAIT_S = 1.0


def replay(
    server: Server, asks: Iterable[Ask], clock: Skips, patience: Patience | None = None
) -> list[Served]:
    """The requests that were served to their end, in the order of their ends."""
    run = _Replay(server, clock, deque(sorted(asks, key=lambda ask: ask.at_s)))
    patience = patience or Patience()
    while run.coming or run.open:
        run.advance()
        if sum(served.ttft_s > patience.ttft_s for served in run.done) > patience.num_late:
            break
    return run.done


class _Replay:
    def __init__(self, server: Server, clock: Skips, coming: deque[Ask]) -> None:
        self._server, self._clock, self.coming = server, clock, coming
        self._begun_s = clock.now_s()
        self.open: dict[int, Served] = {}
        self.done: list[Served] = []

    def advance(self) -> None:
        """Hears who has arrived, then lets the server go on, or jumps to the next arrival."""
        while self.coming and self.coming[0].at_s <= self._now_s():
            ask = self.coming.popleft()
            self.open[ask.number] = Served(ask.at_s, ask.num_tokens)
            self._server.submit(ask)
        until_next_s = self.coming[0].at_s - self._now_s() if self.coming else LONGEST_WAIT_S
        if self.open:
            self._record(self._server.step(max(0.0, until_next_s)))
        elif until_next_s > 0.0:
            self._clock.skip(until_next_s)

    def _record(self, events: Sequence[Event]) -> None:
        now_s = self._now_s()
        for event in events:
            if event.is_last:
                ended = self.open.pop(event.number)
                self.done.append(replace(ended, done_s=now_s, reuse=event.reuse))
            else:
                self.open[event.number] = replace(self.open[event.number], first_s=now_s)

    def _now_s(self) -> float:
        return self._clock.now_s() - self._begun_s
