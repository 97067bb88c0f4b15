"""Theorems are proved with certificates that replay, false statements are refuted."""

from __future__ import annotations

import json

import pytest

from prover.checker import verify
from prover.evaluator import Evaluator
from prover.program import Program
from prover.search.directed import search
from prover.verdict import Budget, Proved, Refuted, Verdict
from tests.prover.proofs import LISTS, NATURALS, program

BUDGET = Budget(steps=200_000, seconds=20.0)

THEOREMS = {
    "plus is associative": (
        NATURALS,
        "(forall ((x Nat) (y Nat) (z Nat)) (= (plus x (plus y z)) (plus (plus x y) z)))",
    ),
    "plus commutes": (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))"),
    "append is associative": (
        LISTS,
        "(forall ((x L) (y L) (z L)) (= (app x (app y z)) (app (app x y) z)))",
    ),
    "a conditional goal": (
        NATURALS,
        "(forall ((x Nat) (y Nat)) (=> (leq x y) (leq x (S y))))",
    ),
    "prefill in chunks": (
        LISTS,
        "(forall ((s St) (a L) (r L)) (= (prefill s (app a r)) (prefill (prefill s a) r)))",
    ),
}


def _verdict(declarations: str, goal: str) -> tuple[Program, Verdict]:
    found = program(declarations, goal)
    return found, search(found, found.goals[0], BUDGET)


@pytest.mark.parametrize("name", THEOREMS)
def test_a_theorem_is_proved_and_its_certificate_replays(name: str) -> None:
    found, verdict = _verdict(*THEOREMS[name])
    assert isinstance(verdict, Proved)
    data = json.loads(json.dumps(verdict.certificate))
    assert str(verify(found, data)) == verdict.statement


@pytest.mark.parametrize(
    ("declarations", "goal"),
    [
        (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus x x)))"),
        (LISTS, "(forall ((x L) (y L)) (= (app x y) (app y x)))"),
        (NATURALS, "(forall ((x Nat) (y Nat)) (=> (leq x y) (leq y x)))"),
    ],
)
def test_a_false_goal_is_refuted_by_values_that_another_evaluator_tells_apart(
    declarations: str, goal: str
) -> None:
    found, verdict = _verdict(declarations, goal)
    assert isinstance(verdict, Refuted)
    assert Evaluator(found).refutes(found.goals[0], verdict.values)
    assert verdict.left is not verdict.right
