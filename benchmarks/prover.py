"""Theorems of the standard sets, proved by ours and by cvc5: how many, and in what time.

Every file of THOTH_DATA/prover, one solver after the other on one core, with limits of 5 and 60
seconds. A file that our reader refuses is asked of nobody, and nobody solves it; one whose
definitions our checks refuse is asked of cvc5 alone.

The whole takes a day or two. As `python -m benchmarks.prover` it takes parts of it, and with
`--log` remembers every answer with the version of who gave it (of ours: a digest of the sources),
and goes on where an earlier run was ended. `--known` asks nobody: the result is made from what is
logged, of the sets that a solver was asked about in whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.prover_rows import Answers, Task, rows, verdicts
from benchmarks.prover_solvers import Answer, Solver, solvers
from benchmarks.result import CannotRun, Outcome, Setting, show, write

SEED = 0
# A set's name, its folder, and whether its files are false.
SETS = {
    "laws": ("laws", False),
    "isaplanner": ("tip/isaplanner", False),
    "clam": ("tip/prod", False),
    "vmcai isaplanner": ("vmcai15-dt/isaplanner", False),
    "vmcai clam": ("vmcai15-dt/clam", False),
    "hipspec": ("vmcai15-dt/hipspec", False),
    "leon": ("vmcai15-dt/leon", False),
    "sufu": ("sufu/cvc5", False),
    "tip2015": ("tip/tip2015", False),
    "grammars": ("tip/grammars", False),
    "false": ("tip/false", True),
}


@dataclass(frozen=True, slots=True)
class Part:
    """What of the whole is run: sets, at most so many files of each, limits, solvers by name;
    with `only_known` nobody is asked."""

    sets: Sequence[str] = tuple(SETS)
    most: int | None = None
    limits_s: Sequence[float] = (5.0, 60.0)
    solvers: Sequence[str] = ()
    log: Path | None = None
    only_known: bool = False


QUICK = Part(("laws", "isaplanner", "clam", "leon"), 4, (2.0,))


def run(scale: Scale, console: Console) -> Outcome:
    return measure(Part() if scale is Scale.FULL else QUICK, console)


def measure(part: Part, console: Console) -> Outcome:
    """Raises CannotRun where THOTH_DATA does not have the problems."""
    tasks = dict(_tasks(part))
    chosen = [each for each in solvers() if not part.solvers or each.name in part.solvers]
    log = _Log(part.log, part.only_known)
    found = []
    for limit_s in part.limits_s:
        by_solver = {
            solver.name: _ask_all(solver, tasks, limit_s, log, console) for solver in chosen
        }
        found.append(Answers(limit_s, tuple(tasks), by_solver))
    return Outcome([row for each in found for row in rows(each)], verdicts(found), SEED)


def _tasks(part: Part) -> Iterator[tuple[Task, Path]]:
    root = Path(os.environ.get("THOTH_DATA", "")) / "prover"
    if not (os.environ.get("THOTH_DATA") and root.is_dir()):
        raise CannotRun("THOTH_DATA does not name a folder with prover")
    for name in part.sets:
        folder, is_false = SETS[name]
        files = sorted((root / folder).rglob("*.smt2"))
        # Spread over the set, so that a part of it is like the whole.
        step = max(1, len(files) // part.most) if part.most else 1
        for file in files[::step][: part.most]:
            path = file.relative_to(root / folder).with_suffix("")
            yield Task(name, str(path), is_false or file.stem.startswith("false")), file


def _ask_all(
    solver: Solver, tasks: dict[Task, Path], limit_s: float, log: _Log, console: Console
) -> dict[Task, Answer]:
    answers = {}
    for task, file in tasks.items():
        key = (solver.name, solver.version, limit_s, task.set, task.name)
        answer = log.known.get(key)
        if answer is None and not log.is_closed:
            answer = log.add(key, solver.ask(file, limit_s))
        if answer is not None:
            answers[task] = answer
    solved = Answers(limit_s, tuple(tasks), {solver.name: answers}).solved(solver.name)
    console.print(f"{limit_s:g} s, {solver.name}: {len(solved)} of {len(answers)} solved")
    return answers


# Solver, its version, seconds, set, task.
_Key = tuple[str, str, float, str, str]


class _Log:
    """Answers as lines of a file, if there is one, so that a long run can be ended and taken up."""

    def __init__(self, path: Path | None, is_closed: bool) -> None:
        self._path = path
        self.is_closed = is_closed
        self.known: dict[_Key, Answer] = {}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            (solver, version, limit_s, of, name), said, seconds = json.loads(line)
            self.known[solver, version, limit_s, of, name] = Answer(said, seconds)

    def add(self, key: _Key, answer: Answer) -> Answer:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps([key, answer.said, round(answer.seconds, 4)]) + "\n")
        return answer


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 when it ran, 2 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prover", description=__doc__)
    add = parser.add_argument
    add("--sets", type=_words, default=tuple(SETS), help=f"of {', '.join(SETS)}, with commas")
    add("--limit", type=int, help="at most so many files of each set")
    add("--limits", type=_numbers, default=(5.0, 60.0), help="seconds, with commas")
    add("--solvers", action="append", default=[], help="one by its name; may be repeated")
    add("--log", type=Path, help="remember each answer here, and ask for none twice")
    add("--known", action="store_true", help="make the result from the log, and ask nobody")
    add("--json", type=Path, help="write the result here")
    said = parser.parse_args(arguments)
    console = Console()
    setting = Setting("prover", shlex.join(["python", "-m", "benchmarks.prover", *arguments]))
    chosen = Part(said.sets, said.limit, said.limits, said.solvers, said.log, said.known)
    try:
        outcome = measure(chosen, console)
    except CannotRun as reason:
        console.print(str(reason))
        return 2
    show(console, "prover", outcome)
    if said.json:
        write(said.json, setting, outcome)
    return 0


def _words(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    unknown = [each for each in found if each not in SETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no set is called {unknown[0]}")
    return found


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
