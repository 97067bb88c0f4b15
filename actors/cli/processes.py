"""Processes by identity: a pid alone may be another process by the time one looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

_POLL_S = 0.1
# The kernel counts start times in ticks of 10 ms.
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process and no later one of the same number: `started_s` is seconds since the epoch."""

    pid: int
    started_s: float


def identify(pid: int) -> ProcessId | None:
    """None when there is no such process, or only a zombie of it."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid, process.create_time())
    except psutil.Error:
        return None


def is_alive(process: ProcessId) -> bool:
    found = identify(process.pid)
    return found is not None and abs(found.started_s - process.started_s) < _TICK_S


def family(root: ProcessId) -> tuple[ProcessId, ...]:
    """The process and all its descendants that live now."""
    if not is_alive(root):
        return ()
    try:
        children = psutil.Process(root.pid).children(recursive=True)
    except psutil.Error:
        children = []
    found = (identify(child.pid) for child in children)
    return (root, *(process for process in found if process is not None))


def wait_until_gone(
    processes: Iterable[ProcessId],
    timeout_s: float,
    on_wait: Callable[[int], None] = lambda num_left: None,
) -> tuple[ProcessId, ...]:
    """Those still alive after `timeout_s`; `on_wait` is told how many are left meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    left = tuple(filter(is_alive, processes))
    while left and time.monotonic() < deadline_s:
        on_wait(len(left))
        time.sleep(_POLL_S)
        left = tuple(filter(is_alive, left))
    return left


def terminate(process: ProcessId) -> None:
    """SIGTERM, unless it is gone."""
    if is_alive(process):
        psutil.Process(process.pid).terminate()


def kill_all(processes: Iterable[ProcessId], timeout_s: float = 5.0) -> tuple[ProcessId, ...]:
    """SIGKILL to those that live; returns whom it met."""
    met = tuple(filter(is_alive, processes))
    for process in met:
        try:
            psutil.Process(process.pid).kill()
        except psutil.NoSuchProcess:
            continue
    wait_until_gone(met, timeout_s)
    return met
