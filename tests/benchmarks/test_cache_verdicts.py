"""Which orderings hold is read off the shares that were found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from benchmarks.cache_cases import MOONCAKE, ORDERS, RAGPULSE, SIZES, Case, Tiers, cases
from benchmarks.cache_replay import Bound, Totals
from benchmarks.cache_traces import Order
from benchmarks.cache_verdicts import Find, expected, verdicts
from benchmarks.result import Verdict
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Tier
from cluster.knowledge.policies import PolicyName


def bound_of(reused: int, uses: dict[bytes, int] | None = None) -> Bound:
    """A share in thousandths of the documents' tokens, which are all that there are."""
    totals = Totals(1000, 1000, Counter({Tier.DEVICE: reused}), reused, 0, 1000.0 - reused, 1000.0)
    return Bound(totals, Counter({NodeKey(key): times for key, times in (uses or {}).items()}))


def said(changes: dict[Case, tuple[float, int]]) -> dict[str, Verdict]:
    """Everything finds a fifth, in seconds half of that, and moves 100 blocks, but for the
    changes."""
    shares = dict.fromkeys(cases(), (0.2, 100)) | changes
    found = {case: Find(reused, reused / 2, moved) for case, (reused, moved) in shares.items()}
    bounds = {(RAGPULSE, order): bound_of(220) for order in Order}
    bounds[MOONCAKE, ORDERS[MOONCAKE]] = bound_of(300)
    return {verdict.aim: verdict for verdict in verdicts(found, bounds)}


def test_the_figures_of_the_design_are_held_against_the_whole_trace() -> None:
    once = {b"%d" % number: 1 if number < 88 else 2 for number in range(100)}
    bounds = {
        (RAGPULSE, Order.RETRIEVAL): bound_of(285, once),
        (RAGPULSE, Order.CANONICAL): bound_of(420, once),
        (RAGPULSE, Order.SENT): bound_of(4, once),
    }
    assert [(v.met, v.measured) for v in expected(bounds)] == [
        (True, "28.5%"),
        (False, "42.0%"),
        (True, "0.40% of the passages' tokens"),
        (True, "88.0% of 100"),
    ]


def test_most_of_the_bound_is_asked_of_each_trace() -> None:
    found = said({})
    (near,) = (v for aim, v in found.items() if aim.startswith(f"{RAGPULSE}: a cache of"))
    (far,) = (v for aim, v in found.items() if aim.startswith(f"{MOONCAKE}: a cache of"))
    assert near.met
    assert near.measured == "91% (20.0% of 22.0%)"
    assert not far.met


def test_a_policy_that_is_behind_at_one_size_is_behind() -> None:
    aim = "PGDSF reuses the tokens that LRU does, at every size"
    assert said({})[aim].met
    lru = replace(Case.of(MOONCAKE), policy=PolicyName.LRU)
    verdict = said({lru: (0.21, 100)})[aim]
    assert not verdict.met
    assert verdict.measured.startswith("5 of 6; ")
    assert verdict.measured.endswith("mooncake 1024k + 4096k lru -1.00")
    assert said({lru: (0.2009, 100)})[aim].met, "a tenth of a point is none"
    aim = "PGDSF saves the prefill seconds that LRU does, at every size"
    assert said({lru: (0.2019, 100)})[aim].met, "in seconds it is half as much"
    assert said({lru: (0.21, 100)})[aim].measured.endswith("lru -0.50")


def test_admission_must_neither_move_more_nor_reuse_less() -> None:
    aim = "admission of what was used twice moves no more, and reuses no less, than of all"
    every = replace(Case.of(RAGPULSE), admission=Admission.ALL)
    assert said({every: (0.2, 400)})[aim].met
    assert "0.25x the blocks, +0.00 points" in said({every: (0.2, 400)})[aim].measured
    assert not said({every: (0.2, 99)})[aim].met
    assert not said({every: (0.21, 100)})[aim].met


def test_another_half_life_that_gains_more_than_half_a_point_is_named() -> None:
    aim = f"{RAGPULSE}: no other half life or number of ghosts gains half a point"
    other = replace(Case.of(RAGPULSE), half_life=1_000.0)
    assert said({other: (0.204, 100)})[aim].met
    verdict = said({other: (0.206, 100)})[aim]
    assert not verdict.met
    assert verdict.measured.endswith("best of 8: 1000 and 65536: 20.6%")


def test_to_remember_what_has_left_must_be_worth_a_point() -> None:
    aim = f"{MOONCAKE}: to remember what has left is worth a point"
    without = replace(Case.of(MOONCAKE), num_ghosts=0)
    assert not said({})[aim].met
    assert said({without: (0.18, 100)})[aim].met
    assert said({without: (0.18, 100)})[aim].measured == "18.0% -> 20.0% of the tokens"


def test_every_size_is_smaller_than_the_next() -> None:
    for sizes in SIZES.values():
        assert sorted(sizes, key=lambda tiers: tiers.device_tokens) == list(sizes)
    assert str(Tiers(1024, 2048)) == "1k + 2k"
