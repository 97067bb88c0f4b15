"""From answers to rows and verdicts.

A task counts as solved where it is proved, and one that is known to be false where it is refuted. A
solver's time on tasks that it does not solve is its limit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.prover_solvers import FAILED, PROVED, REFUTED, Answer
from benchmarks.result import Cell, Row, Verdict

DIRECTED, ENUMERATIVE = "ours, directed", "ours, enumerative"
CONJECTURES = "cvc5 -ig"
NONE = "-"
# Columns that set a solver beside the directed mode.
_BESIDE = (
    "solved_only_here",
    "solved_only_by_directed",
    "times_directed_on_common",
    "times_directed_with_limits",
)
STANDARD = ("isaplanner", "clam", "hipspec", "leon")
# How many files the sets have that an aim speaks of; and aims: at so many seconds, so many.
WHOLE = {"laws": 14, "isaplanner": 64, "clam": 56, "hipspec": 33, "leon": 34, "sufu": 72}
AIMS = {"isaplanner": (5, 58), "clam": (5, 44), "sufu": (60, 25)}


@dataclass(frozen=True, slots=True)
class Task:
    """A problem of a set; `is_false` where it must be refuted and never proved."""

    set: str
    name: str
    is_false: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What solvers said of tasks at one limit; one may not have been asked about all of them."""

    limit_s: float
    tasks: Sequence[Task]
    by_solver: Mapping[str, Mapping[Task, Answer]]

    def solved(self, solver: str, of: Sequence[str] = ()) -> dict[Task, float]:
        """Seconds of the tasks that it solved, of some sets or of all."""
        answers = self.by_solver.get(solver, {})
        return {
            task: answer.seconds
            for task, answer in answers.items()
            if answer.said == (REFUTED if task.is_false else PROVED) and (not of or task.set in of)
        }

    def of(self, *sets: str) -> list[Task]:
        """The tasks of the sets."""
        return [task for task in self.tasks if task.set in sets]

    def has(self, solver: str, *sets: str) -> bool:
        """Whether the solver was asked about every task of the sets."""
        answers = self.by_solver.get(solver, {})
        return all(task in answers for task in self.of(*sets))


def rows(found: Answers) -> list[Row]:
    """One row for each set and each solver that was asked about all of it, beside the directed
    mode."""
    sets = dict.fromkeys(task.set for task in found.tasks)
    solvers = found.by_solver
    return [_row(found, each, by) for each in sets for by in solvers if found.has(by, each)]


def _row(found: Answers, of: str, solver: str) -> Row:
    mine, directed = found.solved(solver, (of,)), found.solved(DIRECTED, (of,))
    tasks = found.of(of)
    both = [task for task in mine if task in directed]
    row: dict[str, Cell] = {
        "set": of,
        "limit_s": found.limit_s,
        "solver": solver,
        "tasks": len(tasks),
        "solved": len(mine),
        "median_s": statistics.median(mine.values()) if mine else NONE,
    }
    if not found.has(DIRECTED, of):
        return row | dict.fromkeys(_BESIDE, NONE)
    compared: tuple[Cell, ...] = (
        sum(task not in directed for task in mine),
        sum(task not in mine for task in directed),
        _ratio([mine[task] for task in both], [directed[task] for task in both]),
        _ratio(
            [mine.get(task, found.limit_s) for task in tasks],
            [directed.get(task, found.limit_s) for task in tasks],
        ),
    )
    return row | dict(zip(_BESIDE, compared, strict=True))


def _ratio(mine: Sequence[float], others: Sequence[float]) -> Cell:
    return sum(mine) / sum(others) if others else NONE


def verdicts(all_found: Sequence[Answers]) -> list[Verdict]:
    """What the aims of the prover amount to; what was not run in whole meets no aim."""
    made: list[Verdict] = []
    for found in all_found:
        sets = dict.fromkeys(task.set for task in found.tasks)
        mine = [each for each in sets if found.has(DIRECTED, each)]
        made += [
            _count(found, of, aim)
            for of, (at_s, aim) in AIMS.items()
            if of in mine and at_s == found.limit_s
        ]
        made += [_laws(found)] if "laws" in mine else []
        made += [_ahead(found, each) for each in ("leon", "hipspec") if each in mine]
        both = (DIRECTED, ENUMERATIVE)
        if found.of(*STANDARD) and all(found.has(mode, *STANDARD) for mode in both):
            made += [_more(found), _baseline(found)]
        if any(True for _ in _ours(found)):
            made += [_nothing_false(found), _nothing_fails(found)]
    return made


