"""The library of laws: certificates that replay, proofs that are still found, false laws."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import pytest

from prover import library
from prover.errors import Rejected
from prover.evaluator import Evaluator
from prover.library import THEORIES, Law, laws
from prover.proving import Problem, Settings, prove_all
from prover.syntax.problem import parse
from prover.verdict import Budget, Proved, Refuted

BUDGET = Budget(seconds=30)


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name)
def test_the_certificate_of_a_law_replays(law: Law) -> None:
    verified = law.verify()
    assert verified.statement == law.statement
    assert {a.name for a in verified.assumptions} <= {a.name for a in law.program.assumptions}


def test_only_what_is_said_of_attention_assumes_anything() -> None:
    assuming = {law.name for law in laws() if law.verify().assumptions}
    assert assuming == {"attention.split", "attention.streaming", "attention.paged"}


def test_the_certificate_of_one_law_proves_no_other() -> None:
    of = {law.name: law for law in laws()}
    one, other = of["tree.flattened"], of["tree.counted"]
    with pytest.raises(Rejected, match="it proves counted"):
        replace(one, certificate=other.certificate).verify()
    with pytest.raises(Rejected, match="the last lemma is not the goal"):
        replace(one, certificate={**other.certificate, "goal": "flattened"}).verify()


@pytest.mark.parametrize("theory", THEORIES)
def test_the_search_finds_every_law(theory: str) -> None:
    problem = Problem(f"{theory}.prove", library.text(theory))
    outcomes = list(prove_all([problem], Settings(budget=BUDGET)))
    missed = {f"{theory}.{o.goal}" for o in outcomes if not isinstance(o.verdict, Proved)}
    assert missed == set()
    assert len(outcomes) == sum(law.theory == theory for law in laws())


def test_what_is_no_law_is_refuted_with_values() -> None:
    said = library.text("refuted")
    program = parse(said, "refuted.prove")
    outcomes = list(prove_all([Problem("refuted.prove", said)], Settings(budget=BUDGET)))
    assert [o.goal for o in outcomes] == ["reordered", "nothing_leaves"]
    for goal, outcome in zip(program.goals, outcomes, strict=True):
        assert isinstance(outcome.verdict, Refuted)
        assert Evaluator(program).refutes(goal, outcome.verdict.values)


def test_every_theory_is_shipped_with_certificates_for_exactly_its_goals() -> None:
    names = {each.name for each in files(library).iterdir() if each.name.endswith("e")}
    assert names == {f"{theory}.prove" for theory in (*THEORIES, "refuted")}
    for theory in THEORIES:
        written = json.loads(files(library).joinpath(f"{theory}.json").read_bytes())
        goals = [law.statement.name for law in laws() if law.theory == theory]
        assert [each["goal"] for each in written] == goals


def test_the_library_says_what_it_proves() -> None:
    command = [sys.executable, "-m", "prover.library"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert "tree.found: proved: for all p: path, t: forest. (lookup p (insert p t)) = p" in said
    assert sum(": proved: " in line for line in said) == len(laws())
