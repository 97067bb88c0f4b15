"""What a goal's two sides look like."""

from __future__ import annotations

from collections.abc import Iterator

from prover.rewriting.steps import Side
from prover.search import splitting
from prover.search.branch import Branch, is_truth
from prover.terms import Apply, Term, subterms


def both_sides(branch: Branch) -> Iterator[tuple[Side, Apply, Term]]:
    if isinstance(branch.left, Apply):
        yield "left", branch.left, branch.right
    if isinstance(branch.right, Apply):
        yield "right", branch.right, branch.left


def says_something(term: Term) -> bool:
    """Whether there is more to it than variables and constructors of a data type."""
    return is_truth(term) or any(splitting.is_call(part) for part in subterms(term))


def same_constructor(left: Term, right: Term) -> bool:
    return (
        isinstance(left, Apply)
        and isinstance(right, Apply)
        and left.is_constructor
        and left.symbol is right.symbol
    )


def changes(branch: Branch, term: Term) -> bool:
    """Simplifies the branch: whether the term is no side of its goal any more."""
    before = (branch.left, branch.right)
    branch.simplify()
    return branch.is_closed or (branch.left, branch.right) != before or term not in before
