"""Programs with proofs that were written by hand, as certificates."""

from __future__ import annotations

from typing import Any

from prover.checker import FORMAT
from prover.program import Program
from prover.syntax.problem import parse

Data = dict[str, Any]

NATURALS = """
(declare-datatypes ((Nat 0)) (((Z) (S (pred Nat)))))
(define-fun-rec plus ((x Nat) (y Nat)) Nat (match x ((Z y) ((S n) (S (plus n y))))))
(define-fun-rec leq ((x Nat) (y Nat)) Bool
  (match x ((Z true) ((S a) (match y ((Z false) ((S b) (leq a b))))))))
(define-funs-rec ((even ((x Nat)) Bool) (odd ((x Nat)) Bool))
  ((match x ((Z true) ((S n) (odd n)))) (match x ((Z false) ((S n) (even n))))))
"""
LISTS = """
(declare-sort E 0)
(declare-datatypes ((L 0)) (((nil) (cons (hd E) (tl L)))))
(define-fun-rec app ((x L) (y L)) L (match x ((nil y) ((cons h t) (cons h (app t y))))))
(define-fun-rec rev ((x L)) L (match x ((nil nil) ((cons h t) (app (rev t) (cons h nil))))))
(declare-sort St 0)
(declare-fun step (St E) St)
(define-fun-rec prefill ((s St) (x L)) St (match x ((nil s) ((cons h t) (prefill (step s h) t)))))
(declare-fun likes (E) Bool)
"""


def program(declarations: str, goal: str) -> Program:
    return parse(f"{declarations}(prove {goal})".encode(), "proof.smt2")


def rewrite(side: str, at: list[int], rule: str, **by: str) -> Data:
    return {"by": "rewrite", "side": side, "at": at, "rule": rule, "with": by}


def compute(side: str, at: list[int]) -> Data:
    return {"by": "compute", "side": side, "at": at}


def case(patterns: list[str], variables: list[list[str]], *proof: Data) -> Data:
    return {"patterns": patterns, "variables": variables, "proof": list(proof)}


def lemma(name: str, variables: str, sides: tuple[str, str], on: str, *cases: Data) -> Data:
    """`variables` as in `x y:Nat z:L`: those before a sort have it too."""
    typed, waiting = [], []
    for word in variables.split():
        waiting.append(word.partition(":")[0])
        if ":" in word:
            typed += [[each, word.partition(":")[2]] for each in waiting]
            waiting = []
    return {
        "name": name,
        "variables": typed,
        "conditions": [],
        "left": sides[0],
        "right": sides[1],
        "on": on.split(),
        "cases": list(cases),
    }


def certificate(*groups: list[Data]) -> Data:
    return {"format": FORMAT, "goal": "goal", "groups": list(groups)}


def plus_associates() -> tuple[Program, Data]:
    goal = "(forall ((x Nat) (y Nat) (z Nat)) (= (plus x (plus y z)) (plus (plus x y) z)))"
    zero = case(
        ["Z"],
        [],
        rewrite("left", [], "define:plus:1", y="(plus y z)"),
        rewrite("right", [0], "define:plus:1", y="y"),
    )
    successor = case(
        ["(S n)"],
        [["n", "Nat"]],
        rewrite("left", [], "define:plus:2", n="n", y="(plus y z)"),
        rewrite("left", [0], "ih:goal", x="n", y="y", z="z"),
        rewrite("right", [0], "define:plus:2", n="n", y="y"),
        rewrite("right", [], "define:plus:2", n="(plus n y)", y="z"),
    )
    sides = ("(plus x (plus y z))", "(plus (plus x y) z)")
    proof = lemma("goal", "x y z:Nat", sides, "x", zero, successor)
    return program(NATURALS, goal), certificate([proof])


def _append_nil(name: str) -> Data:
    nil = case(["nil"], [], rewrite("left", [], "define:app:1", y="nil"))
    cons = case(
        ["(cons h t)"],
        [["h", "E"], ["t", "L"]],
        rewrite("left", [], "define:app:2", h="h", t="t", y="nil"),
        rewrite("left", [1], f"ih:{name}", xs="t"),
    )
    return lemma(name, "xs:L", ("(app xs nil)", "xs"), "xs", nil, cons)


