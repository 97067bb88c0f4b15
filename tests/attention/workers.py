"""Attention workers in other processes, as tests start, stop and kill them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cluster.attention.door import enter
from cluster.attention.shared_memory import SharedMemoryPort
from cluster.wire.attention_port import GrpcPort, Source, connect
from tests.attention.shared_steps import SIZES, SharedBlocks
from tests.house.source import ROOT

# Long enough for a machine that does much else; nothing that works waits for it.
PATIENCE_S = 60.0
MAX_BYTES = 2**30
AnyWorker = TypeVar("AnyWorker", bound="Worker")


def open_descriptors() -> int:
    """Of this process, without what other tests have left to the garbage collector."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Worker:
    """One process behind one door."""

    def __init__(self, path: Path, num_threads: int = 2) -> None:
        self.path = path
        self.said = self._started("benchmarks.ports_child", str(path), str(num_threads))
        assert self.said == "open\n"

    def _started(self, *module: str) -> str:
        """What it says first."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def port(self, blocks: SharedBlocks, timeout_s: float = PATIENCE_S) -> SharedMemoryPort:
        return enter(self.path, SIZES, blocks.kv, blocks.fd, timeout_s=timeout_s)

    def stop(self) -> None:
        """It lives, and does nothing, when this returns."""
        self.strike(signal.SIGSTOP)

    def strike(self, blow: signal.Signals) -> None:
        """SIGKILL or SIGSTOP, and it has done its last when this returns."""
        self.process.send_signal(blow)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    @property
    def num_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self) -> int:
        """Its exit status."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


class RemoteWorker(Worker):
    """One process behind a door and at an address."""

    def __init__(self, path: Path, num_threads: int = 2, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        arguments = str(path), str(num_threads), str(max_bytes)
        self.said = self._started("benchmarks.ports_grpc_child", *arguments)
        self.address = self.said.removeprefix("open ").strip()
        assert self.address.startswith("127.0.0.1:")

    def remote_port(self, blocks: SharedBlocks, timeout_s: float = PATIENCE_S) -> GrpcPort:
        source = source_of(blocks)
        return connect(self.address, SIZES, source, client="test", timeout_s=timeout_s)


def source_of(blocks: SharedBlocks) -> Source:
    return Source(blocks.kv, blocks.memory, lambda ids: blocks.generations[ids])


@contextmanager
def worker_at(path: Path, num_threads: int = 2) -> Iterator[Worker]:
    with ended(Worker(path, num_threads)) as worker:
        yield worker


@contextmanager
def ended(worker: AnyWorker) -> Iterator[AnyWorker]:
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.communicate()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)
