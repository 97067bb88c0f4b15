"""Ground terms are computed within their bounds, and terms keep what they promise."""

from __future__ import annotations

import math
import pickle
import random
import time

import pytest

from prover.builtins import ARITHMETIC, FALSE, TRUE, equals, if_then_else, literal, reduce
from prover.errors import OutOfFuel, SortClash, Undecided
from prover.evaluator import Evaluator
from prover.notation import Notation
from prover.patterns import match
from prover.positions import replace_at, subterm_at
from prover.syntax.problem import parse
from prover.terms import BOOL, Apply, Kind, Term, Variable, show, substitute, variables

# On cores that others share a process waits for its turn.
SHARED_S = 8.0
PROGRAM = parse(
    b"""
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
free f(nat): nat
free g: nat -> nat
fun plus(nat, nat): nat
plus(zero, y) = y
plus(succ(x), y) = succ(plus(x, y))
fun exp(nat): nat
exp(zero) = succ(zero)
exp(succ(n)) = plus(exp(n), exp(n))
fun sum(list): nat
sum(nil) = zero
sum(cons(x, xs)) = plus(x, sum(xs))
fun count(list): int
count(nil) = 0
count(cons(x, xs)) = if x = zero then count(xs) else 1 + count(xs)
prove forall x: nat, xs: list. exp(f(x)) = plus(x, sum(xs)) and count(xs) = 0 - 1 and f = g
""",
    "some.prove",
)
NOTATION = Notation(PROGRAM)
NAT = NOTATION.sorts["nat"]


def number(value: int) -> str:
    return "(succ " * value + "zero" + ")" * value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"(plus {number(2)} {number(3)})", number(5)),
        (f"(exp {number(5)})", number(32)),
        (f"(sum (cons {number(2)} (cons {number(1)} nil)))", number(3)),
        (f"(count (cons zero (cons {number(1)} nil)))", "1"),
        ("(ite (= nil (cons zero nil)) zero (succ zero))", number(1)),
        ("(@ (plus (succ zero)) (succ zero))", number(2)),
        ("(- (* 3 4) (mod (- 0 7) 2))", "11"),
        ("(div (- 0 7) (- 0 2))", "4"),
    ],
)
def test_a_ground_term_has_its_value(text: str, value: str) -> None:
    found = Evaluator(PROGRAM).value(NOTATION.term(text, {}))
    assert show(found) == value


def test_an_explosion_ends_by_fuel_and_by_the_clock() -> None:
    big = NOTATION.term(f"(exp {number(40)})", {})
    with pytest.raises(OutOfFuel):
        Evaluator(PROGRAM, fuel=50_000).value(big)
    began_s = time.monotonic()
    with pytest.raises(OutOfFuel):
        Evaluator(PROGRAM, fuel=10**9, seconds=0.2).value(big)
    assert time.monotonic() - began_s < SHARED_S


def test_free_functions_are_tables_that_a_seed_draws() -> None:
    one = NOTATION.term(f"(f {number(3)})", {})
    drawn = [show(Evaluator(PROGRAM, seed=seed).value(one)) for seed in range(20)]
    assert drawn == [show(Evaluator(PROGRAM, seed=seed).value(one)) for seed in range(20)]
    assert len(set(drawn)) > 2


def test_functions_are_not_compared() -> None:
    with pytest.raises(Undecided, match="functions"):
        Evaluator(PROGRAM).value(NOTATION.term("(= f g)", {}))
    assert Evaluator(PROGRAM).value(NOTATION.term("(= f f)", {})) is TRUE


def test_small_values_are_values() -> None:
    evaluator = Evaluator(PROGRAM)
    found = {show(evaluator.small(NOTATION.sorts["list"], choice)) for choice in range(200)}
    assert len(found) > 10
    for text in found:
        value = NOTATION.term(text, {})
        assert evaluator.value(value) is value


def test_small_values_end_also_where_the_shortest_constructor_goes_on() -> None:
    text = b"data t = on(t) | end(u, u)\ndata u = one | back(t)\nprove forall x: t. x = x"
    program = parse(text, "some.prove")
    (variable,) = program.goals[0].variables
    values = {Evaluator(program).small(variable.sort, choice) for choice in range(200)}
    assert len(values) > 10


