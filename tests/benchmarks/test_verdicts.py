"""Who is ahead of whom, and who was not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.peers.bounds import Machine, Shape
from benchmarks.peers.catalogue import VARIANTS, Precision, Variant
from benchmarks.peers.cells import DECODE_1, PREFILL_512, Point, Rate
from benchmarks.peers.protocol import Sample
from benchmarks.peers.verdicts import Attendance, equal_precision, every_peer

OURS = Variant("ours", Precision.EIGHT_BIT, "ours", "folder", ours=True)
SLOW = Variant("slow", Precision.EIGHT_BIT, "slow", "folder")
FAST = Variant("fast", Precision.EIGHT_BIT, "fast", "folder")
NARROW = Variant("narrow", Precision.FOUR_BIT, "narrow", "folder")
ALL = (OURS, SLOW, FAST, NARROW)
HERE = Point(1, PREFILL_512.name)
THERE = Point(2, DECODE_1.name)


def rate(per_cpu_s: float, per_s: float | None = None) -> Rate:
    return Rate(per_cpu_s, per_cpu_s if per_s is None else per_s, 0.0)


def test_a_rate_is_the_median_of_the_rounds() -> None:
    samples = [Sample(100, wall, cpu) for wall, cpu in ((1.0, 2.0), (2.0, 4.0), (4.0, 5.0))]
    assert Rate.of(samples) == Rate(25.0, 50.0, (50.0 - 20.0) / 25.0)


def test_the_best_peer_of_equal_precision_is_the_one_to_beat() -> None:
    rates = {"ours": {HERE: rate(90)}, "slow": {HERE: rate(50)}, "fast": {HERE: rate(100)}}
    (verdict,) = equal_precision(ALL, rates, {})
    assert not verdict.met
    assert "0.90x fast per CPU second (90 against 100)" in verdict.measured
    assert verdict.aim.endswith("8 bit weights: prefill of 512 tokens, 1 thread")


def test_narrower_weights_are_another_class() -> None:
    rates = {"ours": {HERE: rate(90)}, "slow": {HERE: rate(50)}, "narrow": {HERE: rate(200)}}
    (verdict,) = equal_precision(ALL, rates, {})
    assert verdict.met


def test_ahead_is_ahead_by_both_clocks() -> None:
    rates = {"ours": {HERE: rate(90, 40)}, "slow": {HERE: rate(50, 41)}}
    (verdict,) = equal_precision(ALL, rates, {})
    assert not verdict.met


@pytest.mark.parametrize(("peer", "met"), [(109, True), (100, False)])
def test_near_the_bound_is_enough_where_the_peer_stands_on_it(peer: float, met: bool) -> None:
    rates = {"ours": {HERE: rate(104 if met else 99)}, "fast": {HERE: rate(peer)}}
    (verdict,) = equal_precision(ALL, rates, {(Precision.EIGHT_BIT, HERE): 120.0})
    assert verdict.met is met
    assert "of the bound" in verdict.measured


def test_every_cell_lost_is_named() -> None:
    rates = {
        "ours": {HERE: rate(50), THERE: rate(30)},
        "narrow": {HERE: rate(100), THERE: rate(20)},
    }
    (verdict,) = every_peer(ALL, rates)
    assert not verdict.met
    assert verdict.measured == "lost prefill_512/1 0.50x; won decode_1/2 1.50x"
    assert "narrow (4 bit weights)" in verdict.aim


def test_ours_that_was_not_built_has_no_verdict_and_is_named() -> None:
    rates = {"fast": {HERE: rate(100)}}
    assert equal_precision(ALL, rates, {}) == []
    assert every_peer(ALL, rates) == []
    verdict = Attendance({"fast": "2.1"}, {"ours": "no such weights"}).verdict()
    assert not verdict.met
    assert verdict.measured == "took part: fast (2.1). Left out: ours: no such weights"


def test_a_point_that_only_one_side_reached_is_not_compared() -> None:
    rates = {"ours": {HERE: rate(50)}, "fast": {THERE: rate(20)}}
    assert equal_precision(ALL, rates, {}) == []
    assert every_peer(ALL, rates) == []


def test_every_precision_of_ours_has_peers_and_every_name_is_one() -> None:
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)
    for ours in (v for v in VARIANTS if v.ours):
        assert any(not v.ours and v.precision is ours.precision for v in VARIANTS)


def test_reading_or_multiplying_bounds_a_decode() -> None:
    shape = Shape.of(
        {
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 16,
            "vocab_size": 100,
        }
    )
    # q and o 8 x 8, k and v 8 x 4, three of 8 x 16.
    assert shape == Shape(2 * (128 + 64 + 384), 800, 16)
    weights = shape.layer_weights + shape.head_weights
    reader = Machine(bytes_per_cpu_s=4.0 * weights, flops_per_cpu_s=1e12)
    assert reader.decode(shape, 4, 4.0, multiply=True) == pytest.approx(4.0)
    flops = 2 * weights + shape.attention_flops(512)
    multiplier = replace(reader, flops_per_cpu_s=flops)
    assert multiplier.decode(shape, 4, 4.0, multiply=True) == pytest.approx(1.0)
    assert multiplier.decode(shape, 4, 4.0, multiply=False) == pytest.approx(4.0)
