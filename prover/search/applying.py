"""Branches after the use of an induction hypothesis: as a rule, as a fact, or against its grain.

And proofs by what was just proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prover.builtins import TRUE
from prover.positions import places, replace_at
from prover.rewriting.steps import Compute, Have, Proof, Rewrite, Side
from prover.search.branch import Branch, is_truth
from prover.search.conjecture import Conjecture
from prover.search.hypotheses import Case
from prover.terms import Apply, Term, Variable

_MOST_INSTANCES = 6


def with_hypotheses(branch: Branch, case: Case) -> Iterator[Branch]:
    """The branch after each use of the hypotheses that changes it."""
    if not branch.local:
        yield from with_rules(branch, case)
    other = with_facts(branch, case)
    if other is not None:
        if not other.is_closed:
            other.simplify()
        yield other


def with_rules(branch: Branch, case: Case) -> Iterator[Branch]:
    """The branch after rewriting by the hypotheses, in each direction that changes it."""
    for backward in (False, True):
        rules = case.rules(backward)
        other = branch.fork(branch.left, branch.right)
        other.use((*branch.local, *rules))
        if rules and other.simplify():
            other.steps = [*branch.steps, *other.steps]
            yield other


def outward(branch: Branch, case: Case) -> Branch | None:
    """Where a hypothesis says `t = s` for a variable s, t in place of s on the right side."""
    for by, smaller in case.instances(()):
        if smaller.conditions or not isinstance(smaller.right, Variable):
            continue
        other = branch.again()
        given = tuple((v.name, by[v]) for v in case.conjecture.variables())
        for at in places(branch.right, smaller.right):
            rule, sides = f"ih:{case.lemma}", (smaller.right, smaller.left)
            other.steps.append(Rewrite("right", at, rule, given, True, (), *sides))
            other.right = replace_at(other.right, at, smaller.left)
        if other.right is not branch.right:
            return other
    return None


def with_facts(branch: Branch, case: Case) -> Branch | None:
    """The branch with hypotheses for its own values as facts; none if they say nothing new."""
    other = branch.again()
    is_rule = any(case.rules(backward) for backward in (False, True))
    if is_rule and not is_truth(case.conjecture.right):
        return None
    other.has_hypotheses = True
    for number, (by, smaller) in enumerate(case.instances(_spoken_of(branch, case))):
        if number >= _MOST_INSTANCES or other.is_closed:
            break
        _add_instance(other, case, by, smaller)
    is_more = len(other.facts) > len(branch.facts)
    if not is_rule:  # a variable that another one replaces may make two facts one
        is_more = other.facts.keys() != branch.facts.keys()
    return other if other.is_closed or is_more else None


def _spoken_of(branch: Branch, case: Case) -> tuple[Term, ...]:
    """Where values for a hypothesis stand; if it says that variables are equal, in the facts."""
    sides = (branch.left, branch.right)
    return (*sides, *branch.facts) if isinstance(case.conjecture.left, Variable) else sides


def _add_instance(
    branch: Branch, case: Case, by: Mapping[Variable, Term], smaller: Conjecture
) -> None:
    proofs = []
    for condition in smaller.conditions:
        proof = branch.normaliser().proof(condition)
        if proof is None:
            return
        proofs.append(proof)
    name = branch.new_name()
    given = tuple((variable.name, by[variable]) for variable in case.conjecture.variables())
    rule = f"ih:{case.lemma}"
    step = Rewrite("left", (), rule, given, False, tuple(proofs), smaller.left, smaller.right)
    branch.steps.append(Have(name, smaller.conclusion, (step,)))
    branch.assume(name, smaller.conclusion)


def equality(branch: Branch, rest: Branch, name: str, goal: tuple[Side, Apply]) -> Proof:
    """The proof of `(= s t)` = true on a side: s = t is the hypothesis that `rest` has more."""
    side, term = goal
    one, other = term.arguments
    steps = rest.steps[: len(branch.steps) + 1]
    after = term.symbol(other, other)
    by_name = Rewrite(side, (0,), f"hypothesis:{name}", (), False, (), one, other)
    return (*steps, by_name, Compute(side, (), after, TRUE))
