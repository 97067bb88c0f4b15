"""Whether all calls come to an end: the size-change principle (Lee, Jones, Ben-Amram, POPL 2001).

In every cycle of calls some position must get smaller for ever. A *position* of a function is an
argument of a data type, measured by its size, or an Int, or the difference of two Ints. A call
relates the positions of the caller, which are its patterns, to those of the callee:

- Sizes: where a form of the callee's argument is no larger than the caller's pattern (`sizes`).
- Ints: where the callee's number is the caller's less a constant that is not negative. It counts as
  smaller only if the constant is positive and the `ite`s around the call ensure that the caller's
  number is at least some literal. A program has finitely many of these literals, and at a number
  below the least of them nothing counts as smaller, so no number gets smaller for ever.

Relations are composed until nothing new arises, from functions one of which is on every cycle. Some
power of every relation from a function to itself must make a position strictly smaller: it has a
cycle through a strict arc. A relation that has all arcs of another, as strict, is left out, since
whatever the other meets it meets (Fogarty and Vardi, TACAS 2010). A function used as a value counts
as called with anything, where it is mentioned.

Functions that call each other are a component. Callees come first, since sizes speak of functions
that are known to end. A component is looked at by one measure after the other: sizes of whole
values; sizes that count only what may hold a value of the same sort again, so that a list is as
large as it is long; sizes that count one field twice, by which `(a + b) + c` is larger than
`a + (b + c)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from prover.components import components
from prover.errors import Inadmissible
from prover.linear import Linear, ensured, number
from prover.program import Equation, Program
from prover.sizes import Sizes, Weight
from prover.terms import INT, Apply, Kind, Sort, Symbol, Term

MOST_CALLS = 20_000
MOST_MEASURES = 8  # that count one field twice
MOST_INTS = 4  # of a function whose differences are positions

# One argument, or the difference of two.
Position = tuple[int, ...]
Arcs = frozenset[tuple[Position, Position]]


@dataclass(frozen=True, slots=True)
class Relation:
    """Which position of the caller bounds which of the callee; `strict` are some of the arcs."""

    arcs: Arcs
    strict: Arcs

    def then(self, other: Relation) -> Relation:
        """What two calls after each other do."""
        joined = [(a, b, c) for a, b in self.arcs for d, c in other.arcs if b == d]
        strict = {(a, c) for a, b, c in joined if (a, b) in self.strict or (b, c) in other.strict}
        return Relation(frozenset((a, c) for a, _, c in joined), frozenset(strict))

    def implies(self, other: Relation) -> bool:
        """Whether it has all that the other has."""
        return other.arcs <= self.arcs and other.strict <= self.strict

    def descends(self) -> bool:
        """Whether one of its powers makes a position strictly smaller."""
        return any(self._leads(end, start) for start, end in self.strict)

    def _leads(self, start: Position, end: Position) -> bool:
        reached = {start: None}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for one, other in self.arcs:
                if one == here and other not in reached:
                    reached[other] = None
                    waiting.append(other)
        return end in reached


Call = tuple[Symbol, Symbol, Relation]


def check_termination(program: Program) -> None:
    """Raises Inadmissible for a function whose calls may go on for ever."""
    measures = _Measures(program)
    for component in components(program):
        stuck = None
        for sizes in measures.of(component):
            new = _stuck(component, list(_calls(program, component, sizes)))
            stuck = stuck or new
            if new is None:
                break
        else:
            assert stuck is not None
            reason = "it may not terminate: no argument gets structurally smaller"
            raise Inadmissible(stuck.name, reason)
        measures.ended.append(component)


class _Measures:
    """Sizes by each measure, which know the functions that were found to end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ended: list[Sequence[Symbol]] = []
        self._made: dict[object, tuple[Sizes, int]] = {}

    def of(self, component: Sequence[Symbol]) -> Iterator[Sizes]:
        """From the plainest, which knows of no function."""
        yield Sizes(self.program, _whole)
        yield self._sizes("whole", _whole)
        yield self._sizes("again", self._again)
        for field in self._fields(component)[:MOST_MEASURES]:
            yield self._sizes(field, _twice(*field))

    def _sizes(self, name: object, weight: Weight) -> Sizes:
        sizes, known = self._made.get(name) or (Sizes(self.program, weight), 0)
        for component in self.ended[known:]:
            sizes.admit(component)
        self._made[name] = sizes, len(self.ended)
        return sizes

    def _again(self, constructor: Symbol, index: int) -> int:
        return int(self._reaches(constructor.arguments[index], constructor.result))

    def _reaches(self, start: Sort, end: Sort) -> bool:
        reached: dict[Sort, None] = {}
        waiting = [start]
        while waiting:
            sort = waiting.pop()
            if sort not in reached:
                reached[sort] = None
                waiting += sort.arguments if sort.is_function else ()
                waiting += [field for c in self.program.constructors(sort) for field in c.arguments]
        return end in reached

    def _fields(self, component: Sequence[Symbol]) -> list[tuple[Symbol, int]]:
        """Where the sorts of the arguments hold values of their own sort."""
        sorts = dict.fromkeys(sort for symbol in component for sort in symbol.arguments)
        constructors = [c for sort in sorts for c in self.program.constructors(sort)]
        return [(c, i) for c in constructors for i in range(len(c.arguments)) if self._again(c, i)]


