"""Sampling, rule by rule, with values worked by hand; and draws that depend on nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from cluster.engine.sampling import Draw, Drawn, Sampler
from cluster.engine.weights import Floats, kept, parts, pick, uniform, weights_of
from cluster.errors import InvalidArgument, InvariantBroken
from cluster.ids import RequestId
from cluster.request import MAX_GRAMMAR_CHARS, Grammar, GrammarKind, Sampling

VOCAB = 4096


def draw_of(sampling: Sampling, ids: list[int] | None = None, num_prompt: int = 1) -> Draw:
    ids = ids or [0]
    return Draw(0, len(ids) - 1, RequestId("r"), sampling, ids, num_prompt)


def drawn(logits: list[float], draw: Draw) -> Drawn:
    [outcome] = Sampler().draw(torch.tensor([logits]), [draw])
    assert isinstance(outcome, Drawn)
    return outcome


def best(
    logits: list[float], ids: list[int] | None = None, num_prompt: int = 1, **rules: Any
) -> int:
    """The greedy token: which of the scores, as the rules leave them, is highest."""
    return drawn(logits, draw_of(Sampling(**rules), ids, num_prompt)).token_id


def weights(*probabilities: float) -> Floats:
    return weights_of(np.log(np.array(probabilities, dtype=np.float32)))


def num_kept(probabilities: list[float], **rules: Any) -> int:
    return len(kept(weights(*probabilities), Sampling(temperature=1.0, **rules)))


def test_temperature_zero_takes_the_best_and_the_lowest_id_among_equals() -> None:
    assert best([0.1, 3.0, 3.0, -1.0]) == 1


def test_a_uniform_number_is_a_function_of_seed_choice_and_position_alone() -> None:
    first = uniform(7, 0, 11)
    assert first == uniform(7, 0, 11)
    others = [uniform(8, 0, 11), uniform(7, 1, 11), uniform(7, 0, 12), uniform(0, 7, 11)]
    assert len({first, *others}) == 5
    assert min(first, *others) >= 0.0
    assert max(first, *others) < 1.0


def test_uniform_numbers_are_uniform() -> None:
    numbers = np.array([uniform(seed, 0, p) for seed in range(20) for p in range(1000)])
    counts = np.histogram(numbers, bins=20, range=(0.0, 1.0))[0]
    # Chi-squared with 19 degrees of freedom: 43.8 is passed once in a thousand.
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 43.8


def test_the_token_drawn_is_the_first_whose_running_sum_exceeds_the_number() -> None:
    plain = Sampling(temperature=1.0)
    by_id = weights(0.1, 0.4, 0.2, 0.3)
    assert [pick(by_id, plain, u) for u in (0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 0.999)] == [
        0, 0, 1, 1, 2, 2, 3, 3,
    ]  # fmt: skip
    # With a filter they stand by weight: 1, 3, 2 of mass 0.9.
    ranked = Sampling(temperature=1.0, top_p=0.85)
    assert [pick(by_id, ranked, u / 0.9) for u in (0.0, 0.39, 0.41, 0.69, 0.71, 0.89)] == [
        1, 1, 3, 3, 2, 2,
    ]  # fmt: skip


def test_tokens_of_equal_weight_stand_by_id() -> None:
    ranked = Sampling(temperature=1.0, top_k=3)
    equals = weights(0.2, 0.4, 0.2, 0.2)
    assert [pick(equals, ranked, u) for u in (0.4, 0.6, 0.9)] == [1, 0, 2]


def test_the_largest_number_falls_on_the_last_token_that_has_weight() -> None:
    below_one = math.nextafter(1.0, 0.0)
    scores = np.array([0.0, 1.0, -200.0, -np.inf], dtype=np.float32)
    assert pick(weights_of(scores), Sampling(temperature=1.0), below_one) == 1
    for ranked in (Sampling(top_p=0.999999), Sampling(top_k=4), Sampling(min_p=1e-12)):
        assert pick(weights_of(scores), ranked, below_one) == 0


@pytest.mark.parametrize("rules", [{}, {"top_p": 0.9999}])
def test_tokens_are_drawn_as_often_as_softmax_says(rules: dict[str, float]) -> None:
    logits = np.array([0.0, 1.0, 2.0, -1.0], dtype=np.float32)
    sampling = Sampling(temperature=0.8, seed=3, **rules)  # type: ignore[arg-type]
    scaled = weights_of(logits, 0.8)
    tokens = [pick(scaled, sampling, uniform(3, 0, p)) for p in range(20000)]
    counts = np.bincount(tokens, minlength=4)
    expected = torch.softmax(torch.tensor(logits) / 0.8, -1).numpy() * len(tokens)
    # Chi-squared with 3 degrees of freedom: 16.3 is passed once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_the_choices_of_one_seed_are_draws_of_their_own() -> None:
    logits = [0.0] * 64
    tokens = [
        drawn(logits, draw_of(Sampling(temperature=1.0, seed=5, choice=choice))).token_id
        for choice in range(16)
    ]
    assert len(set(tokens)) > 8


def test_top_k_keeps_the_k_best_and_all_when_there_are_fewer() -> None:
    assert num_kept([0.1, 0.5, 0.25, 0.15], top_k=2) == 2
    assert num_kept([0.1, 0.5, 0.25, 0.15], top_k=99) == 4
    assert num_kept([0.25, 0.25, 0.25, 0.25], top_k=3) == 3


def test_top_p_keeps_the_token_that_crosses_the_threshold() -> None:
    probabilities = [0.5, 0.3, 0.15, 0.05]
    assert [num_kept(probabilities, top_p=p) for p in (0.01, 0.49, 0.6, 0.9, 0.99)] == [
        1,
        1,
        2,
        3,
        4,
    ]


def test_top_p_counts_mass_within_top_k() -> None:
    # Of the two best, renormalised, the first holds 4/7.
    assert num_kept([0.4, 0.3, 0.2, 0.1], top_k=2, top_p=0.5) == 1
    assert num_kept([0.4, 0.3, 0.2, 0.1], top_p=0.5) == 2


def test_min_p_keeps_what_is_so_likely_as_a_share_of_the_best() -> None:
    probabilities = [0.5, 0.26, 0.14, 0.1]
    assert [num_kept(probabilities, min_p=p) for p in (0.0, 0.21, 0.27, 0.5, 1.0)] == [
        4,
        3,
        3,
        2,
        1,
    ]
    assert num_kept(probabilities, min_p=0.21, top_k=2) == 2
    assert num_kept(probabilities, min_p=0.27, top_p=0.6) == 2


@pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])
def test_filters_over_a_whole_vocabulary_are_those_of_a_plain_sort(spread: float) -> None:
    scores = np.random.default_rng(4).normal(0.0, spread, VOCAB).astype(np.float32)
    all_weights = weights_of(scores)
    ranked = np.sort(all_weights)[::-1]
    running = np.cumsum(parts(ranked))
    for top_p in (0.05, 0.5, 0.9, 0.999):
        count = int((running < math.ceil(top_p * int(running[-1]))).sum()) + 1
        assert np.array_equal(kept(all_weights, Sampling(top_p=top_p)), ranked[:count])


def test_a_cold_temperature_loses_no_token_to_overflow() -> None:
    outcome = drawn([90.0, -90.0, 89.0], draw_of(Sampling(temperature=1e-30)))
    assert outcome.token_id == 0


def test_bias_is_added_before_the_best_is_taken() -> None:
    assert best([1.0, 2.0, 3.0], logit_bias={0: 2.5}) == 0
    assert best([1.0, 2.0, 3.0], logit_bias={2: -100.0, 1: -0.5}) == 1


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    # One prompt token, then 2 2 1.
    ids = [2, 2, 2, 1]
    assert best([0.0, 1.0, 3.0], ids, 4, presence_penalty=2.0) == 2
    # 3 - 2, 1 - 2, 0
    assert best([0.0, 1.0, 3.0], ids, 1, presence_penalty=2.0) == 2
    assert best([1.5, 1.0, 3.0], ids, 1, presence_penalty=2.0) == 0
    # 3 - 2 * 1.1 = 0.8, 1.9 - 1.1 = 0.8 (lower in float32), 0.7
    assert best([0.7, 1.0, 3.0], ids, 1, frequency_penalty=1.1) == 2
    assert best([0.9, 1.0, 3.0], ids, 1, frequency_penalty=1.1) == 0
    # A negative penalty is a reward.
    assert best([3.0, 1.0, 2.0], ids, 1, frequency_penalty=-1.0) == 2


def test_repetition_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    ids = [0, 1]
    # 4 / 2, 3 / 2, 2.1 untouched; the prompt counts, too.
    assert best([4.0, 3.0, 2.1], ids, 1, repetition_penalty=2.0) == 2
    assert best([4.0, 3.0, 1.9], ids, 1, repetition_penalty=2.0) == 0
    # -1 * 2, -2 * 2, -2.5
    assert best([-1.0, -2.0, -2.5], ids, 2, repetition_penalty=2.0) == 0
    assert best([-1.0, -2.0, -1.5], ids, 2, repetition_penalty=2.0) == 2


def test_repetition_comes_before_frequency_and_bias_before_both() -> None:
    # (2 + 2) / 2 - 1 = 1, and not (2 - 1) / 2 + 2.
    assert best([2.0, 1.1], [0, 0], 1, repetition_penalty=2.0, frequency_penalty=1.0,
                logit_bias={0: 2.0}) == 1  # fmt: skip
    assert best([2.0, 0.9], [0, 0], 1, repetition_penalty=2.0, frequency_penalty=1.0,
                logit_bias={0: 2.0}) == 0  # fmt: skip


def test_no_stop_id_is_drawn_before_min_tokens() -> None:
    rules = {"min_tokens": 2, "stop_ids": frozenset({0})}
    assert best([5.0, 1.0, 2.0], [9], 1, **rules) == 2
    assert best([5.0, 1.0, 2.0], [9, 2], 1, **rules) == 2
    assert best([5.0, 1.0, 2.0], [9, 2, 2], 1, **rules) == 0


def test_logprobs_are_those_of_the_model_and_not_of_the_rules() -> None:
    logits = [1.0, 2.0, 0.5, 2.0]
    expected = torch.log_softmax(torch.tensor(logits).double(), -1)
    sampling = Sampling(
        temperature=0.5, top_k=1, logit_bias={2: 100.0}, num_logprobs=3, presence_penalty=1.0
    )
    outcome = drawn(logits, draw_of(sampling))
    assert outcome.token_id == 2
    assert outcome.logprobs is not None
    assert outcome.logprobs.logprob == pytest.approx(float(expected[2]), abs=1e-6)
    # Equals stand by id.
    assert [token_id for token_id, _ in outcome.logprobs.top] == [1, 3, 0]
    for token_id, logprob in outcome.logprobs.top:
        assert logprob == pytest.approx(float(expected[token_id]), abs=1e-6)


def test_logprobs_come_when_asked_for_alone() -> None:
    assert drawn([1.0, 2.0], draw_of(Sampling())).logprobs is None
    lone = drawn([1.0, 2.0], draw_of(Sampling(num_logprobs=0))).logprobs
    assert lone is not None
    assert lone.top == ()
    all_there_are = drawn([1.0, 2.0], draw_of(Sampling(num_logprobs=20))).logprobs
    assert all_there_are is not None
    assert len(all_there_are.top) == 2


def test_logits_that_are_no_numbers_fail_their_own_request_alone() -> None:
    rows = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    draws = [draw_of(Sampling()), replace(draw_of(Sampling()), request_id=RequestId("other"))]
    broken, fine = Sampler().draw(rows, draws)
    assert isinstance(broken, InvariantBroken)
    assert fine == Drawn(1)


def random_draw(random: Random, name: str) -> Draw:
    num_prompt, num_output = random.randint(1, 30), random.randint(0, 30)
    sampling = Sampling(
        temperature=random.choice([0.0, 0.3, 1.0, 2.0]),
        top_p=random.choice([1.0, 0.9, 0.5]),
        top_k=random.choice([None, 1, 40, 5000]),
        min_p=random.choice([0.0, 0.1]),
        presence_penalty=random.choice([0.0, 1.5]),
        frequency_penalty=random.choice([0.0, -0.7]),
        repetition_penalty=random.choice([1.0, 1.3]),
        logit_bias=random.choice([{}, {3: 5.0, 70: -4.0}]),
        seed=random.randrange(1000),
        min_tokens=random.choice([0, 20]),
        stop_ids=frozenset({1, 2}),
        num_logprobs=random.choice([None, 0, 5]),
    )
    ids = [random.randrange(VOCAB) for _ in range(num_prompt + num_output)]
    return Draw(0, len(ids) - 1, RequestId(name), sampling, ids, num_prompt)


@pytest.mark.parametrize("threads", [1, 2])
def test_neither_batch_nor_threads_nor_memory_change_a_draw(threads: int) -> None:
    random = Random(threads)
    draws = [random_draw(random, f"r{i}") for i in range(40)]
    logits = torch.randn(len(draws), VOCAB, generator=torch.Generator().manual_seed(1)) * 3
    alone = [Sampler().draw(logits[i : i + 1].clone(), [d])[0] for i, d in enumerate(draws)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sampler = Sampler()
        assert sampler.draw(logits, draws) == alone
        order = list(range(len(draws)))
        random.shuffle(order)
        for batch in (order[:7], order[7:30], order[30:]):
            assert sampler.draw(logits[batch], [draws[i] for i in batch]) == [
                alone[i] for i in batch
            ]
    finally:
        torch.set_num_threads(before)


def test_what_is_remembered_says_the_same_as_what_is_counted_anew() -> None:
    random = Random(8)
    sampling = Sampling(
        temperature=1.0, presence_penalty=0.5, frequency_penalty=0.4, repetition_penalty=1.2,
        seed=3,
    )  # fmt: skip
    sampler, ids = Sampler(), [random.randrange(200) for _ in range(10)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(60):
        logits = torch.randn(1, 200, generator=generator) * 2
        draw = Draw(0, len(ids) - 1, RequestId("r"), sampling, ids, 10)
        [going_on], [anew] = sampler.draw(logits, [draw]), Sampler().draw(logits, [draw])
        assert going_on == anew
        assert isinstance(going_on, Drawn)
        ids.append(going_on.token_id)
    sampler.forget(RequestId("r"))
    assert not sampler._memories


def test_another_story_under_an_old_name_is_counted_anew() -> None:
    sampling = Sampling(presence_penalty=2.0)
    sampler, logits = Sampler(), torch.tensor([[3.0, 2.0, 0.0]])
    assert sampler.draw(logits, [draw_of(sampling, [2, 0, 0], 1)]) == [Drawn(1)]
    assert sampler.draw(logits, [draw_of(sampling, [2, 1], 1)]) == [Drawn(0)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 2.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("top_k", 2**31),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("presence_penalty", -2.1),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", 2.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("choice", 16),
        ("max_tokens", 0),
        ("min_tokens", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert str(value) in caught.value.message
    assert caught.value.limit


def test_what_is_too_much_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="21") as logprobs:
        Sampling(num_logprobs=21)
    assert logprobs.value.field == "logprobs"
    with pytest.raises(InvalidArgument, match="1025 ids") as biases:
        Sampling(logit_bias=dict.fromkeys(range(1025), 0.0))
    assert biases.value.field == "logit_bias"
    with pytest.raises(InvalidArgument, match=r"100\.5") as bias:
        Sampling(logit_bias={7: 100.5})
    assert bias.value.field == "logit_bias[7]"
    with pytest.raises(InvalidArgument, match=str(MAX_GRAMMAR_CHARS + 1)) as grammar:
        Grammar(GrammarKind.REGEX, "a" * (MAX_GRAMMAR_CHARS + 1))
    assert grammar.value.field == "regex"