def _append_associates() -> Data:
    nil = case(
        ["nil"],
        [],
        rewrite("left", [], "define:app:1", y="(app ys zs)"),
        rewrite("right", [0], "define:app:1", y="ys"),
    )
    cons = case(
        ["(cons h t)"],
        [["h", "E"], ["t", "L"]],
        rewrite("left", [], "define:app:2", h="h", t="t", y="(app ys zs)"),
        rewrite("left", [1], "ih:app-assoc", xs="t", ys="ys", zs="zs"),
        rewrite("right", [0], "define:app:2", h="h", t="t", y="ys"),
        rewrite("right", [], "define:app:2", h="h", t="(app t ys)", y="zs"),
    )
    sides = ("(app xs (app ys zs))", "(app (app xs ys) zs)")
    return lemma("app-assoc", "xs ys zs:L", sides, "xs", nil, cons)


def _reverse_append() -> Data:
    nil = case(
        ["nil"],
        [],
        rewrite("left", [0], "define:app:1", y="ys"),
        rewrite("right", [1], "define:rev:1"),
        rewrite("right", [], "lemma:app-nil", xs="(rev ys)"),
    )
    cons = case(
        ["(cons h t)"],
        [["h", "E"], ["t", "L"]],
        rewrite("left", [0], "define:app:2", h="h", t="t", y="ys"),
        rewrite("left", [], "define:rev:2", h="h", t="(app t ys)"),
        rewrite("left", [0], "ih:rev-app", xs="t", ys="ys"),
        rewrite("right", [1], "define:rev:2", h="h", t="t"),
        rewrite("right", [], "lemma:app-assoc", xs="(rev ys)", ys="(rev t)", zs="(cons h nil)"),
    )
    sides = ("(rev (app xs ys))", "(app (rev ys) (rev xs))")
    return lemma("rev-app", "xs ys:L", sides, "xs", nil, cons)


def append_nil() -> tuple[Program, Data]:
    goal = "(forall ((xs L)) (= (app xs nil) xs))"
    return program(LISTS, goal), certificate([_append_nil("goal")])


def reverse_twice() -> tuple[Program, Data]:
    goal = "(forall ((xs L)) (= (rev (rev xs)) xs))"
    nil = case(
        ["nil"], [], rewrite("left", [0], "define:rev:1"), rewrite("left", [], "define:rev:1")
    )
    cons = case(
        ["(cons h t)"],
        [["h", "E"], ["t", "L"]],
        rewrite("left", [0], "define:rev:2", h="h", t="t"),
        rewrite("left", [], "lemma:rev-app", xs="(rev t)", ys="(cons h nil)"),
        rewrite("left", [0], "define:rev:2", h="h", t="nil"),
        rewrite("left", [0, 0], "define:rev:1"),
        rewrite("left", [0], "define:app:1", y="(cons h nil)"),
        rewrite("left", [], "define:app:2", h="h", t="nil", y="(rev (rev t))"),
        rewrite("left", [1], "define:app:1", y="(rev (rev t))"),
        rewrite("left", [1], "ih:goal", xs="t"),
    )
    last = lemma("goal", "xs:L", ("(rev (rev xs))", "xs"), "xs", nil, cons)
    lemmas = [[_append_nil("app-nil")], [_append_associates()], [_reverse_append()]]
    return program(LISTS, goal), certificate(*lemmas, [last])


def chunked_prefill() -> tuple[Program, Data]:
    """A law of this system: a prompt may be computed in chunks."""
    goal = "(forall ((s St) (a L) (r L)) (= (prefill s (app a r)) (prefill (prefill s a) r)))"
    nil = case(
        ["nil"],
        [],
        rewrite("left", [1], "define:app:1", y="r"),
        rewrite("right", [0], "define:prefill:1", s="s"),
    )
    cons = case(
        ["(cons h t)"],
        [["h", "E"], ["t", "L"]],
        rewrite("left", [1], "define:app:2", h="h", t="t", y="r"),
        rewrite("left", [], "define:prefill:2", s="s", h="h", t="(app t r)"),
        rewrite("left", [], "ih:goal", s="(step s h)", a="t", r="r"),
        rewrite("right", [0], "define:prefill:2", s="s", h="h", t="t"),
    )
    sides = ("(prefill s (app a r))", "(prefill (prefill s a) r)")
    return program(LISTS, goal), certificate([lemma("goal", "s:St a r:L", sides, "a", nil, cons)])