def test_one_step_of_a_builtin_keeps_the_value() -> None:
    draw = random.Random(3)
    values = [NOTATION.term(text, {}) for text in ("zero", "(succ zero)", "(f zero)")]
    numbers = [literal(value) for value in (-7, -2, 0, 1, 3)]
    truths = [TRUE, FALSE, *(equals(a, b) for a in values for b in values)]
    for _ in range(3000):
        name = draw.choice(("and", "or", "=>", "not", "ite", "=", *ARITHMETIC))
        if name in ARITHMETIC:
            term = ARITHMETIC[name](draw.choice(numbers), draw.choice(numbers))
        elif name == "ite":
            term = if_then_else(draw.choice(truths), draw.choice(values), draw.choice(values))
        elif name == "=":
            term = equals(*(NOTATION.symbols["succ"](draw.choice(values)) for _ in range(2)))
        else:
            symbol = NOTATION.symbols[name]
            term = symbol(*(draw.choice(truths) for _ in symbol.arguments))
        assert _naive(reduce(term)) == _naive(term), term
        truths = [*truths[-40:], term] if term.sort is BOOL else truths


def _naive(term: Term) -> object:
    """The value by Python's own operators."""
    assert isinstance(term, Apply)
    if term.symbol.kind is Kind.LITERAL:
        return int(term.symbol.name)
    if term.symbol.kind is not Kind.BUILTIN:
        return True if term is TRUE else False if term is FALSE else Evaluator(PROGRAM).value(term)
    values = [_naive(each) for each in term.arguments]
    name, (a, *rest) = term.symbol.name, values
    if name == "ite":
        return rest[0] if a else rest[1]
    if name in ("div", "mod") and rest[0] == 0:
        return term
    if name in ("div", "mod"):
        assert isinstance(a, int)
        assert isinstance(rest[0], int)
        remainder = a - abs(rest[0]) * math.floor(a / abs(rest[0]))
        return remainder if name == "mod" else (a - remainder) // rest[0]
    python = {"and": "a and b", "or": "a or b", "=>": "not a or b", "not": "not a", "=": "a == b"}
    return eval(python.get(name, f"a {name} b"), {"a": a, "b": rest[0] if rest else None})


def test_a_builtin_step_knows_constructors() -> None:
    x = Variable("x", NAT)
    succ = NOTATION.symbols["succ"]
    assert reduce(equals(succ(x), succ(succ(x)))) is equals(x, succ(x))
    assert reduce(equals(x, succ(x))) is FALSE
    assert reduce(equals(x, x)) is TRUE
    assert reduce(equals(literal(1), literal(2))) is FALSE
    assert reduce(succ(x)) is succ(x)


def test_equal_terms_are_one_object_also_after_a_trip_through_bytes() -> None:
    one = NOTATION.term("(plus (succ zero) (sum nil))", {})
    assert one is NOTATION.term("(plus (succ zero) (sum nil))", {})
    assert pickle.loads(pickle.dumps(one)) is one


def test_positions_substitution_and_matching() -> None:
    scope = {name: Variable(name, NAT) for name in "xyz"}
    term = NOTATION.term("(plus x (succ (plus y x)))", scope)
    assert show(subterm_at(term, (1, 0, 0))) == "y"
    assert show(replace_at(term, (1, 0), scope["z"])) == "(plus x (succ z))"
    swapped = substitute(term, {scope["x"]: scope["y"], scope["y"]: scope["x"]})
    assert show(swapped) == "(plus y (succ (plus x y)))"
    bound: dict[Variable, object] = {}
    assert match(term, substitute(term, {scope["x"]: NOTATION.term("zero", {})}))
    assert not match(NOTATION.term("(plus x x)", scope), term)
    assert variables(term) == (scope["x"], scope["y"])
    assert not bound
    with pytest.raises(IndexError):
        subterm_at(term, (0, 0))


def test_a_term_of_the_wrong_sort_cannot_be_made() -> None:
    with pytest.raises(SortClash):
        NOTATION.term("(plus zero nil)", {})
    with pytest.raises(SortClash):
        NOTATION.term("(succ zero zero)", {})


def test_long_values_need_no_recursion() -> None:
    value = NOTATION.term("zero", {})
    for _ in range(20_000):
        value = NOTATION.symbols["succ"](value)
    x = Variable("x", NAT)
    double = substitute(NOTATION.term("(plus x x)", {"x": x}), {x: value})
    assert Evaluator(PROGRAM, fuel=10**6, seconds=60).value(double).size == 40_001
