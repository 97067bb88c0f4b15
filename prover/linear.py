"""Linear forms over variables: a constant, and each variable so many times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prover.builtins import ARITHMETIC
from prover.terms import INT, Apply, Kind, Term, Variable, subterms


@dataclass(frozen=True, slots=True)
class Linear:
    """`constant`, and `counts` times each variable."""

    constant: int
    counts: Mapping[Variable, int]

    def plus(self, other: Linear, times: int = 1) -> Linear:
        counts = dict(self.counts)
        for variable, count in other.counts.items():
            counts[variable] = counts.get(variable, 0) + times * count
        return Linear(self.constant + times * other.constant, counts)

    def minus(self, other: Linear) -> Linear:
        return self.plus(other, -1)

    def or_larger(self, other: Linear) -> Linear:
        """At least as large as either, where no variable is negative."""
        both = {**self.counts, **other.counts}
        counts = {v: max(self.counts.get(v, 0), other.counts.get(v, 0)) for v in both}
        return Linear(max(self.constant, other.constant), counts)

    def only_constant(self) -> int | None:
        """Its value, if it is the same whatever the variables are."""
        return None if any(self.counts.values()) else self.constant

    def least(self) -> int | None:
        """Its least value where every variable is at least one; None where there is none."""
        if any(count < 0 for count in self.counts.values()):
            return None
        return self.constant + sum(self.counts.values())


def number(term: Term) -> Linear | None:
    """An Int term as a form over its variables; None where it is more than sums and multiples."""
    known: dict[Term, Linear | None] = {}
    for part in sorted(subterms(term), key=lambda part: part.size):
        known[part] = _number(part, known) if part.sort is INT else None
    return known[term]


def _number(part: Term, known: Mapping[Term, Linear | None]) -> Linear | None:
    if isinstance(part, Variable):
        return Linear(0, {part: 1})
    if part.symbol.kind is Kind.LITERAL:
        return Linear(int(part.symbol.name), {})
    if part.symbol not in ARITHMETIC.values() or part.is_partial:
        return None
    left, right = (known[each] for each in part.arguments)
    return None if left is None or right is None else _combined(part.symbol.name, left, right)


def _combined(name: str, left: Linear, right: Linear) -> Linear | None:
    if name in ("+", "-"):
        return left.plus(right, 1 if name == "+" else -1)
    is_multiple = name == "*" and left.only_constant() is not None
    return Linear(0, {}).plus(right, left.constant) if is_multiple else None


def ensured(condition: Term, holds: bool) -> Iterator[Linear]:
    """Forms that are at least zero if the condition holds, or if it does not; not all there are."""
    stack = [(condition, holds)]
    while stack:
        part, holds = stack.pop()
        if not isinstance(part, Apply) or part.symbol.kind is not Kind.BUILTIN or part.is_partial:
            continue
        name = part.symbol.name
        if name == "not":
            stack.append((part.arguments[0], not holds))
        elif name == ("and" if holds else "or"):
            stack.extend((each, holds) for each in part.arguments)
        elif name in ("<", "<=", "=") and part.arguments[0].sort is INT:
            yield from _compared(name, part, holds)


def _compared(name: str, part: Apply, holds: bool) -> Iterator[Linear]:
    left, right = (number(each) for each in part.arguments)
    if left is None or right is None:
        return
    one = Linear(1, {})
    if name == "=":
        yield from (left.minus(right), right.minus(left)) if holds else ()
    elif name == "<":
        yield right.minus(left).minus(one) if holds else left.minus(right)
    else:
        yield right.minus(left) if holds else left.minus(right).minus(one)
