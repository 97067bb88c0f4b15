"""Proves the goals of problems, each in a process of its own, so that limits hold whatever happens.

Time and memory are bounded from outside: a definition may grow faster than any step can be counted.
A process that is late is killed by its id. What comes of a goal depends on the problem, the mode,
the seed and the steps alone, and on the store of lemmas as it was before the first problem; not on
how many goals are looked at side by side. The clock and the memory only end in `Unknown`.
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
from prover.errors import Failed, ProverError, Unusable
from prover.store.database import Shelf, Store
from prover.store.portable import Entry
from prover.verdict import Budget, Mode, Reason, Unknown, Verdict

# A process looks for modules where this one does, and first where this one is.
_ROOT = str(Path(__file__).parents[1])
_BEGIN = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from prover.attempt import main; main()"
)
GRACE_S = 0.5  # after the limit: to begin and end a process, and to send what was found


@dataclass(frozen=True, slots=True)
class Settings:
    """How goals are proved; `memory_bytes` bounds each process, `jobs` how many there are.

    `search` names a module whose function `search` is called; by default it is the mode's. `lemmas`
    is a store of what was proved before, which `prove_all` gives what is proved now. Processes
    stand back by `nice` (0 to 19) for others who need the cores.
    """

    mode: Mode = Mode.DIRECTED
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    jobs: int = 1
    memory_bytes: int = 2 << 30
    search: str = ""
    lemmas: Store | None = None
    nice: int = 0


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


@dataclass(frozen=True, slots=True)
class Problem:
    """A file, or a text that is called as if it were one: `.prove` is our own language."""

    file: str
    data: bytes | None = None


def prove(problem: Path | str, settings: Settings | None = None) -> tuple[Outcome, ...]:
    """The outcomes of all goals of a file, or of a text in any of the languages.

    Raises Unusable for what cannot be read or does not define, Failed where the prover is wrong.
    """
    if isinstance(problem, Path):
        given = Problem(str(problem))
    else:
        ending = "smt2" if problem.lstrip().startswith(("(", ";")) else "prove"
        given = Problem(f"<text>.{ending}", problem.encode())
    outcomes = tuple(prove_all([given], settings or Settings()))
    for each in outcomes:
        if isinstance(each.verdict, ProverError):
            raise each.verdict
    return outcomes


def prove_all(problems: Sequence[Problem], settings: Settings) -> Iterator[Outcome]:
    """The outcomes of all goals of all problems, in their order.

    A goal may rest on what the store held before the first problem, and on goals before it of the
    same problem: so it is the same with any number of jobs. Raises Unusable for a store of no use.
    """
    running = _Running()
    shelf = settings.lemmas.shelf() if settings.lemmas is not None else None
    rejected: dict[str, None] = {}
    with ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        try:
            futures = [pool.submit(_outcomes, each, settings, running, shelf) for each in problems]
            for future in futures:
                for outcome in future.result():
                    rejected |= dict.fromkeys(outcome.lemmas.rejected)
                    if settings.lemmas is not None:
                        settings.lemmas.put(outcome.lemmas.learned)
                    yield outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
    if settings.lemmas is not None:
        settings.lemmas.drop(rejected)
        settings.lemmas.trim()


def _outcomes(
    problem: Problem, settings: Settings, running: _Running, shelf: Shelf | None
) -> list[Outcome]:
    proving = Proving(problem, settings, running, shelf)
    outcomes = []
    while not proving.is_done:
        outcomes.append(proving.prove_next())
    return outcomes


class Proving:
    """The goals of one problem, one after the other; another thread may stop it at any time.

    Goals may rest on the lemmas of a `shelf`, and then on those of the goals before them.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        running: _Running | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        search = settings.search or f"prover.search.{settings.mode}"
        of = search, settings.budget, settings.seed, settings.memory_bytes, problem.data
        self._next = Task(problem.file, 0, *of, shelf, nice=settings.nice)
        self._running = running or _Running()
        self._goals: Mapping[str, str] = {"": ""}  # what cannot be read has an outcome as a whole

    @property
    def is_done(self) -> bool:
        """Whether every goal has its outcome."""
        return self._next.number >= len(self._goals)

    def prove_next(self) -> Outcome:
        """What comes of the next goal. One that was stopped has timed out."""
        outcome, goals = self._running.attempt(self._next)
        self._goals = goals or self._goals
        goal, statement = list(self._goals.items())[self._next.number]
        kept = (*self._next.kept, *outcome.lemmas.learned)
        self._next = replace(self._next, number=self._next.number + 1, kept=kept)
        return replace(outcome, goal=goal, statement=statement)

    def stop(self) -> None:
        """Kills the process that is at work; none is begun any more."""
        self._running.stop()


class _Running:
    """The processes that are at work."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped = False

    def stop(self) -> None:
        """Kills what still runs; nothing is begun any more."""
        self._stopped = True
        for process in tuple(self._processes.values()):
            process.kill()

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
