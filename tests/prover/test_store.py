"""Lemmas leave one program and are found, in other words, in all that define the same."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from prover.checker import verify
from prover.checks import check
from prover.errors import OutOfFuel, Undecided
from prover.evaluator import Evaluator
from prover.patterns import match
from prover.program import Program, Statement
from prover.search import directed
from prover.search.known import Recalled, recall
from prover.store.digests import Digests
from prover.store.portable import Entry, entries
from prover.syntax.problem import parse
from prover.terms import Term, Variable
from prover.verdict import Budget, Proved
from tests.prover.proofs import LISTS, NATURALS, PROOFS
from tests.prover.test_names import FREE, Disguise
from tests.prover.theory import APPEND, LENGTH, PLUS, REVERSE

BUDGET = Budget(20_000, 60.0)
PROBLEMS = {
    "naturals": (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))"),
    "lists": (LISTS, "(forall ((x L)) (= (rev (rev x)) x))"),
    "free functions": (LISTS, "(forall ((s St) (x L) (y L)) (= (prefill s (app x y)) "
                              "(prefill (prefill s x) y)))"),
    "conditions": (NATURALS, "(forall ((x Nat) (y Nat)) (=> (leq x y) (leq x (S y))))"),
    "mutual recursion": (NATURALS, "(forall ((x Nat)) (= (even (plus x x)) true))"),
    "assumptions": (FREE, "(forall ((x L) (y L)) (= (fold (app x y)) (mul (fold x) (fold y))))"),
}  # fmt: skip
SORTED = """
data nat = {nat}
data list = {list}
fun below(nat, nat): bool
below(zero, y) = true
below(succ(x), zero) = false
below(succ(x), succ(y)) = below(x, y)
fun insert(nat, list): list
insert(n, nil) = cons(n, nil)
insert(n, cons(m, xs)) = if below(n, m) then cons(n, cons(m, xs)) else cons(m, insert(n, xs))
fun length(list): nat
length(nil) = zero
length(cons(x, xs)) = succ(length(xs))
fun sort_of(list): list
sort_of(nil) = nil
sort_of(cons(x, xs)) = insert(x, sort_of(xs))
prove forall xs: list. length(sort_of(xs)) = length(xs)
"""
OF_TWO = f"""
sort elem
sort other
data list = nil | cons(elem, list)
data rest = none | more(other, rest)
{APPEND}fun join(rest, rest): rest
join(none, ys) = ys
join(more(x, xs), ys) = more(x, join(xs, ys))
"""
ONE = f"""
sort elem
data list = nil | cons(elem, list)
{APPEND}{REVERSE}
prove forall xs: list, a: list. reverse(append(xs, a)) = append(reverse(a), reverse(xs))
"""


def program(text: str, name: str = "some.prove") -> Program:
    found = parse(text.encode(), name)
    check(found)
    return found


def proved(found: Program, known: Recalled | None = None) -> Proved:
    lemmas = (known.lemmas,) if known else ()
    verdict = directed.search(found, found.goals[0], BUDGET, 0, *lemmas)
    assert isinstance(verdict, Proved)
    return verdict


def kept(found: Program) -> list[Entry]:
    """The lemmas that a search for the goal finds."""
    return list(entries(found, Digests(found), proved(found).certificate))


def recalled(found: Program, given: list[Entry]) -> Recalled:
    return recall(found, Digests(found), given)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PROBLEMS)
def test_what_differs_in_names_and_order_alone_has_the_same_lemmas(name: str, seed: int) -> None:
    declarations, goal = PROBLEMS[name]
    data = f"{declarations}(prove {goal})".encode()
    one = parse(data, "a.smt2")
    other = parse(Disguise(seed).text(data), "b.smt2")
    given = kept(one)
    assert given
    assert Digests(one).all() == Digests(other).all()
    again = recalled(other, given)
    assert len(again.lemmas) == len(given)
    assert again.rejected == {}
    assert {each.statement for each in kept(other)} == {each.statement for each in given}
    verdict = proved(other, again)
    assert "known-" in json.dumps(verdict.certificate)
    assert str(verify(other, verdict.certificate)) == verdict.statement


def test_constructors_may_stand_in_another_order() -> None:
    one = program(SORTED.format(nat="zero | succ(nat)", list="nil | cons(nat, list)"))
    other = program(SORTED.format(nat="succ(nat) | zero", list="cons(nat, list) | nil"))
    given = kept(one)
    again = recalled(other, given)
    assert len(again.lemmas) == len(given) > 1
    assert again.rejected == {}
    verify(other, proved(other, again).certificate)


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_by_hand_comes_back_as_it_was(name: str) -> None:
    found, data = PROOFS[name]()
    given = list(entries(found, Digests(found), data))
    again = recalled(found, given)
    assert again.rejected == {}
    assert len(again.lemmas) == len(given)
    if name != "even_or_odd":  # two lemmas in one group
        said, asked = again.lemmas[-1].statement, found.goals[0]
        sides = zip(said.equalities(), asked.equalities(), strict=True)
        bound: dict[Variable, Term] = {}
        assert all(
            match(one.left, other.left, bound) and match(one.right, other.right, bound)
            for one, other in sides
        )
        assert {*bound.values()} == {*asked.variables}


def test_a_lemma_is_found_for_every_function_that_is_defined_so() -> None:
    of_two = program(f"{OF_TWO}prove forall xs: list, r: rest, e: list. append(xs, e) = e\n"
                     "prove forall r: rest. join(r, r) = r")  # fmt: skip
    said = [str(each.statement) for each in recalled(of_two, kept(program(ONE))).lemmas]
    assert any("append" in each for each in said)
    assert any("join" in each for each in said)
    assert not any("append" in each and "join" in each for each in said)


def test_other_definitions_have_other_lemmas() -> None:
    other = ONE.replace("append(cons(x, xs), ys) = cons(x,", "append(cons(x, xs), ys) = cons(x, ")
    assert Digests(program(other)).all() == Digests(program(ONE)).all()
    wrong = ONE.replace("append(cons(x, xs), ys) = cons(x, append(xs, ys))",
                        "append(cons(x, xs), ys) = append(xs, cons(x, ys))")  # fmt: skip
    found = program(wrong)
    spoken = Digests(found).all()
    given = kept(program(ONE))
    assert not any(spoken.issuperset(each.definitions) for each in given)
    assert recalled(found, given).lemmas == []


def test_a_lemma_needs_the_assumptions_that_it_rests_on() -> None:
    declarations, goal = PROBLEMS["assumptions"]
    found = parse(f"{declarations}(prove {goal})".encode(), "a.smt2")
    without = replace(found, assumptions=found.assumptions[:1])
    given = kept(found)
    assert all(len(recalled(found, [each]).lemmas) >= 1 for each in given)
    goal_alone = [each for each in given if "assume:1" in each.text]
    assert goal_alone
    assert recalled(without, goal_alone).lemmas == []


def test_no_name_of_a_program_is_in_an_entry() -> None:
    declarations, goal = PROBLEMS["lists"]
    secret = f"{declarations}(prove {goal.replace('x', 'password')})".encode()
    texts = [each.text for each in kept(parse(secret, "a.smt2"))]
    for word in ("password", "rev", "app", "cons", "nil"):
        assert not any(re.search(rf"\b{word}\b", text) for text in texts)


def test_a_search_that_knows_nothing_goes_as_it_went() -> None:
    declarations, goal = PROBLEMS["lists"]
    found = parse(f"{declarations}(prove {goal})".encode(), "a.smt2")
    plain = directed.search(found, found.goals[0], BUDGET)
    assert plain == directed.search(found, found.goals[0], BUDGET, 0, [])


def test_what_is_known_is_said_to_be() -> None:
    found = program(ONE)
    verdict = proved(found, recalled(found, kept(found)))
    assert any("It was known" in line for line in verdict.explanation)


# What somebody else may have written


def _leaves(data: Any) -> Iterator[tuple[Any, Any]]:
    """Where everything that is no list and no object stands."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from _leaves(value)
        else:
            yield data, key


