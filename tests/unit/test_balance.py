"""Rows of the host, shared out between two sub-batches."""

from __future__ import annotations

from random import Random

import pytest

from cluster.scheduling.balance import Balance, counts
from cluster.scheduling.curves import line
from cluster.scheduling.stages import StageCosts, Work


def random_balance(random: Random) -> Balance:
    costs = StageCosts(
        linear=line(random.choice([0.0, 1e-4]), at_least=1e-2),
        prefill=line(1e-8),
        decode=line(random.choice([1e-7, 5e-7])),
        host=line(random.choice([2e-7, 1e-6, 5e-6])),
        exchange=line(0.0, random.choice([0.0, 1e-3])),
    )
    first = Work(random.randint(0, 40), 0, random.randint(0, 40_000))
    parked = [Work(1, 0, 0, 1, random.randint(100, 2000)) for _ in range(random.randint(1, 40))]
    return Balance(costs, first, parked)


@pytest.mark.parametrize("seed", range(50))
def test_what_is_found_is_near_the_best_of_all(seed: int) -> None:
    balance = random_balance(Random(seed))
    found = balance.best()
    sizes = range(len(balance.parked) + 1)
    least = 0 if balance.first.rows else 1
    every = [balance.best(count, count).rate for count in sizes if count >= least]
    assert found.rate >= 0.97 * max(every)


def test_rows_that_are_given_are_not_counted() -> None:
    costs = StageCosts(line(0.0, 1e-2), line(0.0), line(0.0), line(1e-6))
    parked = [Work(1, 0, 0, 1, 1000)] * 8
    counted = Balance(costs, Work(100, 0, 0), parked).best()
    given = Balance(costs, Work(100, 0, 0), parked, num_given=98).best()
    assert (counted.rows, given.rows) == (100, 2 + 8)


def test_numbers_lie_close_near_both_ends() -> None:
    assert counts(0, 20) == [0, 1, 2, 4, 8, 12, 16, 18, 19, 20]
    assert counts(3, 3) == [3]
    assert set(counts(0, 20)) < set(counts(0, 20, 1.25))
