"""A host of any speed: a real attention worker on a core of its own, its answers held back.

An answer to what took the worker a second is given out as if a host of a tenth of its speed had
worked ten seconds on it, one after the other, from when it was asked or had done with what came
before. The engine waits as it would wait for that host, and is told of as many seconds.

Why not slow down the process: a quota of the kernel's is for periods of a millisecond and more, and
so is stopping it and letting it go on. A layer takes less, so that most answers would come at full
speed and a few not for milliseconds. That is another host than a slow one, and its seconds, which
the worker takes by the wall, would tell of neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from benchmarks.result import CannotRun
from cluster.attention.door import enter
from cluster.attention.port import AttentionPort, Exchange
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.clock import Clock, MonotonicClock
from cluster.engine.host_attention import HostAttention

TIMEOUT_S = 60.0
# Sleeping is not exact: what is left at last is waited for awake.
AWAKE_S = 0.0003


@dataclass(slots=True)
class HeldBackPort:
    """`share` is the host's speed as a share of the worker's; 1 holds nothing back."""

    port: AttentionPort
    share: float
    clock: Clock = field(default_factory=MonotonicClock)
    # When the host has done with all that it was asked so far.
    free_at_s: float = 0.0

    def carries(self, plan: PartPlan, /) -> bool:
        return self.port.carries(plan)

    def prepare(self, plan: PartPlan, /) -> HeldBackExchange:
        return HeldBackExchange(self, self.port.prepare(plan))

    def close(self) -> None:
        self.port.close()


@dataclass(slots=True)
class HeldBackExchange:
    host: HeldBackPort
    exchange: Exchange
    _posted_s: float = 0.0

    @property
    def busy_s(self) -> float:
        return self.exchange.busy_s / self.host.share

    def post(self, layer: int, q: Tensor, /) -> None:
        self._posted_s = self.host.clock.now_s()
        self.exchange.post(layer, q)

    def collect(self, layer: int, /) -> State:
        """Exchanges are collected in the order in which they were posted."""
        host, before_s = self.host, self.busy_s
        state = self.exchange.collect(layer)
        host.free_at_s = max(self._posted_s, host.free_at_s) + self.busy_s - before_s
        _wait_until(host.free_at_s, host.clock)
        return state

    def close(self) -> None:
        self.exchange.close()


def _wait_until(at_s: float, clock: Clock) -> None:
    while (left_s := at_s - clock.now_s()) > 0.0:
        if left_s > AWAKE_S:
            time.sleep(left_s - AWAKE_S)


@dataclass(frozen=True, slots=True)
class Host:
    """A worker's door."""

    door: Path

    def attach(self, attention: HostAttention, share: float) -> None:
        """Between two steps: it attends for this engine, at so much of its speed."""
        arena = attention.arena
        port = enter(self.door, attention.sizes, arena.kv, arena.fd, timeout_s=TIMEOUT_S)
        attention.attach(HeldBackPort(port, share))


@contextmanager
def host_on(core: int) -> Iterator[Host]:
    """One thread of another process. Raises CannotRun when it does not start."""
    with TemporaryDirectory(prefix="thoth-door-") as folder:
        door = Path(folder) / "door"
        with pinned({core}):
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ports_child", str(door), "1"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        try:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "open":
                raise CannotRun("the attention worker did not start")
            yield Host(door)
        finally:
            child.communicate()


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """This thread, and all that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
