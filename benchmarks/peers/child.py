"""An engine's process as the benchmark sees it: orders in, measurements out."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import EngineRefused, Sample, Spec

ROOT = Path(__file__).parents[2]
# For loading, and for the slowest measurement with the prompts before it.
PATIENCE_S = 900.0
# How much of what a process said on its way out is worth repeating.
LAST_WORDS = 300


class EngineFailed(Exception):
    """A process died, fell silent or answered nonsense: its engine takes no further part."""


@dataclass(frozen=True, slots=True)
class Command:
    """How an engine is started, before it is told its Spec."""

    python: Path
    module: str

    def line(self) -> list[str]:
        return [str(self.python), "-m", self.module]


class Child:
    """One process. Close it, or use it in `with`; closing it twice does no harm."""

    def __init__(self, command: Command, spec: Spec) -> None:
        """Returns when the engine is warm. Raises EngineRefused when it refuses, EngineFailed."""
        # Closed by `close`.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command.line(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment(spec.threads),
            # A group of its own, with whatever programs it runs itself.
            start_new_session=True,
        )
        try:
            greeting = self._ask(asdict(spec))
            if "refused" in greeting:
                raise EngineRefused(str(greeting["refused"]))
        except (EngineRefused, EngineFailed):
            self.close()
            raise
        self.version = str(greeting["version"])

    def prefill(self, num_tokens: int) -> Sample:
        return self._measure({"order": "prefill", "num_tokens": num_tokens})

    def decode(self, streams: int, num_tokens: int) -> Sample:
        return self._measure({"order": "decode", "streams": streams, "num_tokens": num_tokens})

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        # Waits, and closes the pipes.
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measure(self, order: Mapping[str, Any]) -> Sample:
        answer = self._ask(order)
        try:
            return Sample(**answer)
        except TypeError:
            raise EngineFailed(f"no measurement: {answer}") from None

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineFailed(self._last_words()) from None
        # One line answers one order, so nothing waits in Python's own buffer.
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        if not ready:
            raise EngineFailed(f"no answer in {PATIENCE_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        said = " ".join(self._errors.read().split())
        return f"ended with {self._process.returncode}: {said[-LAST_WORDS:]}"


def environment(threads: int) -> dict[str, str]:
    """Of every engine, ours too. What a large buffer gives back is kept for the next one: left to
    its defaults the C library returns it to the system and faults every page in again, which
    costs engines that grow their cache by copying it three quarters of their time.
    """
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
    }


def cores_for(threads: int) -> Sequence[int]:
    """The last ones this process may use: the first serves most interrupts."""
    return sorted(os.sched_getaffinity(0))[-threads:]
