"""Values of every sort to try: all the smallest, and larger ones drawn by a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

from prover.builtins import FALSE, TRUE
from prover.program import Program
from prover.samples.machine import Machine
from prover.samples.values import Ground
from prover.terms import BOOL, INT, Sort, Symbol

SIZES = (2, 3, 4, 5, 6, 8, 11, 15)
_MOST_OF_A_SIZE = 150
_MOST_SMALL = 250
_MOST_SIZE = 12
_NUM_TABLES, _NUM_ELEMENTS = 5, 3
_BIG_NUMBER = 12


Rows = list[tuple[Ground | None, ...]]


class Pool:
    """Values of one program. The size of a value counts its constructors; an Int's is itself."""

    def __init__(self, machine: Machine, seed: str = "") -> None:
        self.machine, self.program, self.seed = machine, machine.program, seed
        self._large: dict[Sort, tuple[list[Ground], Random]] = {}
        # Rows of values of some sorts that were tried, and those that are still to be drawn.
        self.rows: dict[object, tuple[list[Rows], Iterator[Rows]]] = {}
        self._of_size: dict[tuple[Sort, int], tuple[Ground, ...]] = {}
        self._small: dict[Sort, tuple[Ground, ...]] = {}
        self._mutual: dict[Sort, dict[Sort, None]] = {}

    def small(self, sort: Sort) -> tuple[Ground, ...]:
        """The smallest values first: all of them, as far as they are not too many."""
        if sort not in self._small:
            found: list[Ground] = []
            for size in range(1, _MOST_SIZE + 1):
                found += self._sized(sort, size)
                if len(found) >= _MOST_SMALL:
                    break
            self._small[sort] = tuple(found[:_MOST_SMALL])
        return self._small[sort]

    def _sized(self, sort: Sort, size: int) -> tuple[Ground, ...]:
        known = self._of_size.get((sort, size))
        if known is None:
            self._of_size[sort, size] = known = tuple(
                itertools.islice(self._make_sized(sort, size), _MOST_OF_A_SIZE)
            )
        return known

    def _make_sized(self, sort: Sort, size: int) -> Iterator[Ground]:
        if sort is INT:
            yield from dict.fromkeys((size - 1, 1 - size))
        elif not self.program.constructors(sort):
            yield from self._leaves(sort) if size == 1 else ()
        elif size == 1 or sort is not BOOL:
            for constructor in self.program.constructors(sort):
                for fields in self._fields(constructor, size - 1):
                    yield self._construct(constructor, fields)

    def _leaves(self, sort: Sort) -> tuple[Ground, ...]:
        """Values of a sort without constructors: tables for functions, else elements."""
        count = _NUM_TABLES if sort.is_function else _NUM_ELEMENTS
        draw = self.machine.draw
        return tuple(self.machine.values.of(draw.small(sort, choice)) for choice in range(count))

    def _fields(self, constructor: Symbol, size: int) -> Iterator[tuple[Ground, ...]]:
        for sizes in compositions(size, len(constructor.arguments)):
            columns = map(self._sized, constructor.arguments, sizes)
            yield from itertools.product(*columns)

    def _construct(self, constructor: Symbol, fields: tuple[Ground, ...]) -> Ground:
        if constructor in (TRUE.symbol, FALSE.symbol):
            return constructor is TRUE.symbol
        return self.machine.values.make(constructor, fields)

    def large(self, sort: Sort, count: int) -> list[Ground]:
        """At least so many drawn values, of each of SIZES in turn; the same for every use, so that
        what is computed of them is often known already."""
        values, random = self._large.setdefault(sort, ([], Random(self.seed)))
        while len(values) < count:
            values.append(self.draw(sort, SIZES[len(values) % len(SIZES)], random))
        return values

    def draw(self, sort: Sort, size: int, random: Random) -> Ground:
        """A value of about that size: long lists, high trees."""
        if sort is INT:
            return random.randint(-size, size)
        constructors = self.program.constructors(sort)
        growing = [c for c in constructors if any(self._grows(sort, f) for f in c.arguments)]
        if size <= 1 or not growing or (size < _BIG_NUMBER and random.random() < 1 / (2 * size)):
            few = self.small(sort)[: max(3, size)]
            return few[random.randrange(len(few))]
        constructor = growing[random.randrange(len(growing))]
        own = [self._grows(sort, field) for field in constructor.arguments]
        left = size - 1
        fields: list[Ground] = []
        for number, field in enumerate(constructor.arguments):
            if not own[number]:
                fields.append(self._draw_inner(field, random))
                continue
            last = not any(own[number + 1 :])
            part = left if last else random.randint(0, left)
            left -= part
            fields.append(self.draw(field, part, random))
        return self._construct(constructor, tuple(fields))

    def _draw_inner(self, sort: Sort, random: Random) -> Ground:
        """A field that does not go on with its data: nearly always small, so that values recur."""
        few = self.small(sort)
        return few[min(int(random.expovariate(0.5)), len(few) - 1)]

    def _grows(self, sort: Sort, field: Sort) -> bool:
        """Whether values of a sort are found again below a field of its constructors."""
        if field not in self._mutual:
            self._mutual[field] = reachable(self.program, field)
        return sort in self._mutual[field]


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number as a sum of so many positive ones."""
    if parts == 0:
        if total == 0:
            yield ()
    elif parts == 1:
        if total > 0:
            yield (total,)
    else:
        for first in range(1, total - parts + 2):
            for rest in compositions(total - first, parts - 1):
                yield (first, *rest)


def reachable(program: Program, sort: Sort) -> dict[Sort, None]:
    """The sort, and all sorts of which its values may hold some."""
    found = {sort: None}
    waiting = [sort]
    while waiting:
        for constructor in program.constructors(waiting.pop()):
            waiting += [field for field in constructor.arguments if field not in found]
            found |= dict.fromkeys(constructor.arguments)
    return found
