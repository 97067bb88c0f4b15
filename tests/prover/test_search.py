"""Theorems are proved with certificates that replay, false statements are refuted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from prover.checker import verify
from prover.evaluator import Evaluator
from prover.program import Program
from prover.samples.samples import Samples
from prover.search import tactics
from prover.search.directed import search
from prover.search.trial import Trial
from prover.synthesis.steps import StepProblem
from prover.terms import Term
from prover.verdict import Budget, Proved, Reason, Refuted, Unknown, Verdict
from tests.prover.proofs import LISTS, NATURALS, program

BUDGET = Budget(steps=200_000, seconds=20.0)

ACCUMULATING = (
    LISTS
    + """
(define-fun-rec onto ((x L) (y L)) L (match x ((nil y) ((cons h t) (onto t (cons h y))))))
"""
)
FILTER = """
(define-fun-rec keep ((x L)) L
  (match x ((nil nil) ((cons h t) (ite (likes h) (cons h (keep t)) (keep t))))))
"""
FORESTS = (
    LISTS
    + """
(declare-datatypes ((F 0)) (((leaf) (tree (top E) (below F) (beside F)))))
(define-fun-rec pruned ((x F)) F (match x ((leaf leaf)
  ((tree h t u) (ite (likes h) (tree h (pruned t) (pruned u)) (pruned u))))))
(define-fun-rec holds ((p L) (x F)) Bool (match p ((nil true)
  ((cons a q) (match x ((leaf false)
    ((tree h t u) (ite (= a h) (holds q t) (holds p u)))))))))
"""
)
SORTING = """
(declare-datatypes ((Nat 0)) (((Z) (S (pred Nat)))))
(declare-datatypes ((L 0)) (((nil) (cons (hd Nat) (tl L)))))
(define-fun-rec plus ((x Nat) (y Nat)) Nat (match x ((Z y) ((S n) (S (plus n y))))))
(define-fun-rec leq ((x Nat) (y Nat)) Bool
  (match x ((Z true) ((S a) (match y ((Z false) ((S b) (leq a b))))))))
(define-fun-rec snoc ((a Nat) (x L)) L
  (match x ((nil (cons a nil)) ((cons h t) (cons h (snoc a t))))))
(define-fun-rec rev ((x L)) L (match x ((nil nil) ((cons h t) (snoc h (rev t))))))
(define-fun-rec ins ((a Nat) (x L)) L (match x ((nil (cons a nil))
  ((cons h t) (ite (leq a h) (cons a (cons h t)) (cons h (ins a t)))))))
(define-fun-rec sort ((x L)) L (match x ((nil nil) ((cons h t) (ins h (sort t))))))
(define-fun-rec sum ((x L)) Nat (match x ((nil Z) ((cons h t) (plus h (sum t))))))
"""

LARGER = (
    NATURALS
    + """
(define-fun-rec less ((x Nat) (y Nat)) Bool
  (match y ((Z false) ((S b) (match x ((Z true) ((S a) (less a b))))))))
(define-fun larger ((x Nat) (y Nat)) Nat (ite (less x y) y x))
"""
)

TREES = (
    LARGER
    + """
(declare-datatypes ((T 0)) (((tip) (fork (label Nat) (left T) (right T)))))
(define-fun-rec over ((a Nat) (x T)) Nat
  (match x ((tip a) ((fork n t u) (over (larger (over a t) n) u)))))
(define-fun-rec largest ((x T)) Nat
  (match x ((tip Z) ((fork n t u) (larger n (larger (largest u) (largest t)))))))
(define-fun-rec paths ((a Nat) (x T)) Nat
  (match x ((tip a) ((fork n t u) (larger (paths (plus a n) t) (paths (plus a n) u))))))
(define-fun-rec longest ((x T)) Nat
  (match x ((tip Z) ((fork n t u) (plus n (larger (longest t) (longest u)))))))
"""
)

LABELS = """
(declare-datatypes ((N 0)) (((nil) (cons (hd Nat) (tl N)))))
(define-fun-rec sum ((x N)) Nat (match x ((nil Z) ((cons h t) (plus h (sum t))))))
(define-fun-rec labels ((x T) (y N)) N
  (match x ((tip y) ((fork n t u) (labels t (cons n (labels u y)))))))
(define-fun-rec total ((x T)) Nat
  (match x ((tip Z) ((fork n t u) (plus n (plus (total t) (total u)))))))
