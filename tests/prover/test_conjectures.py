"""Enumerated equations: small, true on samples, none twice and none that rewriting shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from prover.patterns import match
from prover.program import Equality, Statement
from prover.rewriting.meter import Meter
from prover.rewriting.normaliser import Normaliser
from prover.rewriting.rules import RuleBook
from prover.samples.samples import Samples
from prover.syntax.problem import parse
from prover.synthesis.conjectures import Vocabulary, lemmas, vocabulary
from prover.terms import Term, Variable, show, variables
from prover.verdict import Budget
from tests.prover.theory import APPEND, PLUS, REVERSE

PROGRAM = parse(
    f"""
sort elem
data list = nil | cons(elem, list)
data nat = zero | succ(nat)
{APPEND}{REVERSE}{PLUS}prove forall xs: list. reverse(reverse(xs)) = xs
prove forall x: nat, y: nat. plus(x, y) = plus(y, x)
""".encode(),
    "some.prove",
)
TURNS, ADDS = PROGRAM.goals


class Knowledge:
    """Rewriting by definitions, and by every equation that was said to hold."""

    def __init__(self) -> None:
        self.book = RuleBook(PROGRAM)
        self.normaliser = Normaliser(self.book, Meter(Budget(10**9, 600)))

    def normal(self, term: Term) -> Term:
        return self.normaliser.normal(term)

    def learn(self, equation: Equality) -> None:
        among = variables(equation.left, equation.right)
        name = f"lemma:{self.book.version}"
        self.book.learn(name, Statement(name, among, (), equation))


def found(goal: Statement, normal: Callable[[Term], Term], most: int = 4_000) -> Iterator[Equality]:
    return lemmas(Samples(PROGRAM), vocabulary(PROGRAM, goal), normal, most)


def test_the_vocabulary_is_what_the_goal_speaks_of() -> None:
    words = vocabulary(PROGRAM, ADDS)
    assert [symbol.name for symbol in words.operators] == ["zero", "succ", "plus"]
    assert [str(variable.sort) for variable in words.variables] == ["nat"] * 3
    assert any(symbol.name == "append" for symbol in vocabulary(PROGRAM, TURNS).operators)


def test_the_laws_of_lists_come_first() -> None:
    knowledge = Knowledge()
    shown = []
    for equation in islice(found(TURNS, knowledge.normal), 4):
        knowledge.learn(equation)
        shown.append((equation.left.size, show(equation.left).split(" ")[0]))
    assert shown[:3] == [(3, "(reverse"), (3, "(append"), (5, "(append")]


def test_what_is_known_is_not_guessed_again() -> None:
    knowledge = Knowledge()
    known: list[Equality] = []
    for equation in found(ADDS, knowledge.normal):
        assert not any(is_instance(equation, other) for other in known)
        known.append(equation)
        knowledge.learn(equation)
    assert 2 <= len(known) <= 6
    commutes = next(each for each in known if each.left.size == each.right.size == 3)
    assert len(variables(commutes.left)) == 2


def is_instance(equation: Equality, of: Equality) -> bool:
    for one, other in ((of.left, of.right), (of.right, of.left)):
        bound: dict[Variable, Term] = {}
        if match(one, equation.left, bound) and match(other, equation.right, bound):
            return True
    return False


def test_no_two_differ_in_names_alone() -> None:
    every = list(found(ADDS, Knowledge().normal, 600))
    assert len(every) > 6
    for number, one in enumerate(every):
        for other in every[:number]:
            assert not (is_instance(one, other) and is_instance(other, one)), (one, other)


def test_sizes_do_not_fall_and_every_equation_is_true_on_other_samples() -> None:
    samples = Samples(PROGRAM, seed=41)
    sizes = []
    for equation in islice(found(TURNS, Knowledge().normal), 20):
        sizes.append(max(equation.left.size, equation.right.size))
        among = variables(equation.left, equation.right)
        assert samples.refute(Statement("", among, (), equation), 3) is None
    assert sizes == sorted(sizes)


def test_an_empty_vocabulary_gives_nothing() -> None:
    assert list(lemmas(Samples(PROGRAM), Vocabulary((), ()), lambda term: term, 100)) == []
