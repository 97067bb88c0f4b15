"""Rows of the host, shared out between two sub-batches."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cluster.scheduling.balance import Balance, Rates, counts
from cluster.scheduling.curves import Curve, line
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


@pytest.mark.parametrize("seed", range(20))
def test_from_the_last_plan_on_a_near_best_is_found(seed: int) -> None:
    """One row more or less has come since."""
    balance = random_balance(Random(seed))
    last = replace(balance, parked=balance.parked[:-1]).best() if balance.parked[1:] else None
    found = balance.best(around=last)
    assert found.rate >= 0.9 * balance.best().rate
    assert found.num_beside + found.num_apart <= len(balance.parked)


def rates(host_key_s: float, prompt_steps: float, progress_steps: int = 32) -> dict[int, float]:
    """Beside ten rows of a device: 10 ms for the weights and 10 ms for their keys; 200 ms with a
    prompt instead of the 10 ms for the weights."""
    weights = Curve((1, 64, 65, 1024), [0.01, 0.01, 0.2, 0.2])
    costs = StageCosts(weights, line(0.0), line(1e-6), line(host_key_s))
    device, parked = Work(10, 0, 10_000), [Work(1, 0, 0, 1, 1000)] * 8
    return Rates(
        Balance(costs, device, parked),
        Balance(costs, device + Work(100), parked),
        prompt_steps,
        progress_steps,
    ).by_number()


def test_a_host_that_every_step_hides_is_worth_all_its_rows() -> None:
    found = rates(host_key_s=1e-6, prompt_steps=0.0)
    assert found[0] == pytest.approx(500.0)
    assert found[8] == pytest.approx(900.0)


def test_a_slow_host_is_worth_what_prompts_hide_of_it() -> None:
    """A row of it takes 20 ms. Where nobody prompts, whoever is there and promised rows is paid for
    by the others."""
    only_decoding, with_prompts = rates(2e-5, 0.0), rates(2e-5, 0.04, progress_steps=256)
    assert max(only_decoding.values()) == only_decoding[0] == pytest.approx(500.0)
    assert rates(2e-5, 0.0, progress_steps=8)[8] < only_decoding[8] < only_decoding[0]
    assert with_prompts[8] > 1.02 * with_prompts[0]
