"""Right certificates are accepted and say what they prove; wrong ones are rejected, each kind."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from prover.checker import Verified, verify
from prover.errors import Inadmissible, OutOfFuel, Rejected, Undecided
from prover.evaluator import Evaluator
from prover.program import Program
from prover.syntax.problem import parse
from tests.prover.proofs import (
    LISTS,
    NATURALS,
    PROOFS,
    Data,
    case,
    certificate,
    compute,
    lemma,
    plus_associates,
    program,
    reverse_twice,
    rewrite,
)

STATEMENT = ("variables", "conditions", "left", "right")


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_by_hand_is_accepted_and_its_goal_is_the_statement(name: str) -> None:
    found, data = PROOFS[name]()
    verified = verify(found, json.loads(json.dumps(data)))
    assert verified.statement == found.goals[0]
    assert str(verified) == f"proved: {found.goals[0]}"


def test_the_statement_is_printed_with_its_assumptions() -> None:
    text = NATURALS + "(assert (forall ((x Nat)) (= (plus x Z) x)))"
    found = program(text, "(forall ((x Nat)) (= (plus (plus x Z) Z) x))")
    by = rewrite("left", [], "assume:assumption-1", x="(plus x Z)")
    proof = case([], [], by, rewrite("left", [], "assume:assumption-1", x="x"))
    data = certificate([lemma("goal", "x:Nat", ("(plus (plus x Z) Z)", "x"), "", proof)])
    assert str(verify(found, data)) == (
        "proved: for all x: Nat. (plus (plus x Z) Z) = x\n"
        "  assuming assumption-1: for all x: Nat. (plus x Z) = x"
    )


def _rejects(data: Data, found: Program, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        verify(found, data)


def test_a_hypothesis_for_what_is_not_smaller_is_rejected() -> None:
    found, data = plus_associates()
    for step in data["groups"][0][0]["cases"][1]["proof"]:
        if step["rule"] == "ih:goal":
            step["with"]["x"] = "(S n)"
    _rejects(data, found, "not smaller")


def test_a_goal_is_no_lemma_for_itself() -> None:
    found = program(NATURALS, "(forall ((x Nat)) (= x Z))")
    itself = case([], [], rewrite("left", [], "ih:goal", x="x"))
    _rejects(certificate([lemma("goal", "x:Nat", ("x", "Z"), "", itself)]), found, "not smaller")
    itself = case([], [], rewrite("left", [], "lemma:goal", x="x"))
    _rejects(certificate([lemma("goal", "x:Nat", ("x", "Z"), "", itself)]), found, "goal")


def test_lemmas_of_a_group_may_not_use_each_other_without_descent() -> None:
    found = program(NATURALS, "(forall ((x Nat)) (= x Z))")
    one = lemma("A", "x:Nat", ("x", "Z"), "", case([], [], rewrite("left", [], "ih:B", x="x")))
    two = lemma("B", "x:Nat", ("x", "Z"), "", case([], [], rewrite("left", [], "ih:A", x="x")))
    last = case([], [], rewrite("left", [], "lemma:A", x="x"))
    goal = lemma("goal", "x:Nat", ("x", "Z"), "", last)
    _rejects(certificate([one, two], [goal]), found, "not smaller")


def test_the_second_variable_may_not_shrink_while_the_first_one_changes() -> None:
    found = program(NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))")
    whole = [["a", "Nat"], ["b", "Nat"]]
    step = rewrite("left", [], "ih:goal", x="(S a)", y="b")
    cases = [case(["a", "(S b)"], whole, step), case(["a", "Z"], [["a", "Nat"]])]
    data = lemma("goal", "x y:Nat", ("(plus x y)", "(plus y x)"), "x y", *cases)
    _rejects(certificate([data]), found, "not smaller")


def test_a_missing_case_is_named() -> None:
    found, data = plus_associates()
    del data["groups"][0][0]["cases"][0]
    _rejects(data, found, "no case for Z")


def test_a_new_variable_may_not_capture_another() -> None:
    found, data = plus_associates()
    text = json.dumps(data["groups"][0][0]["cases"][1]).replace('"n"', '"y"')
    data["groups"][0][0]["cases"][1] = json.loads(text)
    _rejects(data, found, "not a new name")


def test_a_variable_of_another_sort_is_rejected() -> None:
    found, data = PROOFS["chunked_prefill"]()
    data["groups"][0][0]["cases"][1]["proof"][2]["with"]["s"] = "h"
    _rejects(data, found, "another sort")


def test_a_proof_of_another_goal_proves_nothing() -> None:
    _, data = plus_associates()
    other = program(NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))")
    _rejects(data, other, "does not say what the goal says")


def test_a_function_that_does_not_terminate_proves_nothing() -> None:
    text = NATURALS + "(define-fun-rec loop ((x Nat)) Nat (S (loop x)))"
    found = program(text, "(= (loop Z) (loop (S Z)))")
    with pytest.raises(Inadmissible, match="loop: it may not terminate"):
        verify(found, certificate([lemma("goal", "", ("(loop Z)", "(loop (S Z))"), "")]))


@pytest.mark.parametrize(
    "data",
    [None, 7, [], {}, {"format": "thoth-certificate-1"}, {"format": 1, "goal": 1, "groups": 1}],
)
def test_other_data_is_rejected_and_never_a_traceback(data: Any) -> None:
    with pytest.raises(Rejected):
        verify(program(NATURALS, "(= Z Z)"), data)


def test_a_deep_certificate_is_rejected() -> None:
    step: Data = {"by": "arguments", "proofs": []}
    for _ in range(3000):
        step = {"by": "have", "name": "h", "left": "Z", "right": "Z", "proof": [step]}
    proof = lemma("goal", "", ("Z", "Z"), "", case([], [], step))
    _rejects(certificate([proof]), program(NATURALS, "(= Z Z)"), "nested too deep")


# What each step must refuse, on a goal that is false

FALSE_GOAL = "(forall ((x L) (y L) (e E)) (=> (= (rev x) y) (= x y)))"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], "the sides differ"),
        ([{"by": "absurd", "of": "condition-1"}], "may be"),
        ([{"by": "absurd", "of": "condition-2"}], "condition-2"),
        ([{"by": "injective", "of": "condition-1", "field": 0, "name": "h"}], "no constructor"),
        ([{"by": "equal", "of": "condition-1", "name": "h"}], "no .= s t. = true"),
        ([{"by": "arguments", "proofs": []}], "different symbols"),
        ([{"by": "cases", "of": "x", "name": "h", "branches": []}], "2 constructors"),
        ([{"by": "cases", "of": "e", "name": "h", "branches": []}], "0 constructors"),
        ([{"by": "have", "name": "h", "left": "x", "right": "y", "proof": []}], "sides differ"),
        ([{"by": "have", "name": "h", "left": "x", "right": "e", "proof": []}], "sorts"),
        ([{"by": "because"}], "unknown step because"),
        ([rewrite("left", [], "hypothesis:condition-1")], "speaks of .rev x., and here is x"),
        ([rewrite("left", [], "define:rev:3")], "rev has 2 equations"),
        ([rewrite("left", [], "define:rev:0")], "rev has 2 equations"),
        ([rewrite("left", [], "define:likes:1")], "likes"),
        ([rewrite("left", [], "assume:assumption-1", x="x")], "assumption-1"),
        ([rewrite("left", [], "lemma:goal", x="x", y="y", e="e")], "goal"),
        ([rewrite("left", [], "ih:goal", x="x", y="y", e="e")], "not smaller"),
        ([rewrite("left", [], "define:app:1", y="x")], "speaks of .app nil x., and here is x"),
        ([rewrite("left", [], "define:app:1", y="e")], "another sort"),
        ([rewrite("left", [], "define:app:1", z="x")], "variables are others"),
        ([rewrite("left", [], "define:app:1", y="unknown")], "unknown symbol"),
        ([rewrite("left", [0], "define:rev:1")], "malformed"),
        ([rewrite("up", [], "define:rev:1")], "left or right"),
        ([compute("left", [])], "nothing is to compute"),
    ],
)
def test_a_step_that_does_not_follow_is_rejected(steps: list[Data], reason: str) -> None:
    found = program(LISTS, FALSE_GOAL)
    proof = lemma("goal", "x y:L e:E", ("x", "y"), "", case([], [], *steps))
    proof["conditions"] = [["(rev x)", "y"]]
    _rejects(certificate([proof]), found, reason)


def test_the_variables_of_a_branch_must_be_new() -> None:
    found = program(LISTS, FALSE_GOAL)
    nil: Data = {
        "variables": [],
        "proof": [
            rewrite("left", [], "hypothesis:h"),
            rewrite("right", [], "hypothesis:condition-1") | {"backward": True},
            rewrite("right", [0], "hypothesis:h"),
            rewrite("right", [], "define:rev:1"),
        ],
    }
    reasons = {"x t": "not a new name", "k k": "not a new name", "k nil": "not a new name"}
    reasons |= {"k": "malformed", "k t": "the sides differ"}
    for names, reason in reasons.items():
        branch: Data = {"variables": names.split(), "proof": []}
        split = {"by": "cases", "of": "x", "name": "h", "branches": [nil, branch]}
        proof = lemma("goal", "x y:L e:E", ("x", "y"), "", case([], [], split))
        proof["conditions"] = [["(rev x)", "y"]]
        _rejects(certificate([proof]), found, reason)


def test_a_conditional_hypothesis_needs_its_conditions_proved() -> None:
    found, data = PROOFS["smaller_than_successor"]()
    step = data["groups"][0][0]["cases"][2]["proof"][1]
    wrong: list[list[Any]] = [[], [[]], [*step["conditions"], []]]
    for conditions in wrong:
        step["conditions"] = conditions
        with pytest.raises(Rejected):
            verify(found, data)


# Random edits


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key of it."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


def _edit(data: Data, places: list[tuple[Any, Any]], draw: random.Random) -> bool:
    """One random change; False where it would change nothing."""
    holder, key = draw.choice(places)
    old = holder[key]
    if isinstance(old, bool):
        holder[key] = not old
    elif isinstance(old, int):
        holder[key] = old + draw.choice((-1, 1))
    elif isinstance(old, str):
        others = [h[k] for h, k in _places(data) if isinstance(h[k], str) and h[k] != old]
        holder[key] = draw.choice(others)
    elif isinstance(old, list) and old:
        what = draw.choice(("delete", "repeat", "swap"))
        index = draw.randrange(len(old))
        if what == "delete":
            del old[index]
        elif what == "repeat":
            old.insert(index, copy.deepcopy(old[index]))
        elif len(old) > 1:
            old[index], old[index - 1] = old[index - 1], old[index]
            return bool(old[index] != old[index - 1])
        else:
            return False
    else:
        return False
    return True


def _attempt(found: Program, data: Data) -> Verified | None:
    try:
        return verify(found, data)
    except Rejected:
        return None


def _is_true(found: Program, verified: Verified, draw: random.Random) -> bool:
    """Whether no sample refutes a lemma of the certificate."""
    for statement in (*verified.lemmas, verified.statement):
        for _ in range(40):
            evaluator = Evaluator(found, seed=draw.randrange(1000))
            values = {
                v: evaluator.small(v.sort, draw.randrange(10**6)) for v in statement.variables
            }
            try:
                if evaluator.refutes(statement, values):
                    return False
            except (OutOfFuel, Undecided):
                continue
    return True


def test_a_thousand_edits_of_what_is_claimed_prove_nothing_else() -> None:
    """Statements, of goals and of lemmas, are edited; the proofs stay."""
    draw = random.Random(7)
    edits, accepted = 0, 0
    proofs = [make() for make in PROOFS.values()]
    while edits < 1000:
        found, original = draw.choice(proofs)
        data = copy.deepcopy(original)
        lemmas = [each for group in data["groups"] for each in group]
        chosen = draw.choice(lemmas)
        claim = {key: chosen[key] for key in STATEMENT}
        if not _edit(data, list(_places(claim)), draw):
            continue
        chosen.update(claim)
        edits += 1
        if chosen is lemmas[-1]:
            assert _attempt(found, data) is None, claim
        elif (verified := _attempt(found, data)) is not None:
            accepted += 1
            assert _is_true(found, verified, draw), claim
    print(f"{accepted} of {edits} edits left a lemma that is as true")
    assert accepted <= 10


def test_a_thousand_edits_anywhere_are_rejected_or_leave_a_proof_of_the_same_claim() -> None:
    draw = random.Random(11)
    edits, accepted = 0, []
    proofs = [make() for make in PROOFS.values()]
    while edits < 1000:
        found, original = draw.choice(proofs)
        data = copy.deepcopy(original)
        if not _edit(data, list(_places(data)), draw):
            continue
        edits += 1
        verified = _attempt(found, data)
        if verified is not None:
            accepted.append(data)
            assert verified.statement == found.goals[0]
            assert _is_true(found, verified, draw)
    # Steps on the two sides may be swapped, and a case may be there twice: still proofs.
    print(f"{len(accepted)} of {edits} edits left a proof")
    assert len(accepted) <= 50


def test_replaying_takes_time_in_proportion_to_the_proof() -> None:
    found, data = reverse_twice()
    first = data["groups"][0][0]
    copies = [[json.loads(json.dumps(first).replace("app-nil", f"n{i}"))] for i in range(2000)]
    data["groups"] = copies + data["groups"]
    assert len(verify(found, data).lemmas) == 2003


def test_false_statements_of_lists_are_refuted_by_evaluation() -> None:
    found = program(LISTS, "(forall ((xs L) (ys L)) (= (app xs ys) (app ys xs)))")
    evaluator = Evaluator(found)
    (goal,) = found.goals
    values = [evaluator.small(goal.variables[0].sort, seed) for seed in range(30)]
    pairs = [dict(zip(goal.variables, (a, b), strict=True)) for a in values for b in values]
    assert any(evaluator.refutes(goal, each) for each in pairs)


def test_one_text_gives_the_same_program_again() -> None:
    text = f"{LISTS}(prove (= nil nil))".encode()
    assert parse(text) == parse(text)
