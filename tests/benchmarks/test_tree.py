"""What the tree's benchmark times, and that it leaves a whole tree behind."""

from __future__ import annotations

import gc

import pytest
from rich.console import Console

from benchmarks import tree
from benchmarks.tree import PATH, Requests, Stopwatch, Taken, Worker, p99, request_of, row, verdicts
from cluster.knowledge.cache import Way


def test_a_part_in_pieces_is_one_observation() -> None:
    watch = Stopwatch()
    for _ in range(3):
        with watch.part("look up"):
            sum(range(1000))
    watch.end()
    (taken,) = watch.taken["look up"]
    assert taken.cpu > 0
    assert taken.wall > 0
    watch.end()
    assert len(watch.taken["look up"]) == 1, "a request without it counts for nothing"


def test_the_99th_hundredth_decides() -> None:
    slow = [Taken(cpu=1_000 * n, wall=2_000 * n) for n in range(1, 1_002)]
    found = row("insert", slow, 7)
    assert (found["p50_us"], found["max_us"], found["wall_p50_us"]) == (501, 1_001, 1_002)
    assert found["p99_us"] == pytest.approx(991)
    (verdict,) = verdicts([found])
    assert verdict.met
    (verdict,) = verdicts([{**found, "p99_us": 1_000.0}])
    assert not verdict.met


def test_p99_lies_between_observations() -> None:
    assert p99([float(n) for n in range(101)]) == pytest.approx(99.0)


def test_the_second_request_for_documents_finds_them_all() -> None:
    worker = Worker(num_nodes=100)
    for _ in range(2):
        worker.serve(request_of(range(PATH)))
    assert worker.ways == {Way.USE: PATH}
    assert len(worker.watch.taken["hash"]) == 2
    assert len(worker.cache.tree.nodes) == PATH


def test_a_filled_tree_is_whole_and_asks_all_its_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "FILL_STEP", 20)
    monkeypatch.setattr(tree, "NUM_TOPICS", 30)
    worker, requests = Worker(num_nodes=400), Requests(seed=1)
    tree.fill(worker, requests, 400, Console(quiet=True))
    assert len(worker.cache.tree.nodes) >= 400
    for _ in range(200):
        worker.serve(requests.next())
        worker.cache.check()
    assert set(worker.ways) >= {Way.USE, Way.LOAD, Way.WAIT}
    assert set(worker.watch.taken) == set(tree.PARTS) - {tree.COLLECTOR}


def test_the_collector_is_watched_only_where_that_is_asked_for() -> None:
    watch = Stopwatch()
    gc.collect()
    with watch.collector():
        gc.collect()
    gc.collect()
    assert watch.taken[tree.COLLECTOR]
    num_pauses = len(watch.taken[tree.COLLECTOR])
    gc.collect()
    assert len(watch.taken[tree.COLLECTOR]) == num_pauses
    assert all(pause.cpu > 0 for pause in watch.taken[tree.COLLECTOR])