def smaller_than_successor() -> tuple[Program, Data]:
    """A conditional goal, by induction on two variables at once."""
    goal = "(forall ((x Nat) (y Nat)) (=> (leq x y) (leq x (S y))))"
    zero = case(["Z", "b"], [["b", "Nat"]], rewrite("left", [], "define:leq:1", y="(S b)"))
    never = case(
        ["(S a)", "Z"],
        [["a", "Nat"]],
        {
            "by": "have",
            "name": "no",
            "left": "false",
            "right": "true",
            "proof": [
                rewrite("left", [], "define:leq:2", a="a") | {"backward": True},
                rewrite("left", [], "hypothesis:condition-1"),
            ],
        },
        {"by": "absurd", "of": "no"},
    )
    premise = [
        rewrite("left", [], "define:leq:3", a="a", b="b") | {"backward": True},
        rewrite("left", [], "hypothesis:condition-1"),
    ]
    both = case(
        ["(S a)", "(S b)"],
        [["a", "Nat"], ["b", "Nat"]],
        rewrite("left", [], "define:leq:3", a="a", b="(S b)"),
        rewrite("left", [], "ih:goal", x="a", y="b") | {"conditions": [premise]},
    )
    proof = lemma("goal", "x y:Nat", ("(leq x (S y))", "true"), "x y", zero, never, both)
    proof["conditions"] = [["(leq x y)", "true"]]
    return program(NATURALS, goal), certificate([proof])


def even_or_odd() -> tuple[Program, Data]:
    """Two lemmas that use each other's hypotheses."""
    goal = "(forall ((x Nat)) (= (even x) (not (odd x))))"

    def half(one: str, other: str, name: str, uses: str) -> Data:
        zero = case(
            ["Z"],
            [],
            rewrite("left", [], f"define:{one}:1"),
            rewrite("right", [0], f"define:{other}:1"),
            compute("right", []),
        )
        successor = case(
            ["(S n)"],
            [["n", "Nat"]],
            rewrite("left", [], f"define:{one}:2", n="n"),
            rewrite("right", [0], f"define:{other}:2", n="n"),
            rewrite("left", [], f"ih:{uses}", x="n"),
        )
        return lemma(name, "x:Nat", (f"({one} x)", f"(not ({other} x))"), "x", zero, successor)

    group = [half("even", "odd", "A", "B"), half("odd", "even", "B", "A")]
    last = case([], [], rewrite("left", [], "lemma:A", x="x"))
    return program(NATURALS, goal), certificate(
        group, [lemma("goal", "x:Nat", ("(even x)", "(not (odd x))"), "", last)]
    )


def split_on_a_condition() -> tuple[Program, Data]:
    goal = "(forall ((x E) (a L) (b L)) (= (ite (likes x) (ite (likes x) a b) b)" + (
        " (ite (likes x) a b)))"
    )
    false, true = (
        {
            "variables": [],
            "proof": [
                rewrite("left", [0], "hypothesis:h"),
                compute("left", []),
                *extra,
                rewrite("right", [0], "hypothesis:h"),
                compute("right", []),
            ],
        }
        for extra in ([], [rewrite("left", [0], "hypothesis:h"), compute("left", [])])
    )
    split = {"by": "cases", "of": "(likes x)", "name": "h", "branches": [false, true]}
    sides = ("(ite (likes x) (ite (likes x) a b) b)", "(ite (likes x) a b)")
    return program(LISTS, goal), certificate(
        [lemma("goal", "x:E a b:L", sides, "", case([], [], split))]
    )


def equal_tails() -> tuple[Program, Data]:
    """From constructors that are equal to their fields, and from `=` as a Bool to an equality."""
    goal = "(forall ((x E) (a L) (b L)) (=> (= (= (cons x a) (cons x b)) true) (= a b)))"
    proof = case(
        [],
        [],
        {"by": "equal", "of": "condition-1", "name": "same"},
        {"by": "injective", "of": "same", "field": 1, "name": "tails"},
        rewrite("left", [], "hypothesis:tails"),
    )
    last = lemma("goal", "x:E a b:L", ("a", "b"), "", proof)
    last["conditions"] = [["(= (cons x a) (cons x b))", "true"]]
    return program(LISTS, goal), certificate([last])


PROOFS = {
    each.__name__: each
    for each in (
        plus_associates,
        append_nil,
        reverse_twice,
        chunked_prefill,
        smaller_than_successor,
        even_or_odd,
        split_on_a_condition,
        equal_tails,
    )
}