def _edited(text: str, draw: random.Random) -> str:
    """An entry in which one leaf is another's value, or one list has lost a part."""
    data = json.loads(text)
    for _ in range(draw.choice((1, 1, 2, 4))):
        leaves = list(_leaves(data))
        (holder, key), (other, place) = draw.choice(leaves), draw.choice(leaves)
        holder[key] = copy.deepcopy(other[place])
        if draw.random() < 0.2 and isinstance(holder, list):
            holder.pop()
    return json.dumps(data)


def _is_refuted(found: Program, statement: Statement, draw: random.Random) -> bool:
    evaluator = Evaluator(found, seed=draw.randrange(1000))
    for _ in range(12):
        values = {v: evaluator.small(v.sort, draw.randrange(10**6)) for v in statement.variables}
        try:
            if evaluator.refutes(statement, values):
                return True
        except (OutOfFuel, Undecided):
            continue
    return False


@pytest.mark.parametrize("name", ["naturals", "lists", "conditions"])
def test_edited_entries_give_nothing_false(name: str) -> None:
    declarations, goal = PROBLEMS[name]
    found = parse(f"{declarations}(prove {goal})".encode(), "a.smt2")
    given, draw = kept(found), random.Random(5)
    statements = {str(each.statement) for each in recalled(found, given).lemmas}
    new = rejected = 0
    for _ in range(400):
        entry = draw.choice(given)
        again = recalled(found, [replace(entry, text=_edited(entry.text, draw))])
        rejected += bool(again.rejected)
        for lemma in again.lemmas:
            new += str(lemma.statement) not in statements
            assert not _is_refuted(found, lemma.statement, draw), lemma.statement
    assert rejected > 200
    assert new < 40  # what is left of a proof may be one of something else that is true


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"lemmas": []}', "[" * 100_000, "\0"])
def test_what_is_no_entry_is_rejected(text: str) -> None:
    found = program(ONE)
    again = recalled(found, [Entry("a", "b", (), text)])
    assert list(again.rejected) == ["a"]
    assert again.lemmas == []


