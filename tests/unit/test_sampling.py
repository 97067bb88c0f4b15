"""Sampling: greedy, filtered, and repeatable noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cluster.engine.sampling import gumbel, kept, sample
from cluster.errors import InvalidArgument
from cluster.request import Sampling


def test_temperature_zero_takes_the_best_and_the_lowest_id_among_equals() -> None:
    assert sample(torch.tensor([0.1, 3.0, 3.0, -1.0]), Sampling(), position=5) == 1


def test_noise_is_a_function_of_seed_choice_position_and_token_alone() -> None:
    noise = gumbel(7, 0, 11, 512)
    assert np.array_equal(noise, gumbel(7, 0, 11, 512))
    assert np.array_equal(noise[:100], gumbel(7, 0, 11, 100))
    for other in (gumbel(8, 0, 11, 512), gumbel(7, 1, 11, 512), gumbel(7, 0, 12, 512)):
        assert not np.any(noise == other)


def test_noise_is_gumbel_distributed() -> None:
    noise = np.concatenate([gumbel(1, 0, position, 5000) for position in range(40)])
    # Mean is Euler's constant, variance pi^2 / 6; 200,000 draws.
    assert abs(noise.mean() - 0.5772156649) < 0.01
    assert abs(noise.var() - np.pi**2 / 6) < 0.03


def test_tokens_are_drawn_as_often_as_softmax_says() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = [sample(logits, Sampling(temperature=1.0, seed=3), p) for p in range(20000)]
    share = np.bincount(drawn, minlength=4) / len(drawn)
    assert np.allclose(share, torch.softmax(logits, -1).numpy(), atol=0.015)


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    cold = [sample(logits, Sampling(temperature=0.25, seed=3), p) for p in range(2000)]
    expected = float(torch.softmax(logits / 0.25, -1)[2])
    assert abs(cold.count(2) / len(cold) - expected) < 0.02


def test_top_k_keeps_the_k_best_and_all_when_there_are_fewer() -> None:
    scores = np.array([1.0, 5.0, 3.0, 4.0])
    assert kept(scores, Sampling(top_k=2)).tolist() == [False, True, False, True]
    assert kept(scores, Sampling(top_k=99)).all()


def test_top_p_keeps_the_token_that_crosses_the_threshold() -> None:
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert kept(scores, Sampling(top_p=0.6)).tolist() == [True, True, False, False]
    assert kept(scores, Sampling(top_p=0.01)).tolist() == [True, False, False, False]


def test_top_p_counts_mass_within_top_k() -> None:
    scores = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    # Of the two best, renormalised, the first holds 4/7.
    assert kept(scores, Sampling(top_k=2, top_p=0.5)).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 2.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("seed", -1),
        ("seed", 2**63),
        ("max_tokens", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert str(value) in caught.value.message
