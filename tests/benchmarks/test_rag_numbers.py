"""Tails, throughputs, hits, and how far two classes are apart, each by hand."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.rag_clock import Reuse, Served
from benchmarks.rag_numbers import Summary, auc, per_s_at, quantile


def served(at_s: float, ttft_s: float, done_s: float, reuse: Reuse | None = None) -> Served:
    return Served(at_s, 10, at_s + ttft_s, done_s, reuse)


def test_of_three_hundred_the_99th_percentile_leaves_three_above() -> None:
    values = [float(n) for n in range(300)]
    Random(0).shuffle(values)
    assert quantile(values, 0.99) == 296.0
    assert quantile(values, 0.5) == 149.0
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no observations"):
        quantile([], 0.5)


def test_a_summary_is_of_times_to_first_tokens_and_of_the_whole_span() -> None:
    found = Summary.of([served(1.0, 1.0, 5.0), served(2.0, 2.0, 4.5), served(3.0, 6.0, 9.0)], 3)
    assert (found.mean_ttft_s, found.p50_ttft_s, found.p99_ttft_s) == (3.0, 2.0, 6.0)
    # From the first arrival to the last end: 8 s.
    assert found.per_s == 3 / 8
    assert found.hits is None
    assert found.is_whole


def test_hits_are_shares_of_all_prompt_tokens() -> None:
    first = served(0.0, 1.0, 2.0, Reuse(3, 2, 1, 4))
    second = served(0.0, 1.0, 2.0, Reuse(0, 0, 0, 10))
    hits = Summary.of([first, second], 2).hits
    assert hits is not None
    assert (hits.prompt, hits.device, hits.host, hits.disk, hits.computed) == (20, 3, 2, 1, 14)
    assert hits.rate == 0.3


def test_hits_that_were_not_told_of_everybody_are_not_told() -> None:
    told = served(0.0, 1.0, 2.0, Reuse(3, 2, 1, 4))
    assert Summary.of([told, served(0.0, 1.0, 2.0)], 2).hits is None


def test_the_slo_is_met_to_the_last_percent_and_by_whole_replays_only() -> None:
    found = Summary.of([served(0.0, 2.0, 4.0)], 1)
    assert found.meets(2.0)
    assert not found.meets(1.9)
    assert not Summary.of([served(0.0, 2.0, 4.0)], 2).meets(2.0)


def test_throughput_at_the_slo_is_the_largest_of_those_that_meet_it() -> None:
    slow = Summary.of([served(0.0, 1.0, 4.0)], 1)
    fast = Summary.of([served(0.0, 1.5, 2.0)], 1)
    late = Summary.of([served(0.0, 2.0, 1.0)], 1)
    assert per_s_at(1.5, [slow, fast, late]) == 0.5
    assert per_s_at(1.0, [slow, fast, late]) == 0.25
    assert per_s_at(0.5, [slow, fast, late]) == 0.0


def test_classes_that_do_not_overlap_are_told_apart_always() -> None:
    assert auc([1.0, 2.0], [3.0, 4.0, 5.0]) == 1.0
    assert auc([3.0, 4.0], [1.0]) == 0.0
    assert auc([2.0, 2.0], [2.0]) == 0.5


def test_an_auc_counts_pairs_and_halves_of_ties() -> None:
    # Of six pairs: 1 < 2, 1 < 4, 3 < 4 and 2 < 4 win, 2 = 2 is a half, 3 > 2 loses.
    assert auc([1.0, 2.0, 3.0], [2.0, 4.0]) == pytest.approx(4.5 / 6)
    with pytest.raises(ValueError, match="no observations"):
        auc([], [1.0])


def test_draws_from_one_source_are_not_told_apart() -> None:
    random = Random(3)
    left, right = ([random.gauss(0, 1) for _ in range(2000)] for _ in range(2))
    assert auc(left, right) == pytest.approx(0.5, abs=0.03)
