"""A cluster of one's own: `python -m actors up` as a child process.

The child writes one line of JSON to its standard output when it is ready, and ends when its
standard input does: however this process dies, the child follows.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Self

from cluster.errors import Unavailable

READY_S = 180.0
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a cluster listens: `http` is a URL, the others are host:port."""

    http: str
    grpc: str
    supervisor: str


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `flags` go to `up` as they are; `log` takes what the child says."""

    config: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ("--local",)
    log: Path | None = None

    def command(self) -> list[str]:
        """The child's command line; ports are free ones unless they are set."""
        # -P: a folder named `actors` where the user happens to stand is not ours.
        command = [sys.executable, "-P", "-m", "actors", "up", "--json", "--until-eof"]
        command += self.flags
        if self.config is not None:
            command += ["--config", str(self.config)]
        settings = {"gateway.http_port": "0", "gateway.grpc_port": "0"} | dict(self.overrides)
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return command


class ClusterProcess:
    """A running child; `stop` it, or leave that to the end of this process."""

    def __init__(self, launch: Launch) -> None:
        self._log: IO[bytes] = (
            tempfile.TemporaryFile() if launch.log is None else launch.log.open("w+b")  # noqa: SIM115
        )
        self._process = subprocess.Popen(
            launch.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl+C in our terminal is ours to handle: the child is stopped by `stop`.
            start_new_session=True,
        )
        self._lines: Queue[bytes] = Queue()
        self._listener = threading.Thread(target=self._listen, name="cluster-output", daemon=True)
        self._listener.start()
        self._endpoints: Endpoints | None = None
        atexit.register(self.stop)

    @classmethod
    def start(cls, config: Path | None = None, overrides: Mapping[str, str] | None = None) -> Self:
        """A cluster that is ready. Raises Unavailable, and leaves nothing running, when it is not
        so within `READY_S`."""
        cluster = cls(Launch(config, overrides or {}))
        deadline_s = time.monotonic() + READY_S
        try:
            while cluster.poll(deadline_s - time.monotonic()) is None:
                if time.monotonic() >= deadline_s:
                    raise Unavailable(f"the cluster was not ready within {READY_S:g} s")
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def endpoints(self) -> Endpoints:
        """Raises Unavailable before the cluster is ready."""
        if self._endpoints is None:
            raise Unavailable("the cluster is not ready yet")
        return self._endpoints

    def poll(self, wait_s: float) -> Endpoints | None:
        """The endpoints, if the cluster is or becomes ready within `wait_s`. Raises Unavailable
        with the child's last words when it ended instead."""
        if self._endpoints is not None:
            return self._endpoints
        try:
            line = self._lines.get(timeout=max(0.0, wait_s))
        except Empty:
            return None
        if not line:
            self._process.wait()
            why = self.last_words().removeprefix("thoth: ")
            raise Unavailable(f"the cluster did not start: {why}")
        self._endpoints = Endpoints(**json.loads(line))
        return self._endpoints

    def last_words(self) -> str:
        """The last line of the child's log."""
        self._log.flush()
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - 4096))
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "(no output)")

    def stop(self) -> None:
        """Asks the child to stop, and kills it after `STOP_S`. Stopping twice is no error."""
        atexit.unregister(self.stop)
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._log.close()

    def _listen(self) -> None:
        """Hands on the child's lines; an empty one means that there will be no more."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put(b"")