def test_a_false_statement_under_the_digests_of_a_true_one_is_rejected() -> None:
    found = program(ONE)
    for entry in kept(found):
        data = json.loads(entry.text)
        last = data["lemmas"][-1]
        last["left"], last["right"] = last["left"], last["variables"][0][0]
        again = recalled(found, [replace(entry, text=json.dumps(data))])
        assert again.rejected
        rest = [str(each.statement) for each in again.lemmas]
        assert len(rest) == len(data["lemmas"]) - 1


def test_the_proofs_of_other_definitions_prove_nothing_of_these() -> None:
    """The definitions in the entry are ours, and the lemmas are about those of somebody else."""
    backwards = REVERSE.replace("append(reverse(xs), cons(x, nil))", "reverse(xs)")
    head = "sort elem\ndata list = nil | cons(elem, list)\n"
    goal = "prove forall xs: list, ys: list. reverse(append(xs, ys)) = append(reverse(ys), nil)\n"
    theirs = kept(program(f"{head}{APPEND}{backwards}{goal}"))
    ours = program(f"{head}{APPEND}{REVERSE}{goal}")
    own = json.loads(kept(program(ONE))[-1].text)
    (false,) = (each for each in theirs if len(json.loads(each.text)["symbols"]) == 4)
    forged = json.loads(false.text)
    for symbol in forged["symbols"]:
        like = [s for s in own["symbols"] if s["signature"] == symbol["signature"]]
        symbol.update(like[0])
    again = recalled(ours, [replace(false, text=json.dumps(forged))])
    draw = random.Random(1)
    assert not any(_is_refuted(ours, each.statement, draw) for each in again.lemmas)
    assert again.rejected or again.lemmas == []


def test_lemmas_of_length_are_found_beside_others() -> None:
    """A program that defines more has all the lemmas of one that defines less."""
    head = "sort elem\ndata nat = zero | succ(nat)\ndata list = nil | cons(elem, list)\n"
    goal = (
        "prove forall xs: list, ys: list. length(append(xs, ys)) = plus(length(xs), length(ys))\n"
    )
    less = program(f"{head}{PLUS}{APPEND}{LENGTH}{goal}")
    more = program(
        f"{head}{LENGTH}{REVERSE}{APPEND}{PLUS}"
        "prove forall xs: list. length(reverse(xs)) = plus(length(xs), zero)\n"
    )
    again = recalled(more, kept(less))
    assert again.rejected == {}
    assert again.lemmas
