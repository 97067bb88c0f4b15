"""Normal forms have the values of what they come from, and their steps replay."""

from __future__ import annotations

import random

import pytest

from prover.checker import FORMAT, verify
from prover.evaluator import Evaluator
from prover.program import Equality, Program, Statement
from prover.rewriting.meter import Meter, Spent
from prover.rewriting.normaliser import Normaliser
from prover.rewriting.ordering import Ordering
from prover.rewriting.rules import Rule, RuleBook, fact
from prover.rewriting.steps import written
from prover.search.certificate import certificate
from prover.search.directed import deep_recursion
from prover.search.lemmas import Lemma, LemmaCase
from prover.terms import Apply, Kind, Sort, Term, Variable, show, substitute, variables
from prover.verdict import Budget, Reason
from tests.prover.proofs import NATURALS, program

GOAL = "(forall ((x Nat) (y Nat)) (= (plus x Z) (plus y (ite (leq x y) x (ite (even x) x x)))))"
TRIALS = 60


@pytest.fixture
def naturals() -> Program:
    return program(NATURALS, GOAL)


def _sorts(found: Program) -> list[Variable]:
    return [Variable(name, sort) for sort in found.data for name in ("a", "b")]


def _random_term(found: Program, sort: Sort, depth: int, draw: random.Random) -> Term:
    symbols = [s for s in found.symbols() if s.result is sort]
    if depth <= 0 or draw.random() < 0.2:
        return draw.choice([v for v in _sorts(found) if v.sort is sort])
    symbol = draw.choice(symbols)
    return symbol(*(_random_term(found, each, depth - 1, draw) for each in symbol.arguments))


def _normaliser(found: Program) -> Normaliser:
    return Normaliser(RuleBook(found), Meter(Budget()))


@pytest.mark.parametrize("seed", range(TRIALS))
def test_a_normal_form_has_the_value_of_the_term(naturals: Program, seed: int) -> None:
    draw = random.Random(seed)
    sort = draw.choice(list(naturals.data))
    term = _random_term(naturals, sort, 5, draw)
    normal = _normaliser(naturals).normal(term)
    evaluator = Evaluator(naturals)
    for choice in range(6):
        by = {v: evaluator.small(v.sort, choice * 7 + i) for i, v in enumerate(variables(term))}
        assert evaluator.equal(substitute(term, by), substitute(normal, by))


@pytest.mark.parametrize("seed", range(TRIALS))
def test_the_steps_to_a_normal_form_are_a_proof(naturals: Program, seed: int) -> None:
    draw = random.Random(seed)
    term = _random_term(naturals, draw.choice(list(naturals.data)), 5, draw)
    normaliser = _normaliser(naturals)
    trace = normaliser.trace(term)
    assert normaliser.trace(trace.result).result is trace.result
    goal = Statement("goal", variables(term), (), Equality(term, trace.result))
    found = Program(
        naturals.file, naturals.data, naturals.functions, naturals.free, (), (goal,), ()
    )
    lemma = Lemma(goal, (), (LemmaCase((), tuple(trace.steps("left"))),))
    assert verify(found, certificate("goal", [lemma])).statement == goal


def test_functions_that_a_partial_application_becomes_under_at_are_rewritten_in_place() -> None:
    text = """
    (declare-datatypes ((Nat 0)) (((Z) (S (pred Nat)))))
    (define-fun-rec plus ((x Nat) (y Nat)) Nat (match x ((Z y) ((S n) (S (plus n y))))))
    (define-fun adder ((x Nat)) (=> Nat Nat) (lambda ((y Nat)) (plus x y)))
    """
    goal = "(forall ((y Nat)) (= (@ (adder (plus Z (S Z))) (plus Z y)) (S y)))"
    found = program(text, goal)
    statement = found.goals[0]
    trace = _normaliser(found).trace(statement.conclusion.left)
    assert trace.result is statement.conclusion.right
    lemma = Lemma(statement, (), (LemmaCase((), tuple(trace.steps("left"))),))
    data = {"format": FORMAT, "goal": "goal", "groups": certificate("goal", [lemma])["groups"]}
    assert written(tuple(trace.steps("left")))
    assert verify(found, data).statement == statement


@pytest.mark.parametrize("seed", range(TRIALS))
def test_the_ordering_is_one_and_holds_for_instances(naturals: Program, seed: int) -> None:
    draw = random.Random(seed)
    ordering = Ordering(naturals)
    sort = draw.choice(list(naturals.data))
    one, two, three = (_random_term(naturals, sort, 3, draw) for _ in range(3))
    by = {v: _random_term(naturals, v.sort, 2, draw) for v in _sorts(naturals)}
    assert not ordering.above(one, one)
    assert not (ordering.above(one, two) and ordering.above(two, one))
    if ordering.above(one, two) and ordering.above(two, three):
        assert ordering.above(one, three)
    if ordering.above(one, two):
        assert ordering.above(substitute(one, by), substitute(two, by))
    assert one is two or ordering.above_here(one, two) is not ordering.above_here(two, one)


def test_a_function_stands_above_what_its_equations_call(naturals: Program) -> None:
    ordering = Ordering(naturals)
    for symbol, function in naturals.functions.items():
        for equation in function.equations:
            stack = [equation.right]
            while stack:
                part = stack.pop()
                if isinstance(part, Apply):
                    stack.extend(part.arguments)
                    if part.symbol.kind is Kind.FUNCTION:
                        assert ordering.ranks[part.symbol] <= ordering.ranks[symbol]


def test_rewriting_stops_at_the_end_of_its_budget(naturals: Program) -> None:
    plus = next(s for s in naturals.functions if s.name == "plus")
    zero, successor = naturals.constructors(plus.result)
    term: Term = zero()
    for _ in range(50):
        term = successor(term)
    normaliser = Normaliser(RuleBook(naturals), Meter(Budget(steps=20)))
    with pytest.raises(Spent) as spent:
        normaliser.trace(plus(term, term))
    assert spent.value.reason is Reason.STEPS
    assert show(term)


def test_what_facts_would_rewrite_for_ever_stays_as_it_is(naturals: Program) -> None:
    nat = next(sort for sort in naturals.data if sort.name == "Nat")
    plus, successor = (next(s for s in naturals.symbols() if s.name == n) for n in ("plus", "S"))
    term = plus(Variable("x", nat), Variable("y", nat))
    other = successor(successor(term))
    facts: dict[Term, Rule] = {term: fact("h", term, other, False)}
    with deep_recursion():
        trace = Normaliser(RuleBook(naturals), Meter(Budget()), facts).trace(term)
    assert trace.result is term
    assert not list(trace.steps("left"))
