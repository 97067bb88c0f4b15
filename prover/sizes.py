"""How large the value of a term can be, in the sizes of its variables' values.

The size of a value of a data type is one for its constructor and the weighed sizes of its fields;
of every other value it is one. A weight is 0, 1 or 2, so sizes are whole numbers from one, and each
choice of weights is a measure by which nothing gets smaller for ever. A *form* is linear, with no
negative count, in the sizes of variables; the forms of a term are no smaller than its value is,
whatever values its variables have.

- A variable and a constructor have their own size.
- `ite` is no larger than the larger of its branches, variable by variable.
- A call is as large as the right side of an equation that its arguments match.
- A call `f(t1, ...)` is no larger than `c` and the sizes of some arguments together, where that
  holds of every equation of `f`, the calls of its own component on the right taken to be bounded
  so: by induction over the calls, which come to an end, since only functions are asked for that
  are known to terminate. All bounds of a component are tried at once, and what fails is dropped
  until the rest holds (the largest inductive set, as Flanagan and Leino find it, FME 2001).

Everything else, as the value of an unknown function, may be of any size: it has no form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from prover.linear import Linear
from prover.patterns import match
from prover.program import Program
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, substitute, subterms

Weight = Callable[[Symbol, int], int]

MOST_FORMS = 8  # of one term; each bounds it by itself, so any may be left out
MOST_UNFOLDED = 4  # calls, one after the other
MOST_TERMS = 20_000  # past them calls have no form
MOST_SIZED = 4  # arguments of a function whose bounds are looked for
CONSTANTS = (-1, 0, 1, 2)


ONE = Linear(1, {})
Forms = tuple[Linear, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A function's value is no larger than the constant and these arguments together."""

    constant: int
    arguments: tuple[int, ...]


class Sizes:
    """Forms of the terms of one program, by one choice of weights."""

    def __init__(self, program: Program, weight: Weight) -> None:
        self.program, self.weight = program, weight
        self._bounds: dict[Symbol, tuple[Bound, ...]] = {}
        self._known: dict[tuple[Term, int], Forms] = {}
        self._left = MOST_TERMS

    def admit(self, component: Sequence[Symbol]) -> None:
        """Looks for the bounds of functions that are known to terminate; callees come first."""
        for symbol in component:
            self._bounds[symbol] = tuple(self._candidates(symbol))
        dropped = True
        while dropped:
            dropped = False
            for symbol in component:
                dropped = self._drop(symbol) or dropped

    def forms(self, term: Term, unfold: int = MOST_UNFOLDED) -> Forms:
        """What bounds the value of the term."""
        if (term, unfold) not in self._known:
            for part in sorted(subterms(term), key=lambda part: part.size):
                if (part, unfold) not in self._known:
                    self._left -= 1
                    self._known[part, unfold] = _smallest(self._of(part, unfold))
        return self._known[term, unfold]

    def is_one(self, sort: Sort) -> bool:
        """Whether every value of the sort has size one."""
        constructors = self.program.constructors(sort)
        return not any(self.weight(c, i) for c in constructors for i in range(len(c.arguments)))

    def _of(self, part: Term, unfold: int) -> Iterator[Linear]:
        """The forms of a term whose arguments' forms are known."""
        if self.is_one(part.sort):
            yield ONE
        elif isinstance(part, Variable):
            yield Linear(0, {part: 1})
        elif part.is_constructor:
            weights = [self.weight(part.symbol, index) for index in range(len(part.arguments))]
            yield from self._sum(1, zip(weights, part.arguments, strict=True), unfold)
        elif part.symbol.kind is Kind.BUILTIN and part.symbol.name == "ite":
            then, otherwise = (self._known[each, unfold] for each in part.arguments[1:])
            yield from (one.or_larger(other) for one in then for other in otherwise)
        elif part.symbol in self._bounds and self._left > 0:
            yield from self._of_call(part, unfold)

    def _of_call(self, part: Apply, unfold: int) -> Iterator[Linear]:
        for bound in self._bounds[part.symbol]:
            summed = [(1, part.arguments[index]) for index in bound.arguments]
            yield from self._sum(bound.constant, summed, unfold)
        for equation in self.program.functions[part.symbol].equations if unfold else ():
            found: dict[Variable, Term] = {}
            if match(equation.left, part, found):
                yield from self.forms(substitute(equation.right, found), unfold - 1)
                return

    def _sum(self, constant: int, parts: Iterable[tuple[int, Term]], unfold: int) -> Forms:
        """The constant and each part so many times; none if a part that counts has no form."""
        sums: Forms = (Linear(constant, {}),)
        for times, part in parts:
            if times:
                added = self._known[part, unfold]
                sums = _smallest(form.plus(more, times) for form in sums for more in added)
        return sums

    # Bounds of functions

    def _candidates(self, symbol: Symbol) -> Iterator[Bound]:
        sized = [i for i, sort in enumerate(symbol.arguments) if not self.is_one(sort)]
        if self.is_one(symbol.result) or len(sized) > MOST_SIZED:
            return
        for count in range(len(sized) + 1):
            for chosen in combinations(sized, count):
                yield from (Bound(constant, chosen) for constant in CONSTANTS)

    def _drop(self, symbol: Symbol) -> bool:
        """Drops the bounds of a function that its equations do not keep; whether there were any."""
        bounds = self._bounds[symbol]
        for equation in self.program.functions[symbol].equations if bounds else ():
            found = self.forms(equation.right, 0)
            exact = [self.forms(pattern, 0) for pattern in equation.left.arguments]
            bounds = tuple(bound for bound in bounds if _keeps(bound, exact, found))
        if len(bounds) == len(self._bounds[symbol]):
            return False
        self._bounds[symbol] = bounds
        self._known.clear()
        return True


def _keeps(bound: Bound, patterns: Sequence[Forms], found: Forms) -> bool:
    largest = Linear(bound.constant, {})
    for index in bound.arguments:
        (exact,) = patterns[index]
        largest = largest.plus(exact)
    return any(_is_within(form, largest) for form in found)


def _smallest(forms: Iterable[Linear]) -> Forms:
    """At most so many, and none that another is never larger than."""
    kept: list[Linear] = []
    for form in forms:
        if not any(_is_within(other, form) for other in kept):
            kept = [other for other in kept if not _is_within(form, other)] + [form]
            kept = kept[:MOST_FORMS]
    return tuple(kept)


def _is_within(small: Linear, large: Linear) -> bool:
    by = large.minus(small).least()
    return by is not None and by >= 0