"""

THEOREMS = {
    "an order is transitive": (
        NATURALS,
        "(forall ((x Nat) (y Nat) (z Nat)) (=> (and (leq x y) (leq y z)) (leq x z)))",
    ),
    "an operator that is kept whole": (TREES, "(forall ((x T)) (= (over Z x) (largest x)))"),
    "an accumulator inside a call": (
        TREES + LABELS,
        "(forall ((x T)) (= (sum (labels x nil)) (total x)))",
    ),
    "an operator inside another": (TREES, "(forall ((x T)) (= (paths Z x) (longest x)))"),
    "an order tells all apart": (
        LARGER,
        "(forall ((x Nat) (y Nat)) (=> (and (not (less x y)) (not (less y x))) (= x y)))",
    ),
    "the larger one commutes": (LARGER, "(forall ((x Nat) (y Nat)) (= (larger x y) (larger y x)))"),
    "the larger one of three": (
        LARGER,
        "(forall ((x Nat) (y Nat) (z Nat)) (= (larger x (larger y z)) (larger y (larger x z))))",
    ),
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
    "reversing twice": (LISTS, "(forall ((x L)) (= (rev (rev x)) x))"),
    "reversing an append": (
        LISTS,
        "(forall ((x L) (y L)) (= (rev (app x y)) (app (rev y) (rev x))))",
    ),
    "an accumulator": (ACCUMULATING, "(forall ((x L)) (= (onto x nil) (rev x)))"),
    "an accumulator on one side": (ACCUMULATING, "(forall ((x L)) (= (rev (onto x nil)) x))"),
    "two steps at a time": (NATURALS, "(forall ((x Nat)) (= (even (plus x x)) true))"),
    "a function of the user's": (
        LISTS + FILTER,
        "(forall ((x L) (y L)) (= (keep (app x y)) (app (keep x) (keep y))))",
    ),
    "what is known cannot be": (
        FORESTS,
        "(forall ((p L) (x F)) (=> (holds p (pruned x)) (holds p x)))",
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


def test_the_explanation_reads_as_a_proof() -> None:
    _, verdict = _verdict(SORTING, "(forall ((x L)) (= (sum (rev x)) (sum (sort x))))")
    assert isinstance(verdict, Proved)
    lines = verdict.explanation
    assert lines[0] == "Theorem: (sum (rev xs)) = (sum (sort xs)), for all xs."
    assert any("remove a composition" in line for line in lines)
    proof = lines[lines.index("Proof of the theorem.") :]
    assert proof[1] == "  By induction on xs."
    assert any(line.endswith("by the induction hypothesis") for line in proof)
    assert sum(" by lemma " in line for line in proof) == 2


def test_what_is_neither_proved_nor_refuted_says_what_is_left() -> None:
    found = program(NATURALS, THEOREMS["plus commutes"][1])
    verdict = search(found, found.goals[0], Budget(steps=60, seconds=20.0))
    assert isinstance(verdict, Unknown)
    assert verdict.reason is Reason.STEPS


_PRINT = """
import hashlib, json, sys
from tests.prover.test_search import BUDGET, THEOREMS
from tests.prover.proofs import program
from prover.search.directed import search
for declarations, goal in THEOREMS.values():
    found = program(declarations, goal)
    verdict = search(found, found.goals[0], BUDGET)
    print(hashlib.sha256(json.dumps(verdict.certificate).encode()).hexdigest())
"""


def test_the_same_search_gives_the_same_certificates_however_python_hashes() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "42")
    }
    assert len(printed) == 1
    assert b"\n" in next(iter(printed))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_false_is_proved_whatever_the_synthesiser_says(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False step lemmas, and tests that would let them pass, lead to no proof of anything false."""
    monkeypatch.setattr(Trial, "may_hold", lambda self, conjecture: True)
    monkeypatch.setattr(Trial, "survives", lambda self, conjecture: True)

    def wrong(problem: StepProblem, *_: object) -> Iterator[Term]:
        yield from (meaning for _, meaning in problem.holes[seed % 2 :])
        yield from (v for v in problem.parameters if v.sort is problem.term.sort)

    monkeypatch.setattr(tactics, "solutions", wrong)
    monkeypatch.setattr(Samples, "refute", lambda self, statement, effort=1: None)
    goals = [
        (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus x x)))"),
        (NATURALS, "(forall ((x Nat)) (= (even x) (odd x)))"),
        (LISTS, "(forall ((x L) (y L)) (= (app x y) (app y x)))"),
        (LISTS, "(forall ((x L)) (= (rev x) x))"),
    ]
    for declarations, goal in goals:
        found = program(declarations, goal)
        verdict = search(found, found.goals[0], Budget(steps=3_000, seconds=3.0))
        assert isinstance(verdict, Unknown)
