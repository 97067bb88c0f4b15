"""Every search of every mode proves, refutes and ends as it must; nothing false is proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prover.checker import verify
from prover.evaluator import Evaluator
from prover.program import Equality, Program, Statement
from prover.samples.samples import Samples
from prover.search import directed, enumerative, guided, tactics
from prover.syntax.problem import load, parse
from prover.terms import Term, Variable, variables
from prover.verdict import Budget, Proved, Refuted, Unknown, Verdict
from tests.prover.theory import APPEND, LENGTH, PLUS, REVERSE, TIMES, TURN

# On cores that others share a process waits for its turn.
SHARED_S = 8.0
TEXT = f"""
sort elem
data nat = zero | succ(nat)
data list = nil | cons(elem, list)
{PLUS}{TIMES}{APPEND}{REVERSE}{LENGTH}{TURN}prove {{goal}}
"""
TRUE_GOALS = [
    "forall x: nat, y: nat. plus(x, y) = plus(y, x)",
    "forall xs: list. reverse(reverse(xs)) = xs",
    "forall xs: list, ys: list. length(append(xs, ys)) = length(append(ys, xs))",
    "forall x: nat, y: nat. times(x, y) = times(y, x)",
]
FALSE_GOALS = [
    "forall x: nat, y: nat. plus(x, y) = plus(x, x)",
    "forall xs: list, ys: list. append(xs, ys) = append(ys, xs)",
    "forall xs: list. reverse(xs) = xs",
    "forall xs: list, ys: list. turn(xs, ys) = append(xs, ys)",
    "forall x: nat, y: nat. times(x, succ(y)) = plus(y, times(x, y))",
]
BUDGET = Budget(400_000, 20.0)

Search = Callable[[Program, Statement, Budget, int], Verdict]
MODES: dict[str, Search] = {
    "directed": directed.search,
    "enumerative": enumerative.search,
    "guided": guided.search,
}
everywhere = pytest.mark.parametrize("mode", list(MODES))


def problem(goal: str) -> Program:
    return parse(TEXT.format(goal=goal).encode(), "some.prove")


@everywhere
@pytest.mark.parametrize("goal", TRUE_GOALS)
def test_what_is_true_is_proved_and_the_checker_agrees(mode: str, goal: str) -> None:
    program = problem(goal)
    verdict = MODES[mode](program, program.goals[0], BUDGET, 0)
    assert isinstance(verdict, Proved)
    again = json.loads(json.dumps(verdict.certificate))
    assert str(verify(program, again)) == verdict.statement


@everywhere
@pytest.mark.parametrize("goal", FALSE_GOALS)
def test_what_is_false_is_refuted_by_values_that_differ(mode: str, goal: str) -> None:
    program = problem(goal)
    verdict = MODES[mode](program, program.goals[0], BUDGET, 0)
    assert isinstance(verdict, Refuted)
    assert Evaluator(program).refutes(program.goals[0], verdict.values)
    assert verdict.left is not verdict.right


def wrong_solutions(problem: object, samples: Samples, *_rest: object) -> Iterator[Term]:
    """Terms of the right sort that are no solution."""
    target: Term = problem.target  # type: ignore[attr-defined]
    constants = [s for s in samples.program.symbols() if s.result is target.sort]
    yield from (symbol() for symbol in constants if not symbol.arguments)
    yield from (v for v in variables(target) if v.sort is target.sort)
    yield target


def wrong_lemmas(samples: Samples, *_rest: object) -> Iterator[Equality]:
    """What is true of no values, and what is true of some."""
    for symbol in samples.program.functions:
        names = tuple(Variable(f"x{n}", sort) for n, sort in enumerate(symbol.arguments))
        call = symbol(*names)
        yield from (Equality(call, name) for name in names if name.sort is call.sort)
        for constructor in samples.program.constructors(symbol.result):
            if not constructor.arguments:
                yield Equality(call, constructor())


@everywhere
@pytest.mark.parametrize("goal", [*FALSE_GOALS, *TRUE_GOALS[:2]])
def test_false_lemmas_in_the_synthesisers_output_prove_nothing_false(
    mode: str, goal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither the refutations nor the tests of conjectures are there to help.
    monkeypatch.setattr(tactics, "solutions", wrong_solutions)
    monkeypatch.setattr(enumerative, "lemmas", wrong_lemmas)
    monkeypatch.setattr(Samples, "refute", lambda *_arguments: None)
    monkeypatch.setattr(Samples, "counterexample", lambda *_arguments: None)
    monkeypatch.setattr(Samples, "may_hold", lambda *_arguments: True)
    program = problem(goal)
    verdict = MODES[mode](program, program.goals[0], Budget(6_000, 2.0), 0)
    assert not isinstance(verdict, Refuted)
    if goal in FALSE_GOALS:
        assert isinstance(verdict, Unknown)
    elif isinstance(verdict, Proved):
        verify(program, verdict.certificate)


@everywhere
def test_a_search_ends_by_steps_and_by_the_clock(mode: str) -> None:
    program = problem(
        "forall x: nat, xs: list. times(x, times(length(turn(xs, xs)), x)) ="
        " times(times(x, x), length(append(xs, reverse(xs))))"
    )
    assert isinstance(MODES[mode](program, program.goals[0], Budget(200, 60.0), 0), Unknown)
    began_s = time.monotonic()
    MODES[mode](program, program.goals[0], Budget(10**9, 1.0), 0)
    assert time.monotonic() - began_s < SHARED_S


SCRIPT = """
import json, sys
from importlib import import_module
from prover.syntax.problem import parse
from prover.verdict import Budget
program = parse(sys.stdin.buffer.read(), "some.prove")
search = import_module(f"prover.search.{sys.argv[1]}").search
verdict = search(program, program.goals[0], Budget(400_000, 600.0))
print(json.dumps(verdict.certificate))
"""


@everywhere
def test_the_same_certificate_under_any_salt_of_hashes(mode: str) -> None:
    text = TEXT.format(goal=TRUE_GOALS[2])
    outputs = [_run_script(mode, text, salt) for salt in ("0", "1", "777")]
    assert len(outputs[0]) > 1_000
    assert len(dict.fromkeys(outputs)) == 1


def _run_script(mode: str, text: str, salt: str) -> str:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode],
        input=text, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def folder() -> Path:
    named = os.environ.get("THOTH_DATA")
    if not named or not (Path(named) / "prover").is_dir():
        pytest.skip("THOTH_DATA is not set to a folder with prover/: problems in SMT-LIB and TIP")
    return Path(named) / "prover"


def test_enumeration_solves_what_it_should(folder: Path) -> None:
    """A few of CLAM's that need lemmas: the baseline must not be a straw man."""
    solved = 0
    for path in sorted((folder / "tip" / "prod").glob("prop_*.smt2"))[::9]:
        program = load(path)
        verdict = enumerative.search(program, program.goals[0], Budget(600_000, 5.0))
        solved += isinstance(verdict, Proved)
    assert solved >= 3


def test_symbols_are_not_told_apart_by_their_names() -> None:
    """Renamed and turned round, a program has the same verdicts."""
    goal = TRUE_GOALS[2]
    renamed = TEXT.format(goal=goal)
    for old, new in (("plus", "zz"), ("times", "aa"), ("append", "qq"), ("succ", "a1")):
        renamed = renamed.replace(old, new)
    program = parse(renamed.encode(), "other.prove")
    for search in MODES.values():
        assert isinstance(search(program, program.goals[0], BUDGET, 0), Proved)
