"""Which values to try together: every combination of the smallest first, then larger ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from prover.samples.batch import Column
from prover.samples.pool import SIZES, Pool, compositions
from prover.samples.values import Ground
from prover.terms import Sort

_NUM_LARGE = 12  # of each size

Row = tuple[Ground | None, ...]


def smallest(pool: Pool, sorts: Sequence[Sort]) -> Iterator[Row]:
    """Every combination of the small values, by how far along they are in their lists together."""
    lists = [pool.small(sort) for sort in sorts]
    most = sum(len(each) - 1 for each in lists)
    for total in range(most + 1):
        for places in compositions(total + len(lists), len(lists)):
            if all(place <= len(each) for place, each in zip(places, lists, strict=True)):
                yield tuple(each[place - 1] for place, each in zip(places, lists, strict=True))


def drawn(pool: Pool, sorts: Sequence[Sort], count: int, seed: str) -> Iterator[Row]:
    """So many rows of larger values: the first goes through all of them, the others by chance."""
    random = Random(seed)
    lists = [pool.large(sort, count) for sort in sorts]
    for row in range(count):
        others = [each[random.randrange(count)] for each in lists[1:]]
        yield (lists[0][row], *others)


def standing(pool: Pool, sort: Sort, num_rows: int, seed: str) -> Column:
    """A column of values of one sort: a third of the smallest, the others larger by row."""
    random = Random(seed)
    few = pool.small(sort)
    tiny, some = few[:4], few[:25]
    many = pool.large(sort, _NUM_LARGE * len(SIZES))
    column: list[Ground] = []
    for row in range(num_rows):
        if row % 3 == 0:
            column.append(random.choice(tiny))
        elif row % 3 == 1:
            column.append(random.choice(some))
        else:
            size = row * len(SIZES) // num_rows
            column.append(many[size + len(SIZES) * random.randrange(_NUM_LARGE)])
    return tuple(column)
