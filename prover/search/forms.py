"""The induction-friendly forms (arXiv 2405.11535): what an induction on x is sure to get done.

F1: one side is a single call that recurses on x. Unfolding it leaves calls on the smaller values
with any parameters, and the hypothesis speaks of all parameters: it always applies.
F2: both sides are single calls on the same x. Once the hypothesis is used, and each recursive call
that is left is a variable, neither function is there any more: only functions of lower rank.
"""

from __future__ import annotations

from enum import StrEnum

from prover.rewriting.rules import RuleBook
from prover.search.conjecture import Conjecture
from prover.terms import Apply, Term, Variable, subterms, variables


class Form(StrEnum):
    """What the sides of a conjecture look like to an induction on one variable."""

    F1 = "F1"
    F2 = "F2"


def form(book: RuleBook, conjecture: Conjecture, variable: Variable) -> Form | None:
    """The form for an induction on the variable, if it has one."""
    sides = (conjecture.left, conjecture.right)
    single = [is_single_recursion(book, side, variable) for side in sides]
    if conjecture.conditions or not any(single):
        return None
    return Form.F2 if all(single) else Form.F1


def is_single_recursion(book: RuleBook, term: Term, variable: Variable) -> bool:
    """Whether it calls a function that recurses on x, and all other arguments are variables."""
    if not isinstance(term, Apply) or term.symbol not in book.defined or term.is_partial:
        return False
    names = [argument for argument in term.arguments if isinstance(argument, Variable)]
    if len(names) != len(term.arguments) or len(dict.fromkeys(names)) != len(names):
        return False
    return variable in names and recurses_on(book, term, names.index(variable))


def recurses_on(book: RuleBook, call: Apply, index: int) -> bool:
    """Whether the function takes this argument apart, and calls itself on its fields alone."""
    ranks, calls = book.ordering.ranks, 0
    for rule in book.defined[call.symbol]:
        assert isinstance(rule.left, Apply)
        pattern = rule.left.arguments[index]
        if not _is_flat(rule.left, index):
            return False
        for part in (p for p in subterms(rule.right) if isinstance(p, Apply)):
            if part.symbol is call.symbol:
                if part.is_partial or part.arguments[index] not in variables(pattern):
                    return False
                calls += 1
            elif ranks.get(part.symbol, 0) >= ranks[call.symbol]:
                return False
    return calls > 0


def _is_flat(left: Apply, index: int) -> bool:
    """Whether one constructor stands at this argument, and variables everywhere else."""
    pattern = left.arguments[index]
    others = [each for place, each in enumerate(left.arguments) if place != index]
    if isinstance(pattern, Variable):
        return False
    return all(isinstance(each, Variable) for each in (*pattern.arguments, *others))
