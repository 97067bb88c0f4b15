"""Problems are read in every spelling, and what cannot be read is named with its place."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prover.errors import Inadmissible, ProverError, SourceError
from prover.program import Program
from prover.syntax.problem import parse

NAT = "(declare-datatypes ((Nat 0)) (((Z) (S (pred Nat)))))"
OLD = "(declare-datatypes () ((Nat (Z) (S (pred Nat))) (L (nil) (cons (head Nat) (tail L)))))"
POLYMORPHIC = """
(declare-datatype list (par (a) ((nil) (cons (head a) (tail (list a))))))
(define-fun-rec app (par (a) (((x (list a)) (y (list a))) (list a)))
  (match x ((nil y) ((cons h t) (cons h (app t y))))))
(define-fun-rec map (par (a b) (((f (=> a b)) (x (list a))) (list b)))
  (match x ((nil (_ nil b)) ((cons h t) (cons (@ f h) (map f t))))))
"""


def equations(program: Program, name: str) -> list[str]:
    (found,) = (f for f in program.functions.values() if f.symbol.name == name)
    return [str(each) for each in found.equations]


def test_a_match_on_a_parameter_becomes_equations() -> None:
    text = (
        NAT
        + """
    (define-fun-rec less ((x Nat) (y Nat)) Bool
      (match y ((Z false) ((S b) (match x ((Z true) ((S a) (less a b))))))))
    (prove (forall ((x Nat)) (less x (S x))))"""
    )
    program = parse(text.encode())
    assert equations(program, "less") == [
        "(less x Z) = false",
        "(less Z (S b)) = true",
        "(less (S a) (S b)) = (less a b)",
    ]
    assert str(program.goals[0]) == "for all x: Nat. (less x (S x)) = true"


def test_a_match_below_an_ite_a_let_or_a_call_splits_the_equation_too() -> None:
    text = (
        NAT
        + """
    (define-fun f ((x Nat) (b Bool)) Nat
      (let ((fail (match x ((Z x) (_ (S x)))))) (ite b fail (S (match x ((Z Z) ((S n) n)))))))
    (prove (forall ((x Nat)) (= (f x true) x)))"""
    )
    assert equations(parse(text.encode()), "f") == [
        "(f Z b) = (ite b Z (S Z))",
        "(f (S v) b) = (ite b (S (S v)) (S v))",
    ]


def test_a_match_on_a_call_becomes_a_function_of_its_own() -> None:
    text = (
        NAT
        + """
    (define-fun half ((x Nat)) Nat (match x ((Z Z) ((S n) n))))
    (define-fun f ((x Nat) (y Nat)) Nat (match (half x) ((Z y) ((S n) (S y)))))
    (prove (forall ((x Nat)) (= (f x x) x)))"""
    )
    program = parse(text.encode())
    assert equations(program, "f") == ["(f x y) = (f.match (half x) y)"]
    assert equations(program, "f.match") == ["(f.match Z y) = y", "(f.match (S n) y) = (S y)"]


def test_parameters_get_a_symbol_for_each_choice_and_lambdas_a_function() -> None:
    text = (
        POLYMORPHIC
        + """
    (prove (par (c) (forall ((x (list c)) (k c) (m (list Int)))
      (= (map (lambda ((v c)) k) (app x x)) (map (lambda ((v Int)) k) (app m m))))))"""
    )
    program = parse(text.encode())
    assert equations(program, "goal.lambda") == ["(goal.lambda k v) = k"]
    assert str(program.goals[0].conclusion) == (
        "(map (goal.lambda k) (app x x)) = (map.2 (goal.lambda.2 k) (app.2 m m))"
    )
    assert equations(program, "map") == [
        "(map f nil) = nil",
        "(map f (cons h t)) = (cons (@ f h) (map f t))",
    ]


def test_assertions_define_what_is_declared_and_the_last_negation_is_the_goal() -> None:
    text = (
        OLD
        + """
    (declare-fun mem (Nat L) Bool)
    (assert (forall ((x Nat)) (not (mem x nil))))
    (assert (forall ((x Nat) (y Nat) (z L)) (= (mem x (cons y z)) (or (= x y) (mem x z)))))
    (assert (forall ((x Nat) (y Nat) (z L)) (=> (mem x z) (mem x (cons y z)))))
    (assert (not (forall ((x Nat) (y L)) (=> (and (mem x y) (= x Z)) (mem x (cons x y))))))
    (check-sat)"""
    )
    program = parse(text.encode())
    assert equations(program, "mem") == [
        "(mem x nil) = false",
        "(mem x (cons y z)) = (or (= x y) (mem x z))",
    ]
    assert [each.name for each in program.assumptions] == ["assumption-1"]
    assert str(program.goals[0]) == (
        "for all x: Nat, y: L. (mem x y) = true and x = Z implies (mem x (cons x y)) = true"
    )


def test_what_assertions_leave_open_is_a_free_functions_value() -> None:
    text = (
        OLD
        + """
    (declare-fun last (L) Nat)
    (assert (forall ((x Nat)) (= (last (cons x nil)) x)))
    (assert (forall ((x Nat) (y Nat) (z L)) (= (last (cons x (cons y z))) (last (cons y z)))))
    (assert (not (forall ((x L)) (= (last x) (head x)))))"""
    )
    program = parse(text.encode())
    assert equations(program, "last")[0] == "(last nil) = last.any"
    assert [symbol.name for symbol in program.free] == ["last.any", "head.any"]


def test_a_constant_may_be_of_any_sort() -> None:
    text = (
        POLYMORPHIC
        + """
    (declare-const unknown (par (a) a))
    (define-fun first (par (a) (((x (list a))) a))
      (match x ((nil (_ unknown a)) ((cons h t) h))))
    (prove (par (a) (forall ((x (list a)) (m (list Int)))
      (= (first (app x x)) (ite (= (first m) (_ unknown Int)) (_ unknown a) (first x))))))"""
    )
    program = parse(text.encode())
    assert equations(program, "first") == ["(first nil) = unknown.2", "(first (cons h t)) = h"]
    assert sorted(f"{symbol}: {symbol.result}" for symbol in program.free) == [
        "unknown.2: a",
        "unknown: Int",
    ]


def test_our_own_language_says_the_same() -> None:
    text = b"""
    data nat = zero | succ(nat)   # a comment
    fun half(nat): nat
    half(zero) = zero
    half(succ(zero)) = zero
    half(succ(succ(n))) = succ(half(n))
    free likes(nat): bool
    assume likes(zero)
    prove forall x: nat, y: nat. likes(x) and x = y => not half(x) = succ(y) or likes(y)
    """
    program = parse(text, "own.prove")
    assert len(equations(program, "half")) == 3
    assert str(program.goals[0]) == (
        "for all x: nat, y: nat. (likes x) = true and x = y implies "
        "(or (not (= (half x) (succ y))) (likes y)) = true"
    )


def test_a_goal_of_our_own_language_may_have_a_name() -> None:
    text = b"prove 1 = 1\nprove same: 2 = 2\nprove forall x: int. x = x\nprove goal: 3 = 3"
    with pytest.raises(SourceError, match="4:7: goal: a goal of this name is there already"):
        parse(text, "own.prove")
    program = parse(text.replace(b"goal:", b"last:"), "own.prove")
    assert [goal.name for goal in program.goals] == ["goal", "same", "goal-3", "last"]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "1:1", "empty"),
        ("; nothing\n", "1:1", "empty"),
        (NAT, "1:1", "no goal"),
        ("(prove true", "1:1", "never closed"),
        ("(prove true))", "1:13", "closes nothing"),
        ("(prove\n (= a true))", "2:5", "a: unknown symbol"),
        ("(prove (= |a true))", "1:11", "not closed"),
        ("(prove\x00 true)", "1:7", "control character 0x00"),
        ("(" * 10_000 + ")" * 10_000, "1:1001", "nested deeper than 1000"),
        (f"{NAT}(prove (= (S Z Z) Z))", "1:63", "(S Z Z): S takes 1 arguments, not 2"),
        (f"{NAT}(prove (= (S Z) true))", "1:69", "sort Bool where Nat is expected"),
        (f"{NAT}(prove (forall ((x Nut)) (= x x)))", "1:72", "Nut: unknown sort"),
        (f"{NAT}(prove (exists ((x Nat)) (= x Z)))", "1:60", "exists"),
        (f"{NAT}{NAT}(prove true)", "1:74", "Nat: a sort of this name is there already"),
        ("(frobnicate)", "1:1", "(frobnicate): unknown command"),
        ("(declare-fun f)", "1:1", "declare-fun takes 2 or 3 parts"),
        ("(prove (forall ((b Bool)) (match b ((true b)))))", "1:27", "no case for false"),
        (f"(prove (= {'9' * 5000} 1))", "1:11", "more than 1000 digits"),
        ("(prove (let ((x)) x))", "1:8", "(let (...) x)"),
    ],
)
def test_an_error_has_line_column_and_construct(text: str, place: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text.encode(), "bad.smt2")
    assert str(caught.value).startswith(f"bad.smt2:{place}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("prove", "1:6", "expected a name, found the end"),
        ("data t = \n = c", "2:2", "expected a name"),
        ("fun f: int\n g = 1\nprove f = 1", "2:2", "no fun declares"),
        ("fun f(int): int\nf(x) = x ? 1", "2:10", "unexpected '?'"),
        ("fun f: int\nf = " + "(" * 5000, "2:1005", "nested deeper"),
        ("sort s\nprove forall x: t. x = x", "2:17", "unknown sort"),
        ("prove a: 1 = 1\nprove a: 2 = 2", "2:7", "a: a goal of this name is there already"),
        ("prove goal-7: 1 = 1", "1:13", "found :"),
    ],
)
def test_an_error_in_our_own_language_has_its_place(text: str, place: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text.encode(), "bad.prove")
    assert str(caught.value).startswith(f"bad.prove:{place}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("text", [b"(" * 10_000_000, b"()" * 120_000, b"\xff" * 100, b"(= " * 900])
def test_absurd_input_is_refused_within_two_seconds(text: bytes) -> None:
    began_s = time.process_time()
    with pytest.raises(ProverError):
        parse(text)
    assert time.process_time() - began_s < 2


def test_deep_terms_that_are_allowed_are_read() -> None:
    deep = "(S " * 900 + "Z" + ")" * 900
    program = parse(f"{NAT}(prove (= {deep} {deep}))".encode())
    assert program.goals[0].conclusion.left.size == 901


def test_polymorphic_recursion_is_refused_by_name() -> None:
    text = (
        POLYMORPHIC
        + """
    (define-fun-rec grow (par (a) (((x (list a))) Int)) (grow (cons x (_ nil (list a)))))
    (prove (forall ((x (list Int))) (= (grow x) 0)))"""
    )
    with pytest.raises(Inadmissible, match="polymorphic"):
        parse(text.encode())


@pytest.mark.parametrize("num_parameters", [8, 40])
def test_definitions_that_explode_are_read_or_refused_within_seconds(num_parameters: int) -> None:
    names = [f"x{index}" for index in range(num_parameters)]
    bound = " ".join(f"({name} Nat)" for name in names)
    tests = " ".join(f"(match {name} ((Z true) ((S n) false)))" for name in names)
    text = f"{NAT}(define-fun f ({bound}) Bool (and {tests}))(prove (f {'Z ' * num_parameters}))"
    began_s = time.process_time()
    if num_parameters == 8:
        assert len(equations(parse(text.encode()), "f")) == 256
    else:
        with pytest.raises(Inadmissible, match="f: more than 600 equations"):
            parse(text.encode())
    assert time.process_time() - began_s < 4


def test_nested_lets_that_double_are_refused_at_once() -> None:
    lets = "".join(f"(let ((x{i + 1} (f x{i} x{i}))) " for i in range(60))
    text = f"{NAT}(declare-fun f (Nat Nat) Nat)(prove (forall ((x0 Nat)) {lets}(= x60 Z){')' * 62}"
    with pytest.raises(SourceError, match="larger than 100000 symbols"):
        parse(text.encode())


def test_the_same_file_is_read_the_same_whatever_the_hash_seed(tmp_path: Path) -> None:
    file = tmp_path / "some.smt2"
    goal = (
        "(prove (par (c) (forall ((x (list c)) (k c)) (= (map (lambda ((v c)) k) x) (app x x)))))"
    )
    file.write_text(POLYMORPHIC + goal)
    shown = [
        subprocess.run(
            [sys.executable, "-m", "prover", "--show", str(file)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    ]
    assert shown[0] == shown[1]
    assert "(map f (cons h t)) = (cons (@ f h) (map f t))" in shown[0]


def test_a_premise_that_speaks_of_nothing_outside_is_an_assumption() -> None:
    begin = "(declare-datatype N ((Z) (S (p N)))) (declare-fun q (N) Bool)"
    program = parse(f"{begin} (prove (forall ((n N)) (=> (forall ((m N)) (q m)) (q n))))".encode())
    assert [str(each) for each in program.assumptions] == ["for all m: N. (q m) = true"]
    assert str(program.goals[0]) == "for all n: N. (q n) = true"


@pytest.mark.parametrize(
    "goals",
    [
        "(prove (forall ((n N)) (=> (forall ((m N)) (= (q m) (q n))) (q n))))",
        "(prove (forall ((n N)) (=> (forall ((m N)) (q m)) (q n)))) (prove (q Z))",
        "(prove (forall ((n N)) (not (forall ((m N)) (q m)))))",
    ],
)
def test_another_inner_quantifier_is_refused(goals: str) -> None:
    begin = "(declare-datatype N ((Z) (S (p N)))) (declare-fun q (N) Bool)"
    with pytest.raises(SourceError, match="forall: it is read only at the top of a formula"):
        parse(f"{begin} {goals}".encode())
