"""The synthesiser finds the step lemmas that a person would write, and none where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prover.evaluator import Evaluator
from prover.notation import Notation
from prover.program import Equality, Statement
from prover.samples.samples import Samples
from prover.syntax.problem import parse
from prover.synthesis.bank import operators
from prover.synthesis.fitting import Task, fitting
from prover.synthesis.lifting import auxiliaries
from prover.synthesis.steps import StepProblem, solutions
from prover.terms import Symbol, Term, Variable, show, substitute, variables
from tests.prover.theory import APPEND, LENGTH, PLUS, REVERSE, TIMES, TURN

TEXT = f"""
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
data tree = leaf | node(tree, nat, tree)
free f(nat): nat
{PLUS}{TIMES}{APPEND}{REVERSE}{TURN}fun snoc(nat, list): list
snoc(x, nil) = cons(x, nil)
snoc(x, cons(y, ys)) = cons(y, snoc(x, ys))
fun sum(list): nat
sum(nil) = zero
sum(cons(x, xs)) = plus(x, sum(xs))
fun add(nat, list): nat
add(a, nil) = a
add(a, cons(x, xs)) = add(plus(a, x), xs)
{LENGTH}fun less(nat, nat): bool
less(x, zero) = false
less(zero, succ(y)) = true
less(succ(x), succ(y)) = less(x, y)
fun insert(nat, list): list
insert(x, nil) = cons(x, nil)
insert(x, cons(y, ys)) = if less(x, y) then cons(x, cons(y, ys)) else cons(y, insert(x, ys))
fun sorted(list): list
sorted(nil) = nil
sorted(cons(x, xs)) = insert(x, sorted(xs))
fun flat(tree): list
flat(leaf) = nil
flat(node(l, x, r)) = append(flat(l), cons(x, flat(r)))
fun total(tree): nat
total(leaf) = zero
total(node(l, x, r)) = plus(total(l), plus(x, total(r)))
fun map(nat -> nat, list): list
map(g, nil) = nil
map(g, cons(x, xs)) = cons(g(x), map(g, xs))
fun even(nat): bool
even(zero) = true
even(succ(n)) = not even(n)
fun half(nat): nat
half(zero) = zero
half(succ(zero)) = zero
half(succ(succ(n))) = succ(half(n))
prove forall x: nat, g: nat -> nat, t: tree, xs: list.
sum(sorted(flat(t))) = add(f(x), turn(map(g, xs), snoc(times(x, half(x)), reverse(xs))))
and total(t) = length(xs) and even(x)
"""
PROGRAM = parse(TEXT.encode(), "some.prove")
NOTATION = Notation(PROGRAM)
SORTS = {"x": "nat", "y": "nat", "a": "nat", "h": "nat", "m": "nat", "n": "nat"}
SORTS |= {
    "w": "list",
    "s": "list",
    "xs": "list",
    "ys": "list",
    "t": "tree",
    "l": "tree",
    "r": "tree",
}
SCOPE = {name: Variable(name, NOTATION.sorts[sort]) for name, sort in SORTS.items()}
SCOPE["g"] = Variable("g", NOTATION.symbols["map"].arguments[0])
RANKS = {symbol: number for number, symbol in enumerate(PROGRAM.functions)}


def term(text: str) -> Term:
    return NOTATION.term(text, SCOPE)


def problem(text: str, at: str, constructor: str, fields: str) -> StepProblem:
    whole, variable, head = term(text), SCOPE[at], NOTATION.symbols[constructor]
    new = tuple(SCOPE[name] for name in fields.split())
    recursive = [field for field in new if field.sort is variable.sort]
    holes = tuple(
        (Variable(f"hole{number}", whole.sort), substitute(whole, {variable: field}))
        for number, field in enumerate(recursive)
    )
    others = tuple(each for each in variables(whole) if each is not variable)
    return StepProblem(whole, variable, head, new, holes, others)


def found(of: StepProblem, ranks: dict[Symbol, int] | None = None) -> Iterator[Term]:
    return solutions(of, Samples(PROGRAM), RANKS if ranks is None else ranks, 1_000)


def assert_right(of: StepProblem, phi: Term) -> None:
    whole = substitute(phi, dict(of.holes))
    statement = Statement("", variables(of.target, whole), (), Equality(of.target, whole))
    assert Samples(PROGRAM, seed=99).refute(statement, 3) is None


STEPS = [
    ("(plus n x)", "x", "succ", "m", ["(succ hole0)"]),
    ("(sum (reverse w))", "w", "cons", "h s", ["(plus hole0 h)", "(plus h hole0)"]),
    ("(sum (append w ys))", "w", "cons", "h s", ["(plus h hole0)", "(plus hole0 h)"]),
    ("(sum (sorted w))", "w", "cons", "h s", ["(plus h hole0)", "(plus hole0 h)"]),
    ("(length (sorted w))", "w", "cons", "h s", ["(succ hole0)"]),
    ("(length (reverse w))", "w", "cons", "h s", ["(succ hole0)"]),
    ("(reverse (reverse w))", "w", "cons", "h s", ["(cons h hole0)"]),
    ("(times n x)", "x", "succ", "m", ["(plus n hole0)", "(plus hole0 n)"]),
    ("(append xs w)", "xs", "cons", "h s", ["(cons h hole0)"]),
    ("(map g (reverse w))", "w", "cons", "h s", ["(snoc (@ g h) hole0)"]),
    (
        "(sum (flat t))",
        "t",
        "node",
        "l h r",
        ["(plus hole0 (plus hole1 h))", "(plus h (plus hole0 hole1))"],
    ),
    ("(sum (append w xs))", "xs", "cons", "h s", ["(plus h hole0)", "(plus hole0 h)"]),
    ("(add a w)", "w", "cons", "h s", ["(plus h hole0)", "(plus hole0 h)"]),
]


@pytest.mark.parametrize(("text", "at", "constructor", "fields", "accepted"), STEPS)
def test_a_step_lemma_is_found_soon(
    text: str, at: str, constructor: str, fields: str, accepted: list[str]
) -> None:
    of = problem(text, at, constructor, fields)
    began_s = time.process_time()
    phi = next(found(of))
    assert time.process_time() - began_s < 2
    assert_right(of, phi)
    assert not accepted or show(phi) in accepted


def test_a_generalised_argument_and_an_accumulator() -> None:
    assert _first("(sum (snoc h w))", {"p": "(sum w)"}, "h") in ("(plus p h)", "(plus h p)")
    assert _first("(add a w)", {"p": "(sum w)"}, "a") in ("(plus p a)", "(plus a p)")
    assert _first("(turn w ys)", {"q": "(reverse w)"}, "ys") == "(append q ys)"
    assert _first("(reverse (snoc h w))", {"q": "(reverse w)"}, "h") == "(cons h q)"


def _first(target: str, holes: dict[str, str], *others: str) -> str:
    whole = term(target)
    leaves = [(Variable(name, term(text).sort), term(text)) for name, text in holes.items()]
    plain = [(SCOPE[name], SCOPE[name]) for name in others]
    made_of = operators(PROGRAM, [whole], RANKS, 1_000)
    task = Task(whole, (*leaves, *plain), made_of, 8_000)
    return show(next(fitting(task, Samples(PROGRAM))))


@pytest.mark.parametrize(
    ("text", "at", "constructor", "fields"),
    [
        ("(f (length w))", "w", "cons", "h s"),  # a free function says nothing of its neighbours
        ("(f x)", "x", "succ", "m"),
        ("(turn xs w)", "xs", "cons", "h s"),  # its accumulator grows
        ("(append w xs)", "xs", "cons", "h s"),
        ("(less (f x) y)", "x", "succ", "m"),
    ],
)
def test_none_is_found_where_there_is_none(
    text: str, at: str, constructor: str, fields: str
) -> None:
    began_s = time.process_time()
    assert list(found(problem(text, at, constructor, fields))) == []
    assert time.process_time() - began_s < 2


def test_functions_of_a_higher_rank_are_not_used() -> None:
    of = problem("(sum (reverse w))", "w", "cons", "h s")
    ranks = {symbol: 9 if symbol.name in ("plus", "add") else 1 for symbol in PROGRAM.functions}
    for phi in solutions(of, Samples(PROGRAM), ranks, 8, 3_000):
        assert "plus" not in show(phi)


def test_an_auxiliary_value_is_lifted() -> None:
    of = problem("(half x)", "x", "succ", "m")
    phi = next(found(of))
    assert "hole0" in show(phi)
    assert_right(of, phi)
    leaves = tuple((hole, meaning) for hole, meaning in of.holes)
    task = Task(of.target, leaves, operators(PROGRAM, [of.term], RANKS, 1_000), 8_000)
    lifted = [show(each) for each in auxiliaries(task, Samples(PROGRAM), of.variable, of.recursive)]
    assert "(even x)" in lifted


def test_a_false_candidate_becomes_a_sample() -> None:
    # Only values beyond the standing ones show that these differ; then another term is found.
    of = problem("(plus (half x) (half x))", "x", "succ", "m")
    for phi in found(of):
        assert_right(of, phi)


def test_every_solution_keeps_all_values() -> None:
    samples = Samples(PROGRAM, seed=3)
    for text, at, constructor, fields, _ in STEPS:
        of = problem(text, at, constructor, fields)
        for _, phi in zip(range(3), found(of), strict=False):
            whole = substitute(phi, dict(of.holes))
            batch = samples.batch(variables(of.target, whole))
            one, other = batch.column(of.target), batch.column(whole)
            assert all(a is b or a == b for a, b in zip(one, other, strict=True) if a and b)


def test_a_solution_has_the_value_that_an_evaluator_gives() -> None:
    of = problem("(sum (reverse w))", "w", "cons", "h s")
    phi = substitute(next(found(of)), dict(of.holes))
    evaluator = Evaluator(PROGRAM)
    for choice in range(40):
        values = {v: evaluator.small(v.sort, choice) for v in variables(of.target)}
        assert evaluator.equal(substitute(of.target, values), substitute(phi, values))


def test_the_same_candidates_under_any_salt_of_hashes() -> None:
    code = """
from test_synthesis import STEPS, found, problem, show
for step in STEPS[:6]:
    print([show(phi) for phi, _ in zip(found(problem(*step[:4])), "123")])
"""
    outputs = []
    for salt in ("0", "7", "4242"):
        here = Path(__file__).parent
        path = f"{here.parents[1]}{os.pathsep}{here}"
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
    assert outputs[0].count("\n") == 6
    assert len(dict.fromkeys(outputs)) == 1
