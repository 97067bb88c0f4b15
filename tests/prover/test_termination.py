"""A function passes where its calls come to an end, however small the reason; no other does."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prover.builtins import literal
from prover.checks import check
from prover.errors import Inadmissible
from prover.evaluator import Evaluator
from prover.program import Program
from prover.syntax.problem import parse
from prover.terms import INT, Sort, Term

BEGIN = """
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
data tree = leaf | node(tree, nat, tree)
data form = yes | no(form) | both(form, form)
data lists = none | more(list, lists)
fun likes(nat): bool
likes(zero) = true
likes(succ(n)) = not likes(n)
fun keep(list): list
keep(nil) = nil
keep(cons(x, xs)) = if likes(x) then cons(x, keep(xs)) else keep(xs)
fun evens(list): list
fun odds(list): list
evens(nil) = nil
evens(cons(x, xs)) = cons(x, odds(xs))
odds(nil) = nil
odds(cons(x, xs)) = evens(xs)
fun app(list, list): list
app(nil, ys) = ys
app(cons(x, xs), ys) = cons(x, app(xs, ys))
fun twice(list): list
twice(nil) = nil
twice(cons(x, xs)) = cons(x, cons(x, twice(xs)))
fun minus(nat, nat): nat
minus(zero, y) = zero
minus(succ(x), zero) = succ(x)
minus(succ(x), succ(y)) = minus(x, y)
fun graft(tree, tree): tree
graft(leaf, t) = t
graft(node(l, x, r), t) = node(graft(r, t), x, l)
fun pairs(lists): lists
pairs(none) = none
pairs(more(xs, none)) = more(xs, none)
pairs(more(xs, more(ys, rest))) = more(app(ys, app(xs, ys)), pairs(rest))
"""

ENDS = {
    "sorting by a pivot": """fun f(list): list
        f(nil) = nil
        f(cons(x, xs)) = app(f(keep(xs)), cons(x, f(keep(keep(xs)))))""",
    "halves of two elements at least": """fun f(list): nat
        f(nil) = zero
        f(cons(x, nil)) = x
        f(cons(x, cons(y, xs))) = minus(
            f(evens(cons(x, cons(y, xs)))), f(odds(cons(x, cons(y, xs)))))""",
    "what remains": """fun f(nat, nat): nat
        f(zero, d) = zero
        f(succ(n), d) = succ(f(minus(n, d), d))""",
    "the rest of a heap": """fun f(tree): list
        f(leaf) = nil
        f(node(l, x, r)) = cons(x, f(graft(l, r)))""",
    "one branch or the other": """fun f(tree, nat): bool
        f(leaf, n) = false
        f(node(l, x, r), n) = f(if likes(n) then l else r, n)""",
    "half as many, however large they get": """fun f(lists): list
        f(none) = nil
        f(more(xs, none)) = xs
        f(more(xs, more(ys, rest))) = f(pairs(more(xs, more(ys, rest))))""",
    "turned to the right": """fun f(tree): list
        f(leaf) = nil
        f(node(leaf, x, r)) = cons(x, f(r))
        f(node(node(a, y, b), x, r)) = f(node(a, y, node(b, x, r)))""",
    "pushed inwards": """fun f(form): nat
        f(yes) = zero
        f(no(yes)) = zero
        f(no(no(p))) = f(p)
        f(no(both(p, q))) = f(both(p, no(q)))
        f(both(p, q)) = minus(f(p), f(q))""",
    "down to nothing": "fun f(int): int\nf(n) = if n <= 0 then 0 else f(n - 1) + n",
    "in steps of two": "fun f(int): int\nf(n) = if 5 < n and 0 < n * n then f(n - 2) else n",
    "up to another": "fun f(int, int): int\nf(m, n) = if n < m then 0 else f(1 + m, n) + 1",
    "towards each other": """fun f(int, int): int
        f(m, n) = if not (m < n) then 0 else f(m + 1, n - 1)""",
}

GOES_ON = {
    "halves of one element": """fun f(list): nat
        f(nil) = zero
        f(cons(x, xs)) = minus(f(evens(cons(x, xs))), f(odds(cons(x, xs))))""",
    "what may be as large": """fun f(list): list
        f(nil) = nil
        f(cons(x, xs)) = f(keep(cons(x, xs)))""",
    "nothing taken away": """fun f(nat, nat): nat
        f(zero, d) = zero
        f(succ(n), d) = succ(f(minus(succ(n), d), d))""",
    "twice as long": """fun f(list): list
        f(nil) = nil
        f(cons(x, xs)) = f(twice(xs))""",
    "grafted on itself": """fun f(tree): list
        f(leaf) = nil
        f(node(l, x, r)) = f(graft(node(l, x, leaf), r))""",
    "either branch may be the whole": """fun f(tree, nat): bool
        f(leaf, n) = false
        f(node(l, x, r), n) = f(if likes(n) then l else node(l, x, r), n)""",
    "turned and turned back": """fun f(tree): list
        f(leaf) = nil
        f(node(leaf, x, leaf)) = nil
        f(node(leaf, x, node(a, y, b))) = f(node(node(leaf, x, a), y, b))
        f(node(node(a, y, b), x, r)) = f(node(a, y, node(b, x, r)))""",
    "its own value": """fun f(nat): nat
        f(zero) = zero
        f(succ(n)) = f(f(n))""",
    "an element as large as its list": """fun f(lists): nat
        f(none) = zero
        f(more(xs, rest)) = f(more(app(xs, xs), rest))""",
    "past nothing": "fun f(int): int\nf(n) = if n = 0 then 0 else f(n - 1) + n",
    "the wrong branch": "fun f(int): int\nf(n) = if 0 < n then 0 else f(n - 1)",
    "no step": "fun f(int): int\nf(n) = if n <= 0 then 0 else f(n - 0)",
    "either of two reasons": """fun f(int, int): int
        f(m, n) = if 0 < m or 0 < n then f(m - 1, n) else 0""",
    "both run": "fun f(int, int): int\nf(m, n) = if n < m then 0 else f(1 + m, n + 1)",
    "a bound that runs along": """fun f(int, int): int
        f(m, n) = if n < m then f(m - 1, n - 1) else 0""",
    "a condition on what is called": """fun f(int): int
        f(n) = if f(n - 1) <= n then 0 else n""",
}


def _program(equations: str) -> Program:
    takes = equations.split("(")[1].partition(")")[0].split(",")
    free = "\n".join(f"free any{index}: {sort}" for index, sort in enumerate(takes))
    call = f"f({', '.join(f'any{index}' for index in range(len(takes)))})"
    text = f"{BEGIN}{free}\n{equations}\nprove {call} = {call}"
    return parse(text.encode(), "problem.prove")


@pytest.mark.parametrize("name", ENDS)
def test_a_function_that_comes_to_an_end_passes(name: str) -> None:
    program = _program(ENDS[name])
    check(program)
    assert _ends(program)


@pytest.mark.parametrize("name", GOES_ON)
def test_a_function_that_looks_like_one_is_refused(name: str) -> None:
    with pytest.raises(Inadmissible, match="f: it may not terminate"):
        check(_program(GOES_ON[name]))


def test_a_bound_of_a_function_that_does_not_end_is_not_asked_for() -> None:
    text = "fun g(nat): nat\ng(n) = g(n)\nfun f(nat): nat\nf(zero) = zero\nf(succ(n)) = f(g(n))"
    with pytest.raises(Inadmissible, match="g: it may not terminate"):
        check(parse(f"{BEGIN}free any: nat\n{text}\nprove f(any) = any".encode(), "bad.prove"))


# Functions at random: whichever passes must end on every small value

LISTS = ["xs", "ys", "cons(x, xs)", "cons(x, ys)", "cons(y, cons(x, xs))"]
WRAPS = ["{}", "keep({})", "evens({})", "odds({})", "app({}, ys)", "app(xs, {})", "twice({})"]
NUMBERS = ["m", "n", "m - 1", "m + 1", "n - 1", "n + 1", "m - 2", "n - m", "0", "m - n"]
TESTS = [
    "m <= 0",
    "0 < m",
    "m < n",
    "n <= m",
    "m = 0",
    "m = n",
    "0 <= n and m < 9",
    "m < 3 or n < m",
]

calls = st.tuples(st.sampled_from(WRAPS), st.sampled_from(WRAPS), st.sampled_from(LISTS)).map(
    lambda parts: parts[0].format(parts[1].format(parts[2]))
)


@settings(max_examples=150, deadline=None)
@given(first=calls, second=calls, third=calls, fourth=calls)
def test_what_passes_on_lists_ends(first: str, second: str, third: str, fourth: str) -> None:
    equations = f"""fun f(list, list): list
        f(nil, ys) = ys
        f(cons(x, nil), nil) = nil
        f(cons(x, nil), cons(y, ys)) = {_close(f"f({first}, {second})", "cons(x, nil)", "ys")}
        f(cons(x, cons(y, xs)), ys) = {_close(f"cons(y, f({third}, {fourth}))", "xs", "ys")}"""
    _passes_only_if_it_ends(_program(equations))


def _close(text: str, xs: str, ys: str) -> str:
    return text.replace("xs", xs).replace("ys", ys)


@settings(max_examples=150, deadline=None)
@given(
    test=st.sampled_from(TESTS),
    arguments=st.lists(st.sampled_from(NUMBERS), min_size=4, max_size=4),
    other=st.sampled_from(["0", "f({}, {})"]),
)
def test_what_passes_on_numbers_ends(test: str, arguments: list[str], other: str) -> None:
    first = f"f({arguments[0]}, {arguments[1]})"
    second = other.format(*arguments[2:])
    equations = f"fun f(int, int): int\nf(m, n) = if {test} then {first} else {second}"
    _passes_only_if_it_ends(_program(equations))


def _passes_only_if_it_ends(program: Program) -> None:
    try:
        check(program)
    except Inadmissible:
        return
    assert _ends(program)


def _ends(program: Program) -> bool:
    """Whether the function f ends on every small value; OutOfFuel where it does not."""
    (symbol,) = (each for each in program.functions if each.name == "f")
    evaluator = Evaluator(program, fuel=2_000_000, seconds=60)
    for values in product(*(_small(program, sort) for sort in symbol.arguments)):
        evaluator.value(symbol(*values))
    return True


def _small(program: Program, sort: Sort) -> list[Term]:
    """Some values of each of the heights up to three; of numbers those around zero."""
    if sort is INT:
        return [literal(number) for number in range(-4, 12)]
    made: dict[Sort, list[Term]] = {data: [] for data in program.data}
    for _ in range(3):
        made = {
            data: [
                constructor(*fields)
                for constructor in program.constructors(data)
                for fields in product(*(made[field][:5] for field in constructor.arguments))
            ]
            for data in program.data
        }
    return made[sort][:60]
