"""What a replay says about its aims, met or not."""

from __future__ import annotations

import pytest

from benchmarks.rag_engines import CACHED, ENGINES, LOADS, NO_CACHE
from benchmarks.rag_numbers import Hits, Summary
from benchmarks.rag_rows import UNKNOWN, rows_of
from benchmarks.rag_verdicts import Replays, hits, tenants, ttft, work_saved

SLO_S = 2.0
OURS, PLAIN, FAST, SLOW = "ours", "plain", "fast", "slow"


def summary(
    mean_s: float, hit: float | None = None, p99_s: float | None = None, is_whole: bool = True
) -> Summary:
    found = None if hit is None else Hits(1000, round(1000 * hit), 0, 0, round(1000 * (1 - hit)))
    return Summary(mean_s, mean_s, p99_s or mean_s, 1.0, found, is_whole)


def replays(bound: float = 0.4, **found: dict[float, Summary]) -> Replays:
    flat = {(name, load): each for name, loads in found.items() for load, each in loads.items()}
    return Replays(flat, bound, SLO_S)


def test_hits_are_held_against_the_bound_where_they_are_fewest() -> None:
    found = replays(ours={0.5: summary(1, 0.40), 0.8: summary(1, 0.35)})
    verdict = hits(found, OURS, [])
    assert not verdict.met
    assert verdict.measured == "35.0% of 40.0% at load 0.8"
    assert hits(replays(ours={0.5: summary(1, 0.361)}), OURS, []).met
    assert not hits(replays(), OURS, []).met


def test_what_a_peer_has_to_compute_stands_beside() -> None:
    found = replays(
        ours={0.5: summary(1, 0.4)}, slow={0.5: summary(1, 0.1)}, fast={0.5: summary(1)}
    )
    assert found.left_to_compute(SLOW, OURS, 0.5) == pytest.approx(0.9 / 0.6)
    # It does not tell: it is taken to find everything.
    assert found.left_to_compute(FAST, OURS, 0.5) == pytest.approx(1.0)
    measured = hits(found, OURS, [SLOW, FAST, "gone"]).measured
    assert "slow 1.50, fast at least 1.00, it does not tell, gone not measured" in measured


def test_work_saved_is_the_least_of_all_loads_and_shows_what_could_be() -> None:
    plain = {0.5: summary(1, 0.0), 0.8: summary(1, 0.0)}
    found = replays(plain=plain, ours={0.5: summary(1, 0.6), 0.8: summary(1, 0.5)}, bound=0.6)
    verdict = work_saved(found, OURS, PLAIN)
    assert not verdict.met
    assert verdict.measured == "2.00x at load 0.8; memory without end: 2.50x"
    assert work_saved(replays(plain=plain, ours={0.5: summary(1, 0.6)}), OURS, PLAIN).met
    assert not work_saved(replays(ours={0.5: summary(1, 0.6)}), OURS, PLAIN).met


def test_first_tokens_are_compared_where_the_best_peer_still_meets_the_slo() -> None:
    found = replays(
        ours={0.5: summary(0.1), 0.8: summary(0.2), 1.2: summary(0.1)},
        slow={0.5: summary(1.5)},
        fast={0.5: summary(1.0), 0.8: summary(0.9, p99_s=2.0), 1.2: summary(0.9, p99_s=2.1)},
    )
    verdict = ttft(found, OURS, [FAST, SLOW])
    assert verdict.met
    assert verdict.measured == "4.50x fast at load 0.8: 0.200 s against 0.900 s"


def test_of_peers_that_meet_the_slo_the_quickest_counts() -> None:
    found = replays(ours={0.5: summary(0.5)}, slow={0.5: summary(1.9)}, fast={0.5: summary(1.0)})
    verdict = ttft(found, OURS, [SLOW, FAST])
    assert not verdict.met
    assert verdict.measured.startswith("2.00x fast at load 0.5")


def test_where_no_peer_meets_the_slo_the_lowest_load_counts_and_it_is_said() -> None:
    found = replays(
        ours={0.5: summary(1.0), 0.8: summary(1.0)},
        fast={0.5: summary(9.0), 0.8: summary(1.0, is_whole=False)},
    )
    verdict = ttft(found, OURS, [FAST])
    assert verdict.met
    assert "9.00x fast at load 0.5" in verdict.measured
    assert "no peer meets the SLO at any load" in verdict.measured
    assert not ttft(replays(ours={0.5: summary(1.0)}), OURS, [FAST]).met


@pytest.mark.parametrize(
    ("stranger", "own", "met"),
    [
        (0.52, 0.99, [True, True]),
        (0.56, 0.99, [False, True]),
        (0.44, 0.99, [False, True]),
        (0.5, 0.6, [True, False]),
    ],
)
def test_a_stranger_tells_nothing_and_the_control_shows(
    stranger: float, own: float, met: list[bool]
) -> None:
    assert [verdict.met for verdict in tenants(stranger, own, 1000)] == met


def test_every_cell_has_a_row_also_one_that_was_left_out() -> None:
    found = Replays({(NO_CACHE, 0.5): summary(1.0, 0.0)}, 0.4, SLO_S)
    ended = {(CACHED, 0.5): "ended with -9"}
    rows = list(rows_of(ENGINES, LOADS, found, ended, capacity_per_s=2.0))
    assert len(rows) == sum(len(engine.loads) for engine in ENGINES)
    assert all(row.keys() == rows[0].keys() for row in rows)
    by_cell = {(row["engine"], row["load"]): row for row in rows}
    plain, cached = by_cell[NO_CACHE, 0.5], by_cell[CACHED, 0.5]
    assert (plain["mean_ttft_s"], plain["meets_slo"], plain["per_s_at_slo"]) == (1.0, "yes", 1.0)
    assert (plain["arrivals_per_s"], plain["saved"], plain["note"]) == (1.0, 1.0, "")
    assert (cached["mean_ttft_s"], cached["hit"], cached["note"]) == (
        UNKNOWN,
        UNKNOWN,
        "ended with -9",
    )


def test_ours_and_the_peers_come_in_every_way_that_is_compared() -> None:
    names = [engine.name for engine in ENGINES]
    assert len(set(names)) == len(names)
    everywhere = {engine.name for engine in ENGINES if engine.loads == LOADS}
    assert {NO_CACHE, CACHED} < everywhere
    assert all(engine.name in everywhere for engine in ENGINES if not engine.ours)
    policies = {engine.options["policy"] for engine in ENGINES if engine.ours}
    assert policies == {"lru", "lfu", "gdsf", "pgdsf"}
    assert {engine.options["placement"] for engine in ENGINES if engine.ours} == {"tree", "segment"}
