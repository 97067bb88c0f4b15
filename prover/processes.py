"""The processes of searches, and what comes of them, whatever they do.

Time and memory are bounded from outside: a definition may grow faster than any step can be counted.
A process that is late is killed by its id.
"""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from prover.attempt import Found, Goals, Known, Learned, Message, Task
from prover.errors import Failed, Unusable
from prover.store.portable import Entry
from prover.verdict import Budget, Reason, Unknown, Verdict

# A process looks for modules where this one does, and first where this one is.
_ROOT = str(Path(__file__).parents[1])
_BEGIN = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from prover.attempt import main; main()"
)
GRACE_S = 0.5  # after the limit: to begin and end a process, and to send what was found


@dataclass(frozen=True, slots=True)
class Lemmas:
    """How many a search knew from a store, which of the store are of no use here, by what they say
    with the reason, and what was learned for it."""

    num_known: int = 0
    rejected: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one goal; of the problem as a whole where `goal` is empty."""

    file: str
    goal: str
    statement: str
    verdict: Verdict | Unusable | Failed
    seconds: float
    lemmas: Lemmas = field(default_factory=Lemmas)


Both = tuple[tuple[Outcome, Mapping[str, str]], Outcome | None]


class Running:
    """The processes that are at work."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._beside: dict[Running, None] = {}
        self._stopped = False

    def stop(self) -> None:
        """Kills what still runs; nothing is begun any more."""
        self._stopped = True
        for running in tuple(self._beside):
            running.stop()
        for process in tuple(self._processes.values()):
            process.kill()

    def first_verdict(
        self, tasks: Sequence[Task], num_processes: int
    ) -> tuple[Outcome, Mapping[str, str]]:
        """What the first of one or two searches says that comes to a verdict."""
        first, *others = tasks
        if not others:
            return self.attempt(first)
        begun_s = time.monotonic()
        (second,) = others
        two = self._side_by_side if num_processes > 1 else self._in_turn
        (outcome, goals), other = two(first, second)
        if other is not None and not isinstance(other.verdict, Unknown | Failed):
            outcome = other
        return replace(outcome, seconds=time.monotonic() - begun_s), goals

    def _in_turn(self, first: Task, second: Task) -> Both:
        begun_s = time.monotonic()
        found = self.attempt(first)
        if not isinstance(found[0].verdict, Unknown):
            return found, None
        left_s = max(0.0, second.budget.seconds - (time.monotonic() - begun_s))
        rest = replace(second, budget=Budget(second.budget.steps, left_s))
        return found, self.attempt(rest)[0]

    def _side_by_side(self, first: Task, second: Task) -> Both:
        beside = Running()
        self._beside[beside] = None
        if self._stopped:  # since it was begun: `stop` has not seen it
            beside.stop()
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(beside.attempt, second)
            try:
                found = self.attempt(first)
                if not isinstance(found[0].verdict, Unknown):
                    return found, None
                return found, later.result()[0]
            finally:
                beside.stop()
                del self._beside[beside]

    def attempt(self, task: Task) -> tuple[Outcome, Mapping[str, str]]:
        """What came of a goal, and all goals with what they say if they were read."""
        begun_s = time.monotonic()
        output, ended = self._run(task)
        seconds = time.monotonic() - begun_s
        messages = tuple(_messages(output))
        goals = next((each.statements for each in messages if isinstance(each, Goals)), {})
        goal, statement = list(goals.items())[task.number] if goals else ("", "")
        verdict = _verdict(messages[-1] if messages else None, ended)
        return Outcome(task.file, goal, statement, verdict, seconds, _lemmas(messages)), goals

    def _run(self, task: Task) -> tuple[bytes, bool]:
        """What the process wrote, and whether it ended by itself."""
        if self._stopped:
            return b"", False
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            self._processes[process.pid] = process
            try:
                if self._stopped:  # since it was begun: `stop` has not seen it
                    return b"", False
                limit_s = task.budget.seconds + GRACE_S
                told = pickle.dumps([_ROOT, *sys.path]) + pickle.dumps(task)
                output, _ = process.communicate(told, timeout=limit_s)
                return output, not self._stopped
            except subprocess.TimeoutExpired:
                process.kill()
                return process.communicate()[0], False
            finally:
                process.kill()
                del self._processes[process.pid]


def _verdict(last: Message | None, ended: bool) -> Verdict | Unusable | Failed:
    """Of a process by what it said last; one that ended without a word had no memory for it."""
    if isinstance(last, Found):
        return last.verdict
    if isinstance(last, (Unusable, Failed)):
        return last
    return Unknown(Reason.MEMORY if ended else Reason.TIMEOUT)


def _lemmas(messages: Sequence[Message]) -> Lemmas:
    known = next((each for each in messages if isinstance(each, Known)), Known(0, {}))
    learned = next((each for each in messages if isinstance(each, Learned)), Learned(()))
    return Lemmas(known.num_lemmas, known.rejected, learned.entries)


def _messages(output: bytes) -> Iterator[Message]:
    """What a process wrote, up to where it was killed."""
    stream = io.BytesIO(output)
    while stream.tell() < len(output):
        try:
            yield pickle.load(stream)
        except (pickle.UnpicklingError, EOFError):
            return
