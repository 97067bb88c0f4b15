"""Nothing false is proved by any search, and what refutes it is confirmed by values computed anew.

The false statements of THOTH_DATA: its folder of them, and the laws that are called false.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from prover.checks import check
from prover.errors import Inadmissible, SourceError
from prover.evaluator import Evaluator
from prover.program import Program
from prover.search import directed, enumerative, guided
from prover.syntax.problem import load
from prover.terms import substitute
from prover.verdict import Budget, Proved, Refuted, Verdict

BUDGET = Budget(steps=4_000, seconds=10.0)
SEARCHES = (directed, enumerative, guided)
SAMPLE = 8
AT_LEAST = 34  # are refuted with the budget, of the files that can be read


@pytest.fixture
def programs() -> dict[str, Program]:
    """What can be read and is well-defined of the files that state something false."""
    named = os.environ.get("THOTH_DATA")
    if not named or not (Path(named) / "prover").is_dir():
        pytest.skip("THOTH_DATA is not set to a folder with prover/: problems in SMT-LIB and TIP")
    root = Path(named) / "prover"
    found = {}
    for path in [*sorted((root / "tip/false").rglob("*.smt2")), *(root / "laws").glob("false*")]:
        try:
            program = load(path)
            check(program)
        except (SourceError, Inadmissible):
            continue
        found[path.name] = program
    return found


@pytest.mark.parametrize("by", SEARCHES)
def test_nothing_false_is_proved_in_a_sample(programs: dict[str, Program], by: ModuleType) -> None:
    names = list(programs)[:: len(programs) // SAMPLE]
    assert _refuted({name: programs[name] for name in names}, by) >= SAMPLE // 2


@pytest.mark.long
@pytest.mark.parametrize("by", SEARCHES)
def test_nothing_false_is_proved(programs: dict[str, Program], by: ModuleType) -> None:
    assert _refuted(programs, by) >= AT_LEAST


def _refuted(programs: dict[str, Program], by: ModuleType) -> int:
    verdicts = {name: by.search(each, each.goals[0], BUDGET) for name, each in programs.items()}
    assert not [name for name, verdict in verdicts.items() if isinstance(verdict, Proved)]
    confirmed = [_is_confirmed(programs[name], verdict) for name, verdict in verdicts.items()]
    return sum(confirmed)


def _is_confirmed(program: Program, verdict: Verdict) -> bool:
    """Whether it is a refutation; one whose values are the same on both sides is an error."""
    if not isinstance(verdict, Refuted):
        return False
    goal, again = program.goals[0], Evaluator(program)
    assert verdict.values.keys() == dict.fromkeys(goal.variables).keys()
    for condition in goal.conditions:
        sides = (substitute(side, verdict.values) for side in (condition.left, condition.right))
        assert again.equal(*sides)
    conclusion = (goal.conclusion.left, goal.conclusion.right)
    left, right = (again.value(substitute(side, verdict.values)) for side in conclusion)
    assert not again.equal(left, right)
    assert (left, right) == (verdict.left, verdict.right)
    return True