def _whole(constructor: Symbol, index: int) -> int:
    del constructor, index
    return 1


def _twice(counted: Symbol, field: int) -> Weight:
    return lambda constructor, index: 2 if (constructor, index) == (counted, field) else 1


# Calls and what they relate


def _calls(program: Program, component: Sequence[Symbol], sizes: Sizes) -> Iterator[Call]:
    inside = dict.fromkeys(component)
    for symbol in component:
        for equation in program.functions[symbol].equations:
            for call, known in _mentioned(equation):
                if call.symbol in inside:
                    yield symbol, call.symbol, _relation(equation.left, call, known, sizes)


def _mentioned(equation: Equation) -> Iterator[tuple[Apply, tuple[Linear, ...]]]:
    """Every symbol's use on the right, with forms that are at least zero where it is computed."""
    stack: list[tuple[Term, tuple[tuple[Term, bool], ...]]] = [(equation.right, ())]
    met = dict.fromkeys(stack)
    while stack:
        part, path = stack.pop()
        if not isinstance(part, Apply):
            continue
        yield part, tuple(form for each in path for form in ensured(*each))
        for index, argument in enumerate(part.arguments):
            inner = path
            if index and _is_choice(part):
                chosen = (part.arguments[0], index == 1)
                inner = (*path, chosen) if any(True for _ in ensured(*chosen)) else path
            if (argument, inner) not in met:
                met[argument, inner] = None
                stack.append((argument, inner))
        if len(met) > MOST_CALLS:
            name = equation.left.symbol.name
            raise Inadmissible(name, "its calls take too long to check for termination")


def _is_choice(part: Apply) -> bool:
    return part.symbol.kind is Kind.BUILTIN and part.symbol.name == "ite" and not part.is_partial


def _relation(caller: Apply, call: Apply, known: tuple[Linear, ...], sizes: Sizes) -> Relation:
    arcs = {**_size_arcs(caller, call, sizes), **_number_arcs(caller, call, known)}
    return Relation(frozenset(arcs), frozenset(arc for arc, strict in arcs.items() if strict))


def _size_arcs(caller: Apply, call: Apply, sizes: Sizes) -> dict[tuple[Position, Position], bool]:
    arcs: dict[tuple[Position, Position], bool] = {}
    for j, argument in enumerate(call.arguments):
        if sizes.is_one(argument.sort):
            continue
        for i, pattern in enumerate(caller.arguments):
            (before,) = sizes.forms(pattern)
            shrinks = [before.minus(after).least() for after in sizes.forms(argument)]
            by = max((each for each in shrinks if each is not None), default=-1)
            if by >= 0:
                arcs[(i,), (j,)] = by > 0
    return arcs


def _number_arcs(
    caller: Apply, call: Apply, known: tuple[Linear, ...]
) -> dict[tuple[Position, Position], bool]:
    arcs = {}
    after = _numbers(call)
    for start, mine in _numbers(caller).items():
        for end, other in after.items():
            by = mine.minus(other).only_constant()
            if by is not None and by >= 0:
                bounded = any(mine.minus(form).only_constant() is not None for form in known)
                arcs[start, end] = by > 0 and bounded
    return arcs


def _numbers(call: Apply) -> dict[Position, Linear]:
    """Its Int arguments, and their differences, as far as they are linear."""
    found = {}
    for index, argument in enumerate(call.arguments):
        form = number(argument) if argument.sort is INT else None
        if form is not None:
            found[index] = form
    positions: dict[Position, Linear] = {(index,): form for index, form in found.items()}
    if len(found) <= MOST_INTS:
        for i, j in permutations(found, 2):
            positions[i, j] = found[i].minus(found[j])
    return positions


# Cycles of calls


def _stuck(component: Sequence[Symbol], calls: Sequence[Call]) -> Symbol | None:
    """A function with a cycle of calls in which no position must get smaller.

    Every cycle has a call that does not lead on in the order of the component, to one of `heads`.
    """
    by_caller: dict[Symbol, list[Call]] = {}
    for call in calls:
        by_caller.setdefault(call[0], []).append(call)
    place = {symbol: number for number, symbol in enumerate(component)}
    heads = dict.fromkeys(callee for caller, callee, _ in calls if place[callee] <= place[caller])
    kept: dict[tuple[Symbol, Symbol], list[Relation]] = {}
    waiting = [call for call in dict.fromkeys(calls) if call[0] in heads]
    for _ in range(MOST_CALLS):
        if not waiting:
            return None
        caller, callee, relation = waiting.pop()
        if caller is callee and not relation.descends():
            return caller
        others = kept.setdefault((caller, callee), [])
        if any(relation.implies(other) for other in others):
            continue
        others[:] = [other for other in others if not other.implies(relation)]
        others.append(relation)
        for _, following, change in by_caller.get(callee, ()):
            waiting.append((caller, following, relation.then(change)))
    raise Inadmissible(calls[0][0].name, "its calls take too long to check for termination")
