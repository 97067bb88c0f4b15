"""Statements about functions that call each other are proved as a group, each by the others."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from prover.checker import verify
from prover.checks import check
from prover.errors import Rejected
from prover.program import Program
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.search.directed import Search, search
from prover.search.hypotheses import Case, Member
from prover.search.together import Mutual, Together
from prover.syntax.problem import parse
from prover.terms import Variable
from prover.verdict import Budget, Proved, Refuted
from tests.prover.theory import PLUS

BUDGET = Budget(steps=100_000, seconds=20.0)

PARITY = f"""
data nat = zero | succ(nat)
fun even(nat): bool
fun odd(nat): bool
even(zero) = true
even(succ(n)) = odd(n)
odd(zero) = false
odd(succ(n)) = even(n)
{PLUS}"""

FOREST = f"""
data nat = zero | succ(nat)
data tree = node(nat, forest)
data forest = none | more(tree, forest)
free g(nat): nat
fun map_tree(tree): tree
fun map_forest(forest): forest
map_tree(node(n, f)) = node(g(n), map_forest(f))
map_forest(none) = none
map_forest(more(t, f)) = more(map_tree(t), map_forest(f))
{PLUS}
fun size(tree): nat
fun sizes(forest): nat
size(node(n, f)) = succ(sizes(f))
sizes(none) = zero
sizes(more(t, f)) = plus(size(t), sizes(f))
fun join(forest, forest): forest
join(none, h) = h
join(more(t, f), h) = more(t, join(f, h))
fun mirror(tree): tree
fun mirrors(forest): forest
mirror(node(n, f)) = node(n, mirrors(f))
mirrors(none) = none
mirrors(more(t, f)) = join(mirrors(f), more(mirror(t), none))
"""

RING = """
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
fun first(list): list
fun second(list): list
fun third(list): list
first(nil) = nil
first(cons(x, xs)) = cons(x, second(xs))
second(nil) = nil
second(cons(x, xs)) = cons(x, third(xs))
third(nil) = nil
third(cons(x, xs)) = cons(x, first(xs))
fun none(nat): bool
fun one(nat): bool
fun two(nat): bool
none(zero) = true
none(succ(n)) = two(n)
one(zero) = false
one(succ(n)) = none(n)
two(zero) = false
two(succ(n)) = one(n)
"""

TRUE = [
    (PARITY, "forall n: nat. even(n) = not odd(n)", 2),
    (PARITY, "forall n: nat, m: nat. even(plus(n, m)) = (even(n) = even(m))", 2),
    (PARITY, "forall n: nat. not (even(n) and odd(n))", 2),
    (FOREST, "forall t: tree. size(map_tree(t)) = size(t)", 2),
    (FOREST, "forall f: forest. sizes(map_forest(f)) = sizes(f)", 2),
    (FOREST, "forall t: tree. size(mirror(t)) = size(t)", 2),
    (FOREST, "forall t: tree. mirror(mirror(t)) = t", 2),
    (FOREST, "forall t: tree. mirror(map_tree(t)) = map_tree(mirror(t))", 2),
    (RING, "forall xs: list. first(xs) = xs", 3),
    (RING, "forall n: nat. none(n) or one(n) or two(n)", 3),
    (RING, "forall n: nat. not (none(n) and two(n))", 3),
]

FALSE = [
    (PARITY, "forall n: nat. even(n) = odd(n)"),
    (PARITY, "forall n: nat, m: nat. even(plus(n, m)) = even(n)"),
    (PARITY, "forall n: nat. even(n) or not odd(succ(succ(n)))"),
    (FOREST, "forall t: tree. map_tree(t) = mirror(t)"),
    (FOREST, "forall t: tree. mirror(t) = t"),
    (FOREST, "forall f: forest, h: forest. sizes(join(f, h)) = sizes(f)"),
    (RING, "forall n: nat. none(n) or one(n)"),
    (RING, "forall n: nat. one(n) = two(n)"),
]


def _program(theory: str, goal: str) -> Program:
    program = parse(f"{theory}\nprove goal: {goal}".encode(), "problem.prove")
    check(program)
    return program


def _proved(theory: str, goal: str) -> tuple[Program, Any]:
    program = _program(theory, goal)
    verdict = search(program, program.goals[0], BUDGET)
    assert isinstance(verdict, Proved), verdict
    return program, verdict.certificate


@pytest.mark.parametrize(("theory", "goal", "count"), TRUE)
def test_what_needs_a_companion_is_proved_in_a_group(theory: str, goal: str, count: int) -> None:
    program, certificate = _proved(theory, goal)
    assert max(map(len, certificate["groups"])) == count
    assert verify(program, certificate).statement is program.goals[0]


@pytest.mark.parametrize(("theory", "goal"), FALSE)
def test_what_is_false_of_such_functions_is_refuted(theory: str, goal: str) -> None:
    program = _program(theory, goal)
    assert isinstance(search(program, program.goals[0], BUDGET), Refuted)


def test_no_member_of_a_group_can_be_left_out() -> None:
    program, certificate = _proved(*TRUE[-2][:2])
    (group,) = (each for each in certificate["groups"] if len(each) == 3)
    place = certificate["groups"].index(group)
    for index in range(3):
        less = copy.deepcopy(certificate)
        del less["groups"][place][index]
        with pytest.raises(Rejected):
            verify(program, less)


def test_a_member_is_no_hypothesis_for_what_is_not_smaller() -> None:
    program, certificate = _proved(*TRUE[0][:2])
    wrong = copy.deepcopy(certificate)
    (group,) = (each for each in wrong["groups"] if len(each) == 2)
    steps = [step for lemma in group for case in lemma["cases"] for step in case["proof"]]
    uses = [step for step in steps if step.get("rule", "").startswith("ih:")]
    assert len(uses) == 2
    for step in uses:
        kept = step["with"]
        step["with"] = {name: f"(succ {value})" for name, value in kept.items()}
        with pytest.raises(Rejected, match="not smaller"):
            verify(program, wrong)
        step["with"] = kept


@pytest.mark.parametrize(
    ("said", "joins"), [("even(n) = not odd(n)", True), ("odd(n) = false", False)]
)
def test_only_what_tests_allow_joins_a_group(said: str, joins: bool) -> None:
    program = _program(PARITY, f"forall n: nat. {said}")
    (goal,) = program.goals
    tools = Search(program, goal, BUDGET, 0).loop.tools
    conjecture = Conjecture.of(goal)
    (n,) = goal.variables
    _, succ = program.constructors(n.sort)
    smaller = Variable("m", n.sort)
    unfolded = conjecture.instance({n: succ(smaller)})
    branch = Branch(tools, unfolded.left, unfolded.right, {n.name: None})
    branch.simplify()
    first = Member("goal", conjecture, n)
    group = Together(tools, Mutual(program), first)
    case = Case("goal", conjecture, {n: succ(smaller)}, group.members)
    assert (group.join(branch, case) is not None) is joins
    assert len(group.members) == (2 if joins else 1)


def test_a_proof_says_what_was_proved_together() -> None:
    program = _program(PARITY, TRUE[0][1])
    verdict = search(program, program.goals[0], BUDGET)
    assert isinstance(verdict, Proved)
    assert any("Proved together with lemma 2" in line for line in verdict.explanation)


def test_statements_are_of_one_shape_up_to_functions_that_call_each_other() -> None:
    program = _program(PARITY, "forall n: nat, m: nat. even(plus(n, m)) = odd(plus(m, n))")
    (goal,) = program.goals
    mutual = Mutual(program)
    one = Conjecture.of(goal)
    assert mutual.concerns(one)
    assert mutual.same_shape(one, one.flipped())
    n, m = goal.variables
    assert not mutual.same_shape(one, one.instance({m: n}))
    assert not mutual.same_shape(one.instance({m: n}), one)
