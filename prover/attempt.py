"""One goal in a process of its own, whose `main` is told a task and answers.

The task comes pickled on standard input, and on standard output come `Goals`, `Known` and `Learned`
where there is a store of lemmas, and then what was found, or in place of any the error that a
person should see. The process bounds its own memory
and CPU time, and ends when whoever began it has.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from prover.checker import verify
from prover.checks import check
from prover.errors import Failed, OutOfFuel, ProverError, Undecided, Unusable
from prover.evaluator import Evaluator
from prover.program import Program, Statement
from prover.search.known import MOST_LEMMAS, recall
from prover.search.lemmas import Lemma
from prover.store.database import Shelf, look_up
from prover.store.digests import Digests
from prover.store.portable import Entry, entries
from prover.syntax.problem import load, parse
from prover.terms import Apply, subterms
from prover.verdict import Budget, Proved, Reason, Refuted, Unknown, Verdict

_STACK_BYTES = 1 << 27  # what is nested deep is pickled by recursion
_FRAMES = 20_000
_SPARE_CPU_S = 5
_LOOK_S = 0.25  # between two looks at whether somebody waits


@dataclass(frozen=True, slots=True)
class Task:
    """A goal of a problem, by its place among the goals, and how to look for its proof.

    `search` names a module with a function `search(program, goal, budget, seed)`, which takes known
    lemmas too where it is given a shelf of a store or entries that are `kept` besides. The problem
    is `data`, or where there is none it is read from `file`.
    """

    file: str
    number: int
    search: str
    budget: Budget
    seed: int = 0
    memory_bytes: int = 2 << 30
    data: bytes | None = None
    shelf: Shelf | None = None
    kept: tuple[Entry, ...] = ()
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Goals:
    """The problem was read, and its definitions define: its goals by name, and what they say."""

    statements: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a goal."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Known:
    """How many lemmas the search was given, and why others are left out, by what they say."""

    num_lemmas: int
    rejected: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Learned:
    """The lemmas of a proof, for a store."""

    entries: tuple[Entry, ...]


Message = Goals | Known | Learned | Found | ProverError


def answers(task: Task) -> Iterator[Message]:
    """What the process says, one after the other."""
    ends_s = time.monotonic() + task.budget.seconds
    try:
        path = Path(task.file)
        program = load(path) if task.data is None else parse(task.data, task.file)
        check(program)
    except ProverError as error:
        where = "" if str(error).startswith(task.file) else f"{task.file}: "
        yield Unusable(f"{where}{error}")
        return
    yield Goals({goal.name: str(goal) for goal in program.goals})
    goal = program.goals[task.number]
    lemmas: Sequence[Lemma] = ()
    if task.shelf is not None:
        digests = Digests(program)
        lemmas, rejected = _recalled(program, digests, task.shelf, task.kept)
        yield Known(len(lemmas), rejected)
    budget = Budget(task.budget.steps, ends_s - time.monotonic())
    verdict = _verdict(program, goal, budget, task, lemmas)
    if isinstance(verdict, Proved) and task.shelf is not None:
        yield Learned(tuple(entries(program, digests, verdict.certificate)))
    yield Found(verdict)


def _recalled(
    program: Program, digests: Digests, shelf: Shelf, kept: tuple[Entry, ...]
) -> tuple[Sequence[Lemma], Mapping[str, str]]:
    """The lemmas of a store and those that are kept besides, and what is left out of them."""
    try:
        found = look_up(shelf, digests.all(), MOST_LEMMAS)
    except Unusable as error:
        return (), {"": str(error)}
    recalled = recall(program, digests, (*found.entries, *kept))
    damaged = dict.fromkeys(found.damaged, "it is damaged")
    return recalled.lemmas, {**recalled.rejected, **damaged}


def _verdict(
    program: Program, goal: Statement, budget: Budget, task: Task, lemmas: Sequence[Lemma]
) -> Verdict:
    search = import_module(task.search).search
    known = (lemmas,) if lemmas else ()
    found = cast(Verdict, search(program, goal, budget, task.seed, *known))
    if isinstance(found, Proved):
        written = json.loads(json.dumps(found.certificate))
        return Proved(written, str(verify(program, written)), found.explanation)
    if isinstance(found, Refuted) and not _is_refuted(program, goal, found):
        return Unknown(Reason.STUCK)
    return found


def _is_refuted(program: Program, goal: Statement, found: Refuted) -> bool:
    """Whether the sides differ for a second evaluator, and no assumption could forbid the values.

    A free function has some value in a refutation. An assumption about it may exclude that value.
    """
    equalities = [each for a in program.assumptions for each in a.equalities()]
    parts = [part for e in equalities for side in (e.left, e.right) for part in subterms(side)]
    assumed = dict.fromkeys(part.symbol for part in parts if isinstance(part, Apply))
    if program.left_out or any(symbol in assumed for symbol in program.free):
        return False
    try:
        return Evaluator(program).refutes(goal, found.values)
    except (OutOfFuel, Undecided):
        return False


def main() -> None:
    task = pickle.load(sys.stdin.buffer)
    os.nice(task.nice)
    resource.setrlimit(resource.RLIMIT_AS, (task.memory_bytes, task.memory_bytes))
    most_s = math.ceil(task.budget.seconds) + _SPARE_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    threading.stack_size(_STACK_BYTES)
    sys.setrecursionlimit(_FRAMES)
    worker = threading.Thread(target=_answer, args=(task, sys.stdout.buffer))
    parent = os.getppid()
    worker.start()
    while worker.is_alive():
        worker.join(_LOOK_S)
        if os.getppid() != parent:
            os._exit(1)


def _answer(task: Task, out: BinaryIO) -> None:
    try:
        for message in answers(task):
            _send(message, out)
    except MemoryError:
        _send(Found(Unknown(Reason.MEMORY)), out)
    except Exception as error:  # whatever it is, the one who waits is told, and no process hangs
        _send(Failed(_story(error)), out)


def _story(error: Exception) -> str:
    """What it was and where, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"an error of the prover itself, at {Path(place.filename).name}:{place.lineno}: {said}"


def _send(message: Message, out: BinaryIO) -> None:
    out.write(pickle.dumps(message))
    out.flush()
