"""One branch of a proof: what closes it, what is denied in it, what a hypothesis is made to fit."""

from __future__ import annotations

from collections.abc import Sequence

from prover.builtins import FALSE, TRUE
from prover.program import Equality, Program
from prover.rewriting.steps import Absurd, Rewrite
from prover.search.applying import with_facts
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture, names_of
from prover.search.contradiction import denial
from prover.search.directed import Search
from prover.search.fit import Fitter
from prover.search.hypotheses import Case
from prover.search.tasks import Found
from prover.terms import Symbol, Variable
from prover.verdict import Budget
from tests.prover.proofs import LISTS, NATURALS, program
from tests.prover.test_search import FORESTS

BUDGET = Budget(steps=200_000, seconds=20.0)


def _search(declarations: str, goal: str) -> tuple[Search, Branch]:
    """A search, and the branch of its goal with the conditions as facts."""
    found = program(declarations, goal)
    search = Search(found, found.goals[0], BUDGET, 0)
    asked = Conjecture.of(found.goals[0])
    branch = Branch(search.loop.tools, asked.left, asked.right, names_of(asked.variables()))
    for number, condition in enumerate(asked.conditions, 1):
        branch.assume(f"condition-{number}", condition)
    return search, branch


def _symbol(found: Program, name: str) -> Symbol:
    return next(s for s in found.symbols() if s.name == name)


def _naturals(*names: str) -> tuple[Search, Branch, tuple[Variable, ...]]:
    search, branch = _search(NATURALS, "(forall ((x Nat)) (leq (plus x x) x))")
    sort = _symbol(search.program, "S").result
    return search, branch, tuple(Variable(name, sort) for name in names)


def test_a_fact_that_others_exclude_is_denied_under_them() -> None:
    _, branch = _search(
        FORESTS,
        "(forall ((a E) (b E) (p L) (q L) (x F)) (=> (and (not (likes a)) (likes b)"
        " (holds (cons a p) (pruned x))) (holds q x)))",
    )
    denied = denial(branch)
    assert denied is not None
    assert str(denied.conclusion) == "(holds (cons a p) (pruned x)) = false"
    assert [str(each) for each in denied.conditions] == ["(likes a) = false"]


def test_facts_that_may_hold_together_deny_nothing() -> None:
    _, branch = _search(
        FORESTS,
        "(forall ((a E) (p L) (x F)) (=> (and (likes a) (holds (cons a p) (pruned x)))"
        " (holds p x)))",
    )
    assert denial(branch) is None
    _, bare = _search(LISTS, "(forall ((x L)) (= (rev x) x))")
    assert denial(bare) is None


def test_no_step_follows_what_closes_a_branch() -> None:
    search, branch, (x, y) = _naturals("x", "y")
    zero, succ = (_symbol(search.program, name) for name in ("Z", "S"))
    branch.assume("h", Equality(succ(x), zero()))
    assert branch.is_closed
    assert branch.steps == [Absurd("h")]
    branch.assume("k", Equality(x, y))
    assert branch.steps == [Absurd("h")]
    assert not branch.facts


def test_a_hypothesis_that_cannot_be_closes_its_branch_and_nothing_is_simplified_after() -> None:
    search, branch, (x, smaller) = _naturals("x", "x'")
    succ, leq = (_symbol(search.program, name) for name in ("S", "leq"))
    branch.assume("known", Equality(leq(smaller, smaller), FALSE))
    case = Case("lemma-1", Conjecture(leq(x, x), TRUE), {x: succ(smaller)})
    closed = with_facts(branch, case)
    assert closed is not None
    assert closed.is_closed
    assert isinstance(closed.steps[-1], Absurd)
    assert not branch.is_closed


def test_a_call_is_rewritten_until_a_hypothesis_fits() -> None:
    search, branch, (x, y, z, smaller) = _naturals("x", "y", "z", "x'")
    succ, plus = (_symbol(search.program, name) for name in ("S", "plus"))
    case = Case("lemma-1", Conjecture(plus(z, plus(x, y)), plus(x, plus(z, y))), {x: succ(smaller)})
    nearly = branch.fork(plus(z, succ(plus(smaller, y))), z)
    fitter = Fitter(search.loop.tools, search.samples, search.loop.find)
    fitted = next(fitter.fit(nearly, case, 1))
    first, second = fitted.steps
    assert isinstance(first, Rewrite)
    assert isinstance(second, Rewrite)
    assert str(first.new) == str(plus(smaller, succ(y)))
    assert second.rule == "ih:lemma-1"
    assert fitted.left is plus(smaller, plus(z, succ(y)))


def test_what_does_not_fit_though_it_was_rewritten_is_left_alone() -> None:
    """The hypothesis names y twice, and the two places ask for different values of it."""
    search, branch, (x, y, z, w, smaller) = _naturals("x", "y", "z", "w", "x'")
    succ, plus = (_symbol(search.program, name) for name in ("S", "plus"))
    left = plus(plus(plus(x, z), y), y)
    case = Case("lemma-1", Conjecture(left, plus(x, plus(z, plus(y, y)))), {x: succ(smaller)})
    nearly = branch.fork(plus(succ(plus(plus(smaller, z), y)), w), z)
    asked: list[Conjecture] = []

    def find(wanted: Sequence[Conjecture], depth: int) -> Found | None:
        asked.extend(wanted)
        return search.loop.find(wanted, depth)

    fitter = Fitter(search.loop.tools, search.samples, find)
    assert list(fitter.fit(nearly, case, 1)) == []
    assert asked
