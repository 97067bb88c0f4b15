"""A verdict depends on what a problem says: not on names, nor on the order of definitions."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from prover.checks import check
from prover.errors import Inadmissible, SourceError
from prover.search import directed, enumerative
from prover.syntax.problem import parse
from prover.syntax.sexpr import Node, Source, read
from prover.verdict import Budget, Proved, Refuted, Unknown, Verdict
from tests.prover.proofs import LISTS, NATURALS
from tests.prover.test_search import THEOREMS

STEPS = 3_000
SETS = ("laws", "tip/isaplanner", "tip/prod", "tip/false", "sufu/cvc5", "vmcai15-dt")
SAMPLE, MOST_BYTES = 3, 6_000
FIXED = {
    *("declare-sort", "declare-datatype", "declare-datatypes", "define-fun", "define-fun-rec"),
    *("define-funs-rec", "declare-fun", "declare-const", "define-const", "assert", "assert-not"),
    *("prove", "check-sat", "set-logic", "set-info", "set-option", "par", "forall", "exists"),
    *("match", "case", "default", "let", "lambda", "_", "as", "is", "@", "!", ":pattern"),
    *("Bool", "Int", "=>", "=", "distinct", "ite", "true", "false", "not", "and", "or", "xor"),
    *("+", "-", "*", "div", "mod", "<", "<=", ">", ">="),
}
# Names that a search gives to its own variables and lemmas, so that they are in its way.
IN_THE_WAY = ("xs", "n", "m", "ys", "t", "k", "a", "lemma-1", "u", "zs", "b", "f", "p", "goal")
FREE = """(declare-sort M 0)
(declare-fun mul (M M) M)
(declare-fun one () M)
(assert (forall ((x M)) (= (mul one x) x)))
(assert (forall ((x M) (y M) (z M)) (= (mul (mul x y) z) (mul x (mul y z)))))
(declare-datatypes ((L 0)) (((nil) (cons (hd M) (tl L)))))
(declare-fun app (L L) L)
(assert (forall ((h M) (t L) (y L)) (= (app (cons h t) y) (cons h (app t y)))))
(assert (forall ((y L)) (= (app nil y) y)))
(declare-fun fold (L) M)
(assert (forall ((h M) (t L)) (= (fold (cons h t)) (mul h (fold t)))))
(assert (= (fold nil) one))
"""
OWN = {
    "plus commutes": (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus y x)))"),
    "a false goal": (NATURALS, "(forall ((x Nat) (y Nat)) (= (plus x y) (plus x x)))"),
    "a false goal of a free function": (LISTS, "(forall ((s St) (h E)) (= (step s h) s))"),
    "a condition": (NATURALS, "(forall ((x Nat) (y Nat)) (=> (leq x y) (leq x (S y))))"),
    "two steps": (NATURALS, "(forall ((x Nat)) (= (even (plus x x)) true))"),
    "reversing twice": (LISTS, "(forall ((x L)) (= (rev (rev x)) x))"),
    "an operator that is kept whole": THEOREMS["an operator that is kept whole"],
    "what is not found": (NATURALS, "(forall ((x Nat)) (= (even (plus x (S x))) (odd x)))"),
    "assumptions": (FREE, "(forall ((x L) (y L)) (= (fold (app x y)) (mul (fold x) (fold y))))"),
}


class Disguise:
    """The same problem: every name is another one, and the definitions are shuffled."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._names: dict[str, str] = {}
        names = [*IN_THE_WAY, *(f"{word}{i}" for i in range(400) for word in ("q", "Zz", "A"))]
        self.draw.shuffle(names)
        self._free = iter(names)

    def text(self, data: bytes) -> bytes:
        nodes = read(Source.of_bytes(data, "disguised"))
        return "\n".join(map(self._written, self._shuffled(nodes))).encode()

    def _shuffled(self, nodes: tuple[Node, ...]) -> Iterator[Node]:
        """Sorts are declared before they are used, and a goal may be the last assertion."""
        sorts = [each for each in nodes if each.head.startswith(("declare-sort", "declare-data"))]
        goals = [each for each in nodes if "prove assert-not".find(each.head) >= 0 and each.head]
        negated = [n for n in nodes if n.head == "assert" and n.items[1].head == "not"]
        goals = goals or negated[-1:]
        others = [each for each in nodes if each not in sorts and each not in goals]
        self.draw.shuffle(others)
        yield from (*sorts, *others, *goals)

    def _written(self, node: Node) -> str:
        if node.is_list:
            return f"({' '.join(map(self._written, node.items))})"
        return self._name(node.text)

    def _name(self, text: str) -> str:
        if text in FIXED or text.isdecimal() or text.startswith((":", '"')):
            return text
        if text.startswith("is-"):
            return f"is-{self._name(text[3:])}"
        if text not in self._names:
            self._names[text] = next(self._free)
        return self._names[text]


