"""A worker that is lost leaves no trace: what it owes is computed here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from cluster.attention.fallback import FallbackPort
from cluster.attention.native import NativeBackend
from cluster.attention.port import LocalPort
from cluster.attention.shared_memory import SharedMemoryPort
from cluster.errors import Lost
from cluster.kernels import kernels, kernels_available
from tests.attention.shared_steps import Rig, SharedBlocks, assert_same_bits, drawn_plan
from tests.attention.workers import Worker, worker_at

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


@pytest.fixture(scope="module")
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float32", native())
    yield made
    made.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with worker_at(tmp_path / "door") as made:
        yield made


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


def rig_of(blocks: SharedBlocks, worker: SharedMemoryPort) -> tuple[FallbackPort, Rig]:
    port = FallbackPort(LocalPort(native(), blocks.k, blocks.v))
    port.attach(worker)
    return port, Rig(port, blocks, native())


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=str)
@pytest.mark.parametrize("moment", ["before a step", "before a layer", "after it was posted"])
def test_whenever_the_worker_is_lost_the_states_are_the_same(
    moment: str, blow: signal.Signals, worker: Worker, blocks: SharedBlocks
) -> None:
    port, rig = rig_of(blocks, worker.port(blocks, timeout_s=0.2))
    plan = drawn_plan(Random(1), blocks.segments, 4)
    rig.check(Random(2))

    def strike(now: str) -> None:
        if now == moment:
            worker.strike(blow)

    strike("before a step")
    exchange = port.prepare(plan)
    strike("before a layer")
    for layer in (0, 1, 2):
        q = blocks.queries(plan)
        exchange.post(layer, q)
        if layer == 1:
            strike("after it was posted")
        expected = rig.expected(plan, layer, q)
        q.fill_(0.0)
        assert_same_bits(exchange.collect(layer), expected)
    exchange.close()
    assert (port.worker, port.num_lost) == (None, 1)
    rig.check(Random(3))


def test_seconds_of_whoever_attended_are_summed(worker: Worker, blocks: SharedBlocks) -> None:
    port, _ = rig_of(blocks, worker.port(blocks))
    plan = drawn_plan(Random(1), blocks.segments, 4)
    exchange = port.prepare(plan)
    busy_s = [exchange.busy_s]
    for layer in (0, 1, 2, 3):
        if layer == 2:
            worker.strike(signal.SIGKILL)
        exchange.post(layer, blocks.queries(plan))
        exchange.collect(layer)
        busy_s.append(exchange.busy_s)
    exchange.close()
    # None is lost with the worker.
    assert busy_s[0] == 0.0
    assert all(before < after for before, after in pairwise(busy_s))
    assert port.num_lost == 1


def test_two_open_steps_lose_one_worker(worker: Worker, blocks: SharedBlocks) -> None:
    port, rig = rig_of(blocks, worker.port(blocks))
    plans = [drawn_plan(Random(seed), blocks.segments, 3) for seed in (1, 2)]
    exchanges = [port.prepare(plan) for plan in plans]
    queries = [blocks.queries(plan) for plan in plans]
    for exchange, q in zip(exchanges, queries, strict=True):
        exchange.post(1, q)
    worker.process.kill()
    worker.process.wait()
    for exchange, plan, q in zip(exchanges, plans, queries, strict=True):
        exchange.collect(1)
        exchange.post(3, q)
        assert_same_bits(exchange.collect(3), rig.expected(plan, 3, q))
        exchange.close()
    assert port.num_lost == 1


def test_what_a_worker_has_no_room_for_is_computed_here(
    worker: Worker, blocks: SharedBlocks
) -> None:
    plan = drawn_plan(Random(1), blocks.segments, 4)
    entered = worker.port(blocks)
    for name, most in (
        ("max_queries", len(plan.queries)),
        ("max_parts", plan.num_parts),
        ("plan_numbers", plan.num_numbers),
    ):
        assert replace(entered.sizes, **{name: most}).hold(plan)
        assert not replace(entered.sizes, **{name: most - 1}).hold(plan)
    entered.sizes = replace(entered.sizes, max_parts=plan.num_parts - 1)
    port, rig = rig_of(blocks, entered)
    rig.check_step(plan, [0, 1])
    assert (port.worker, port.num_lost) == (entered, 0)
    port.close()


def test_whoever_is_attached_takes_the_place_of_the_one_before(
    worker: Worker, blocks: SharedBlocks
) -> None:
    first, second = worker.port(blocks), worker.port(blocks)
    port, rig = rig_of(blocks, first)
    port.attach(second)
    with pytest.raises(Lost, match="closed"):
        first.prepare(drawn_plan(Random(1), blocks.segments, 2))
    rig.check(Random(1))
    port.attach(None)
    rig.check(Random(2))
    assert port.num_lost == 0
