"""Drawing all rows at once: the tokens are those of one row at a time on the host."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from cluster.engine.device_sampling import pick_rows
from cluster.engine.sampling import Draw, Drawn, Sampler
from cluster.engine.weights import pick, uniform, weights_of
from cluster.errors import InvariantBroken
from cluster.ids import RequestId
from cluster.request import Sampling

VOCAB = 3001


def random_sampling(random: Random) -> Sampling:
    return Sampling(
        temperature=random.choice([0.0, 0.4, 1.0, 1.7]),
        top_p=random.choice([1.0, 1.0, 0.95, 0.3]),
        top_k=random.choice([None, None, 1, 30, 9999]),
        min_p=random.choice([0.0, 0.0, 0.05]),
        seed=random.randrange(10**6),
    )


def rows_of(num_rows: int, spread: float, device: str) -> torch.Tensor:
    logits = torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(num_rows))
    # Rounded, so that there are equals.
    return ((logits * spread * 8).round() / 8).to(device)


def assert_rows_are_drawn_as_on_the_host(device: str) -> None:
    random = Random(1)
    for spread in (0.2, 2.0, 9.0):
        logits = rows_of(150, spread, device)
        samplings = [random_sampling(random) for _ in logits]
        numbers = [uniform(s.seed, 0, i) for i, s in enumerate(samplings)]
        tokens = pick_rows(logits, samplings, numbers)
        for row, sampling, number, token in zip(
            logits.cpu().numpy(), samplings, numbers, tokens, strict=True
        ):
            if sampling.temperature == 0.0:
                assert token == int(row.argmax())
            else:
                assert token == pick(weights_of(row, sampling.temperature), sampling, number)
        # Alone, and in any company.
        for i in range(0, 150, 29):
            assert pick_rows(logits[i : i + 1], samplings[i : i + 1], numbers[i : i + 1]) == [
                tokens[i]
            ]


def test_rows_are_drawn_as_on_the_host() -> None:
    assert_rows_are_drawn_as_on_the_host("cpu")


@pytest.mark.gpu
def test_rows_are_drawn_on_the_device_as_on_the_host() -> None:
    assert_rows_are_drawn_as_on_the_host("cuda")


def test_a_row_without_a_finite_best_has_no_token() -> None:
    logits = torch.tensor([[1.0, float("nan")], [float("-inf")] * 2, [2.0, 1.0]])
    plain = Sampling(temperature=1.0)
    assert pick_rows(logits, [plain, plain, Sampling()], [0.5, 0.5, 0.5]) == [None, None, 0]


def assert_a_mixed_step_is_that_of_the_host(outcomes_of: str) -> None:
    random = Random(3)
    logits = rows_of(24, 2.0, "cpu")
    logits[5] = float("nan")
    draws = []
    for i in range(24):
        sampling = random_sampling(random)
        if i % 3 == 0:
            sampling = replace(sampling, repetition_penalty=1.3, num_logprobs=2)
        ids = [random.randrange(VOCAB) for _ in range(12)]
        draws.append(Draw(i, 11, RequestId(f"r{i}"), sampling, ids, 4))
    expected = Sampler().draw(logits, draws)
    sampler = Sampler()
    if outcomes_of == "cpu":
        outcomes = sampler._draw_apart(logits, draws)
    else:
        outcomes = sampler.draw(logits.to(outcomes_of), draws)
    assert isinstance(expected[5], InvariantBroken)
    assert isinstance(outcomes[5], InvariantBroken)
    assert [o for o in outcomes if isinstance(o, Drawn)] == [
        o for o in expected if isinstance(o, Drawn)
    ]


def test_rows_that_need_their_own_ids_are_drawn_beside_the_others() -> None:
    assert_a_mixed_step_is_that_of_the_host("cpu")


@pytest.mark.gpu
def test_a_step_on_the_device_is_that_of_the_host() -> None:
    assert_a_mixed_step_is_that_of_the_host("cuda")
