"""Proves the goals of problems, each in a process of its own, so that limits hold whatever happens.

What comes of a goal depends on the problem, the mode, the seed and the steps, and on the store
of lemmas as it was before the first problem; not on how many goals are looked at side by side. The
clock and the memory only end in `Unknown`.

A portfolio is two searches, each in a process with its own share of the steps: directed, and guided
enumeration. The second is heard where the first came to no verdict, and only there; so it does not
matter which ends first, nor whether they ran side by side or one after the other. What ends the
second is a verdict of the first. The clock may make `Unknown` of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from prover.attempt import Task
from prover.errors import ProverError
from prover.processes import Outcome, Running
from prover.store.database import Shelf, Store
from prover.verdict import Budget, Mode

_FIRST = 0.6  # of a portfolio's budget; a directed search that finds nothing more ends long before


@dataclass(frozen=True, slots=True)
class Settings:
    """How goals are proved; `memory_bytes` bounds each process, `jobs` how many there are: from two
    on the searches of a portfolio run side by side.

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
    running = Running()
    shelf = settings.lemmas.shelf() if settings.lemmas is not None else None
    rejected: dict[str, None] = {}
    each_has = min(settings.jobs, len(_shares(settings)))
    with ThreadPoolExecutor(max(1, settings.jobs // max(1, each_has))) as pool:
        try:
            all_of = [Proving(each, settings, running, shelf) for each in problems]
            futures = [pool.submit(_outcomes, each, each_has) for each in all_of]
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


def _outcomes(proving: Proving, num_processes: int) -> list[Outcome]:
    outcomes = []
    while not proving.is_done:
        outcomes.append(proving.prove_next(num_processes))
    return outcomes


def _shares(settings: Settings) -> tuple[tuple[str, Budget], ...]:
    """The modules that search, in the order in which they are heard, and what each may spend."""
    budget = settings.budget
    if settings.search or settings.mode is not Mode.PORTFOLIO:
        return ((settings.search or f"prover.search.{settings.mode}", budget),)
    first = Budget(int(budget.steps * _FIRST), budget.seconds * _FIRST)
    rest = Budget(budget.steps - first.steps, budget.seconds)
    return ("prover.search.directed", first), ("prover.search.guided", rest)


class Proving:
    """The goals of one problem, one after the other; another thread may stop it at any time.

    Goals may rest on the lemmas of a `shelf`, and then on those of the goals before them.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        running: Running | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._shares = _shares(settings)
        of = *self._shares[0], settings.seed, settings.memory_bytes, problem.data
        self._next = Task(problem.file, 0, *of, shelf, nice=settings.nice)
        self._running = running or Running()
        self._goals: Mapping[str, str] = {"": ""}  # what cannot be read has an outcome as a whole

    @property
    def is_done(self) -> bool:
        """Whether every goal has its outcome."""
        return self._next.number >= len(self._goals)

    def prove_next(self, num_processes: int = 1) -> Outcome:
        """What comes of the next goal, in at most so many processes at a time. One that was stopped
        has timed out."""
        tasks = [replace(self._next, search=s, budget=budget) for s, budget in self._shares]
        outcome, goals = self._running.first_verdict(tasks, num_processes)
        self._goals = goals or self._goals
        goal, statement = list(self._goals.items())[self._next.number]
        kept = (*self._next.kept, *outcome.lemmas.learned)
        self._next = replace(self._next, number=self._next.number + 1, kept=kept)
        return replace(outcome, goal=goal, statement=statement)

    def stop(self) -> None:
        """Kills the process that is at work; none is begun any more."""
        self._running.stop()