def _count(found: Answers, of: str, aim: int) -> Verdict:
    solved, tasks = len(found.solved(DIRECTED, (of,))), len(found.of(of))
    return Verdict(
        f"{of}, {found.limit_s:g} s: {aim} of {WHOLE[of]} proved",
        f"{solved} of {tasks}",
        tasks == WHOLE[of] and solved >= aim,
    )


def _laws(found: Answers) -> Verdict:
    tasks, solved = found.of("laws"), found.solved(DIRECTED, ("laws",))
    missing = ", ".join(task.name for task in tasks if task not in solved)
    return Verdict(
        f"laws, {found.limit_s:g} s: all true ones proved, all false ones refuted",
        f"{len(solved)} of {len(tasks)}" + (f"; not {missing}" if missing else ""),
        len(tasks) == WHOLE["laws"] and not missing,
    )


def _ahead(found: Answers, of: str) -> Verdict:
    """Met only where every way of cvc5 that is there was asked."""
    ways = [name for name in found.by_solver if "cvc5" in name]
    others = {name: len(found.solved(name, (of,))) for name in ways if found.has(name, of)}
    solved = len(found.solved(DIRECTED, (of,)))
    said = [f"{name} {others.get(name, 'not asked')}" for name in ways] or ["no cvc5 here"]
    return Verdict(
        f"{of}, {found.limit_s:g} s: more proved than by cvc5 in any way",
        f"{solved} of {len(found.of(of))}; {', '.join(said)}",
        0 < len(others) == len(ways) and _is_whole(found, of) and solved > max(others.values()),
    )


def _more(found: Answers) -> Verdict:
    directed, other = found.solved(DIRECTED, STANDARD), found.solved(ENUMERATIVE, STANDARD)
    tasks = found.of(*STANDARD)
    spent = [sum(s.get(task, found.limit_s) for task in tasks) for s in (directed, other)]
    share = spent[0] / spent[1] if spent[1] else math.nan
    return Verdict(
        f"standard sets, {found.limit_s:g} s: 38 more than the enumerative mode in 1/20 the time",
        f"{len(directed)} and {len(other)} of {len(tasks)}; {share:.3f} of its time with limits",
        _is_whole(found, *STANDARD) and len(directed) >= len(other) + 38 and share <= 1 / 20,
    )


def _baseline(found: Answers) -> Verdict:
    """Without this the enumerative mode would be no baseline."""
    mine, theirs = found.solved(ENUMERATIVE, STANDARD), found.solved(CONJECTURES, STANDARD)
    is_asked = CONJECTURES in found.by_solver and found.has(CONJECTURES, *STANDARD)
    return Verdict(
        f"standard sets, {found.limit_s:g} s: the enumerative mode solves as many as {CONJECTURES}",
        f"{len(mine)} and {len(theirs)}" if is_asked else f"{len(mine)}; {CONJECTURES} not asked",
        is_asked and len(mine) >= len(theirs),
    )


def _is_whole(found: Answers, *sets: str) -> bool:
    return all(len(found.of(each)) == WHOLE[each] for each in sets)


def _nothing_false(found: Answers) -> Verdict:
    said = list(_ours(found))
    wrong = [each for each, task, word in said if task.is_false and word == PROVED]
    count = len({task for _, task, _ in said if task.is_false})
    aim = f"{found.limit_s:g} s: nothing false is proved"
    return Verdict(aim, "; ".join(wrong) or f"none of {count}", not wrong)


def _nothing_fails(found: Answers) -> Verdict:
    said = list(_ours(found))
    wrong = [each for each, _, word in said if word == FAILED]
    aim = f"{found.limit_s:g} s: no search ends in an error of its own"
    return Verdict(aim, "; ".join(wrong) or f"none of {len(said)}", not wrong)


def _ours(found: Answers) -> Iterator[tuple[str, Task, str]]:
    """What our modes said of each task, named."""
    for name, answers in found.by_solver.items():
        for task, answer in answers.items() if name.startswith("ours") else ():
            yield f"{name}: {task.set}/{task.name}", task, answer.said
