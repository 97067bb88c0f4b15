"""The order in which equations and assumptions stand: by what they say.

What a search finds must not depend on what things are called or on where a file says them, so both
are compared by their shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prover.program import Equation, Statement
from prover.terms import Kind, Sort, Symbol, Term, Variable

Constructors = Callable[[Sort], tuple[Symbol, ...]]
Shape = tuple[Any, ...]


def ordered_equations(
    equations: Iterable[Equation], constructors: Constructors
) -> tuple[Equation, ...]:
    """By their patterns, as the constructors of the data types stand; a variable comes first."""

    def shape(pattern: Term) -> Shape:
        if isinstance(pattern, Variable):
            return ()
        place = constructors(pattern.sort).index(pattern.symbol)
        return (place, *map(shape, pattern.arguments))

    return tuple(sorted(equations, key=lambda each: tuple(map(shape, each.left.arguments))))


def ordered_assumptions(
    assumptions: Iterable[Statement], places: dict[Symbol, int]
) -> tuple[Statement, ...]:
    """By their size, and then by their terms, with symbols as `places` has them."""
    return tuple(sorted(assumptions, key=lambda each: _statement_shape(each, places)))


def _statement_shape(statement: Statement, places: dict[Symbol, int]) -> Shape:
    met: dict[Variable, int] = {}
    sides = [side for each in statement.equalities() for side in (each.left, each.right)]
    return sum(side.size for side in sides), [_word(side, places, met) for side in sides]


def _word(term: Term, places: dict[Symbol, int], met: dict[Variable, int]) -> list[Shape]:
    """The term from its root on; what has no place yet is known by its arguments alone."""
    words: list[Shape] = []
    stack = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, Variable):
            words.append((0, met.setdefault(part, len(met)), ""))
            continue
        fixed = part.symbol.name if part.symbol.kind in (Kind.BUILTIN, Kind.LITERAL) else ""
        words.append((1 + len(part.arguments), places.get(part.symbol, -1), fixed))
        stack.extend(reversed(part.arguments))
    return words
