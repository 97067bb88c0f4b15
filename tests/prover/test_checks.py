"""What defines something passes; what does not is refused by name, with the reason."""

from __future__ import annotations

import pytest

from prover.checks import check
from prover.errors import Inadmissible
from prover.syntax.problem import parse

BEGIN = """
data nat = zero | succ(nat)
data list = nil | cons(nat, list)
free any: nat
"""

GOOD = {
    "nested patterns": """fun f(nat): nat
        f(zero) = zero
        f(succ(zero)) = zero
        f(succ(succ(n))) = f(n)""",
    "two arguments, one after the other": """fun f(nat, nat): nat
        f(zero, y) = succ(y)
        f(succ(x), zero) = f(x, succ(zero))
        f(succ(x), succ(y)) = f(x, f(succ(x), y))""",
    "arguments that change places": """fun f(list, list): list
        f(nil, y) = y
        f(cons(a, x), y) = cons(a, f(y, x))""",
    "mutual recursion": """fun f(nat): nat
        fun g(nat): nat
        f(zero) = zero
        f(succ(n)) = g(n)
        g(n) = f(n)""",
    "a smaller value that is built again": """fun f(list): nat
        f(nil) = zero
        f(cons(a, nil)) = a
        f(cons(a, cons(b, x))) = f(cons(a, x))""",
    "equations that overlap and agree": """fun f(nat, nat): nat
        f(zero, y) = zero
        f(x, zero) = zero
        f(succ(x), succ(y)) = succ(f(x, y))""",
}

BAD = {
    "forever": ("f(n) = f(succ(n))", "f: it may not terminate"),
    "its own value": ("f(n) = succ(f(n))", "f: it may not terminate"),
    "growing before shrinking": (
        "f(zero) = zero\nf(succ(n)) = f(succ(succ(n)))",
        "f: it may not terminate",
    ),
    "through its own value": ("f(zero) = zero\nf(succ(n)) = f(f(n))", "f: it may not terminate"),
    "a case is missing": ("f(zero) = zero", r"f: it does not say what \(f \(succ v2\)\) is"),
    "nothing is said": ("", r"f: it does not say what \(f v1\) is"),
    "two things are said": (
        "f(zero) = zero\nf(n) = succ(zero)",
        r"f: two equations disagree on \(f zero\)",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_function_that_comes_to_an_end_passes(name: str) -> None:
    takes = GOOD[name].split("(")[1].split(")")[0]
    arguments = ", ".join("nil" if sort.strip() == "list" else "any" for sort in takes.split(","))
    text = f"{BEGIN}{GOOD[name]}\nprove f({arguments}) = f({arguments})"
    check(parse(text.encode(), "good.prove"))


@pytest.mark.parametrize("name", BAD)
def test_a_function_that_defines_nothing_is_refused(name: str) -> None:
    equations, reason = BAD[name]
    text = f"{BEGIN}fun f(nat): nat\n{equations}\nprove f(any) = any"
    with pytest.raises(Inadmissible, match=reason):
        check(parse(text.encode(), "bad.prove"))


def test_a_mutual_recursion_without_descent_is_refused() -> None:
    text = f"{BEGIN}fun f(nat): nat\nfun g(nat): nat\nf(n) = g(n)\ng(n) = f(n)\nprove f(any) = any"
    with pytest.raises(Inadmissible, match="may not terminate"):
        check(parse(text.encode(), "bad.prove"))


def test_a_function_that_hides_its_recursion_in_a_value_is_refused() -> None:
    text = """
    (declare-datatype N ((Z) (S (p N))))
    (define-fun call ((f (=> N N)) (x N)) N (@ f x))
    (define-fun-rec loop ((x N)) N (S (call loop x)))
    (prove (= (loop Z) Z))"""
    with pytest.raises(Inadmissible, match="loop: it may not terminate"):
        check(parse(text.encode()))


def test_a_data_type_that_takes_functions_of_itself_is_refused() -> None:
    text = "data t = make(t -> bool)\nprove forall x: t. x = x"
    with pytest.raises(Inadmissible, match="t: a constructor takes functions of t itself"):
        check(parse(text.encode(), "bad.prove"))


def test_a_data_type_without_a_value_is_refused() -> None:
    text = "data t = make(u)\ndata u = back(t)\nprove forall x: t, y: t. x = y"
    with pytest.raises(Inadmissible, match="the data type has no value"):
        check(parse(text.encode(), "bad.prove"))


def test_only_what_a_goal_speaks_of_is_checked() -> None:
    text = f"{BEGIN}fun f(nat): nat\nf(n) = f(n)\nprove any = any"
    check(parse(text.encode(), "good.prove"))