def _verdict(data: bytes, search: str = "directed", steps: int = STEPS) -> Verdict | None:
    """What comes of the first goal; none for a problem that is refused."""
    try:
        program = parse(data, "problem.smt2")
        check(program)
    except (SourceError, Inadmissible):
        return None
    look = directed.search if search == "directed" else enumerative.search
    return look(program, program.goals[0], Budget(steps, 120.0))


def _told(verdict: Verdict | None) -> str:
    if isinstance(verdict, Unknown):
        return f"unknown: {verdict.reason}"
    return "refused" if verdict is None else type(verdict).__name__


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("search", ["directed", "enumerative"])
@pytest.mark.parametrize("name", OWN)
def test_names_and_order_change_no_verdict(name: str, search: str, seed: int) -> None:
    declarations, goal = OWN[name]
    data = f"{declarations}(prove {goal})".encode()
    disguised = Disguise(seed).text(data)
    assert disguised != data
    verdict, other = _verdict(data, search), _verdict(disguised, search)
    assert _told(other) == _told(verdict)
    assert _told(verdict) != "refused"
    assert _shape(other) == _shape(verdict)


def _shape(verdict: Verdict | None) -> object:
    """What two searches that went alike have in common."""
    if isinstance(verdict, Proved):
        groups = verdict.certificate["groups"]
        return [[len(case["proof"]) for each in of for case in each["cases"]] for of in groups]
    return len(verdict.values) if isinstance(verdict, Refuted) else None


def test_a_goal_keeps_the_names_of_its_variables() -> None:
    """Also where the proof would have called others so."""
    data = f"{LISTS}(prove (forall ((ys L) (xs L)) (= (app xs (rev ys)) (app xs (rev ys)))))"
    verdict = _verdict(data.encode())
    assert isinstance(verdict, Proved)
    assert verdict.statement.startswith("proved: for all ys: L, xs: L. (app xs (rev ys)) =")


@pytest.fixture
def folder() -> Path:
    named = os.environ.get("THOTH_DATA")
    if not named or not (Path(named) / "prover").is_dir():
        pytest.skip("THOTH_DATA is not set to a folder with prover/: problems in SMT-LIB and TIP")
    return Path(named) / "prover"


@pytest.mark.parametrize("of", SETS)
def test_names_and_order_change_no_verdict_of_a_problem(folder: Path, of: str) -> None:
    files = sorted(f for f in (folder / of).rglob("*.smt2") if f.stat().st_size < MOST_BYTES)
    _compare(files[:: max(1, len(files) // SAMPLE)][:SAMPLE], STEPS)


@pytest.mark.long
@pytest.mark.parametrize("of", SETS)
def test_names_and_order_change_no_verdict_of_any_problem(folder: Path, of: str) -> None:
    _compare(sorted((folder / of).rglob("*.smt2")), STEPS)


def _compare(files: list[Path], steps: int) -> None:
    assert files
    told = {}
    for number, file in enumerate(files):
        data = file.read_bytes()
        of = [_verdict(each, steps=steps) for each in (data, Disguise(number).text(data))]
        told[file.name] = [(_told(each), _shape(each)) for each in of]
    assert not {name: of for name, of in told.items() if of[0] != of[1]}
