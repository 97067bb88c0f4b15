"""Where terms stand inside each other. A position is a path of argument numbers, from 0."""

from __future__ import annotations

from prover.terms import Apply, Term, Variable, make, subterms

Position = tuple[int, ...]


def is_strict_subterm(part: Term, whole: Term) -> bool:
    """Whether `part` lies below the root of `whole`."""
    return part is not whole and any(part is other for other in subterms(whole))


def subterm_at(term: Term, position: Position) -> Term:
    """The subterm that is reached by argument numbers, from 0. IndexError where there is none."""
    for index in position:
        if isinstance(term, Variable) or not 0 <= index < len(term.arguments):
            raise IndexError(position)
        term = term.arguments[index]
    return term


def replace_at(term: Term, position: Position, new: Term) -> Term:
    """The term with another subterm at a position."""
    spine: list[Apply] = []
    for index in position:
        if isinstance(term, Variable) or not 0 <= index < len(term.arguments):
            raise IndexError(position)
        spine.append(term)
        term = term.arguments[index]
    for above, index in zip(reversed(spine), reversed(position), strict=True):
        before, after = above.arguments[:index], above.arguments[index + 1 :]
        new = make(above.symbol, (*before, new, *after))
    return new


def places(term: Term, wanted: Term) -> list[Position]:
    """Where a term stands in another, but not inside itself; from left to right."""
    found: list[Position] = []
    stack: list[tuple[Position, Term]] = [((), term)]
    while stack:
        at, part = stack.pop()
        if part is wanted:
            found.append(at)
        elif isinstance(part, Apply):
            inner = [((*at, index), each) for index, each in enumerate(part.arguments)]
            stack.extend(reversed(inner))
    return found
