"""Which values to try together: every combination of the smallest first, then larger ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from prover.samples.batch import Column
from prover.samples.pool import Pool, compositions
from prover.samples.values import Ground
from prover.terms import Sort

_SIZES = (2, 3, 4, 5, 6, 8, 11, 15)

Row = tuple[Ground | None, ...]


def smallest(pool: Pool, sorts: Sequence[Sort]) -> Iterator[Row]:
    """Every combination of the small values, by how far along they are in their lists together."""
    lists = [pool.small(sort) for sort in sorts]
    most = sum(len(each) - 1 for each in lists)
    for total in range(most + 1):
        for places in compositions(total + len(lists), len(lists)):
            if all(place <= len(each) for place, each in zip(places, lists, strict=True)):
                yield tuple(each[place - 1] for place, each in zip(places, lists, strict=True))


def drawn(pool: Pool, sorts: Sequence[Sort], seed: str) -> Iterator[Row]:
    """Larger values for ever; small and large ones meet in one row."""
    random = Random(seed)
    while True:
        yield tuple(pool.draw(sort, random.choice(_SIZES), random) for sort in sorts)


def standing(pool: Pool, sort: Sort, num_rows: int, seed: str) -> Column:
    """A column of values of one sort: a third of the smallest, the others drawn larger by row."""
    random = Random(seed)
    few = pool.small(sort)
    tiny, some = few[:4], few[:25]
    column: list[Ground] = []
    for row in range(num_rows):
        if row % 3 == 0:
            column.append(random.choice(tiny))
        elif row % 3 == 1:
            column.append(random.choice(some))
        else:
            column.append(pool.draw(sort, _SIZES[row * len(_SIZES) // num_rows], random))
    return tuple(column)
