"""What the induction-friendly forms promise, for the functions of many programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prover.checks import check
from prover.errors import ProverError
from prover.program import Program
from prover.rewriting.meter import Meter
from prover.rewriting.normaliser import Normaliser
from prover.rewriting.rules import RuleBook
from prover.search.conjecture import Conjecture, Names
from prover.search.forms import Form, form, is_single_recursion
from prover.search.generalise import replaced
from prover.search.hypotheses import Case
from prover.syntax.problem import load
from prover.terms import Apply, Kind, Symbol, Term, Variable, substitute, subterms, variables
from prover.verdict import Budget
from tests.prover.proofs import LISTS, NATURALS, program

HERE = [
    (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))"),
    (LISTS, "(forall ((s St) (x L) (y L)) (= (prefill s (app x y)) (prefill s (rev x))))"),
]
FOLDERS = ("tip/isaplanner", "tip/prod", "laws", "sufu/cvc5")


def _programs() -> Iterator[Program]:
    for declarations, goal in HERE:
        yield program(declarations, goal)
    named = os.environ.get("THOTH_DATA")
    for folder in FOLDERS if named else ():
        for path in sorted((Path(str(named)) / "prover" / folder).glob("*.smt2"))[::6]:
            try:
                found = load(path)
                check(found)
            except ProverError:
                continue
            yield found


def _single_calls(found: Program) -> Iterator[tuple[Apply, Variable]]:
    """Calls `f(y.., x, z..)` that recurse on x."""
    book, names = RuleBook(found), Names(found)
    for symbol in found.functions:
        taken: dict[str, None] = {}
        arguments = []
        for sort in symbol.arguments:
            arguments.append(names.fresh(sort, taken))
            taken[arguments[-1].name] = None
        for variable in arguments:
            if is_single_recursion(book, symbol(*arguments), variable):
                yield symbol(*arguments), variable


def _cases(found: Program, variable: Variable, names: Names) -> Iterator[Term]:
    for constructor in found.constructors(variable.sort):
        taken = {variable.name: None}
        fields = []
        for sort in constructor.arguments:
            fields.append(names.part_of(variable, sort, taken))
            taken[fields[-1].name] = None
        if variable.sort in constructor.arguments:
            yield constructor(*fields)


def _calls_of(term: Term, call: Apply) -> list[Apply]:
    parts = (part for part in subterms(term) if isinstance(part, Apply))
    return [part for part in parts if part.symbol is call.symbol and not part.is_partial]


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return list(_programs())


def test_f1_the_hypothesis_applies_to_every_recursive_call(programs: list[Program]) -> None:
    for found in programs:
        _check_f1(found)


def _check_f1(found: Program) -> None:
    names, book = Names(found), RuleBook(found)
    for call, variable in _single_calls(found):
        side = Symbol("some value", (), call.sort, Kind.ELEMENT)()
        for value in _cases(found, variable, names):
            case = Case("lemma", Conjecture(call, side), {variable: value})
            rules = case.rules(backward=False)
            unfolded = Normaliser(book, Meter(Budget())).normal(substitute(call, {variable: value}))
            for inner in _calls_of(unfolded, call):
                assert any(rule.bind(inner) is not None for rule in rules)


def test_f2_only_functions_of_lower_rank_are_left(programs: list[Program]) -> None:
    for found in programs:
        _check_f2(found)


def _check_f2(found: Program) -> None:
    names, book = Names(found), RuleBook(found)
    for call, variable in _single_calls(found):
        rank = book.ordering.ranks[call.symbol]
        for value in _cases(found, variable, names):
            left: Term = Normaliser(book, Meter(Budget())).normal(
                substitute(call, {variable: value})
            )
            while calls := _calls_of(left, call):
                hole = names.fresh(call.sort, [v.name for v in variables(left)])
                left = replaced(Conjecture(left, left), calls[-1], hole).left
            for part in subterms(left):
                if isinstance(part, Apply) and part.symbol in found.functions:
                    assert book.ordering.ranks[part.symbol] < rank


def test_the_forms_are_told_apart() -> None:
    found = program(NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus x (plus y x))))")
    book = RuleBook(found)
    plus = next(s for s in found.functions if s.name == "plus")
    x, y, z = (Variable(name, plus.result) for name in "xyz")
    assert form(book, Conjecture(plus(x, y), plus(x, z)), x) is Form.F2
    assert form(book, Conjecture(plus(x, y), plus(y, plus(x, x))), x) is Form.F1
    assert form(book, Conjecture(plus(x, y), plus(y, x)), y) is Form.F1
    assert form(book, Conjecture(plus(x, x), plus(y, x)), x) is None
