"""What every port does, whoever computes behind it: the same bits as computing here.

A port of another kind is one more maker in `MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random

import pytest
import torch

from cluster.attention.backend import AttentionBackend
from cluster.attention.fallback import FallbackPort
from cluster.attention.native import NativeBackend
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.reference import ReferenceBackend
from cluster.errors import InvariantBroken
from cluster.kernels import kernels, kernels_available
from tests.attention.shared_steps import (
    NUM_LAYERS,
    Rig,
    SharedBlocks,
    assert_same_bits,
    drawn_plan,
    one_row,
    rows_over_nothing,
)
from tests.attention.workers import RemoteWorker, ended, worker_at

Maker = Callable[[SharedBlocks, Path], AbstractContextManager[AttentionPort]]


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


@contextmanager
def local_torch(blocks: SharedBlocks, _: Path) -> Iterator[AttentionPort]:
    yield LocalPort(ReferenceBackend(), blocks.k, blocks.v)


@contextmanager
def local_native(blocks: SharedBlocks, _: Path) -> Iterator[AttentionPort]:
    yield LocalPort(NativeBackend(kernels().Threads(3)), blocks.k, blocks.v)


@contextmanager
def shared_memory(blocks: SharedBlocks, folder: Path) -> Iterator[AttentionPort]:
    with worker_at(folder / "door") as worker:
        port = worker.port(blocks)
        yield port
        port.close()
        assert worker.end() == 0


@contextmanager
def with_fallback(blocks: SharedBlocks, folder: Path) -> Iterator[AttentionPort]:
    with shared_memory(blocks, folder) as worker:
        port = FallbackPort(LocalPort(native(), blocks.k, blocks.v))
        port.attach(worker)
        yield port


@contextmanager
def grpc(blocks: SharedBlocks, folder: Path) -> Iterator[AttentionPort]:
    with ended(RemoteWorker(folder / "door")) as worker:
        port = worker.remote_port(blocks)
        yield port
        port.close()
        assert worker.end() == 0


# How it is made, and the backend whose bits its states have.
MAKERS: dict[str, tuple[Maker, Callable[[], AttentionBackend]]] = {
    "local torch": (local_torch, ReferenceBackend)
}
if kernels_available():
    MAKERS |= {
        "local native": (local_native, native),
        "shared memory": (shared_memory, native),
        "with fallback": (with_fallback, native),
        "grpc": (grpc, native),
    }


@pytest.fixture(params=MAKERS, scope="module")
def made(request: pytest.FixtureRequest) -> tuple[Maker, AttentionBackend]:
    maker, backend = MAKERS[request.param]
    return maker, backend()


@pytest.fixture(params=["float32", "float16"], scope="module")
def rig(
    request: pytest.FixtureRequest,
    made: tuple[Maker, AttentionBackend],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    maker, backend = made
    blocks = SharedBlocks(request.param, backend)
    with maker(blocks, tmp_path_factory.mktemp("port")) as port:
        yield Rig(port, blocks, backend)
    blocks.close()


@pytest.mark.parametrize("seed", range(12))
def test_states_are_those_of_computing_here(rig: Rig, seed: int) -> None:
    random = Random(seed)
    rig.check(random, num_runs=random.randint(1, 8))


def test_a_plan_serves_a_layer_as_often_as_it_is_posted(rig: Rig) -> None:
    plan = drawn_plan(Random(1), rig.blocks.segments, 4)
    rig.check_step(plan, [3, 3, 0, 3, 0])


def test_one_row_over_one_block_and_hundreds_over_all(rig: Rig) -> None:
    random = Random(2)
    small = one_row(rig.blocks.segments[0])
    large = drawn_plan(random, rig.blocks.segments, 30)
    assert large.num_parts > 200
    for plan in (small, large, small):
        rig.check_step(plan, [1, 0])


def test_rows_over_nothing_have_states_too(rig: Rig) -> None:
    rig.check_step(rows_over_nothing(3), [0, 2])


@pytest.mark.parametrize("seed", range(4))
def test_two_steps_may_be_open_at_once(rig: Rig, seed: int) -> None:
    random = Random(seed)
    plans = [drawn_plan(random, rig.blocks.segments, 3) for _ in range(2)]
    exchanges = [rig.port.prepare(plan) for plan in plans]
    for _ in range(5):
        layers = [random.randrange(NUM_LAYERS) for _ in plans]
        queries = [rig.blocks.queries(plan) for plan in plans]
        for i in random.sample((0, 1), 2):
            exchanges[i].post(layers[i], queries[i])
        states = {i: exchanges[i].collect(layers[i]) for i in random.sample((0, 1), 2)}
        for i, plan in enumerate(plans):
            assert_same_bits(states[i], rig.expected(plan, layers[i], queries[i]))
    for exchange in exchanges:
        exchange.close()


def test_queries_may_be_written_over_once_they_are_posted(rig: Rig) -> None:
    plan = drawn_plan(Random(3), rig.blocks.segments, 5)
    exchange = rig.port.prepare(plan)
    q = rig.blocks.queries(plan)
    expected = rig.expected(plan, 2, q)
    exchange.post(2, q)
    q.fill_(torch.nan)
    assert_same_bits(exchange.collect(2), expected)
    exchange.close()


def test_a_step_may_end_without_a_layer_and_with_one_on_its_way(rig: Rig) -> None:
    random = Random(4)
    for _ in range(6):
        plan = drawn_plan(random, rig.blocks.segments, 3)
        rig.port.prepare(plan).close()
        left = rig.port.prepare(plan)
        left.post(0, rig.blocks.queries(plan))
        left.close()
    rig.check(random)


def test_a_layer_is_collected_once_after_it_was_posted(rig: Rig) -> None:
    plan = drawn_plan(Random(5), rig.blocks.segments, 2)
    exchange = rig.port.prepare(plan)
    q = rig.blocks.queries(plan)
    with pytest.raises(InvariantBroken, match="layer 1 is collected and was not posted"):
        exchange.collect(1)
    exchange.post(1, q)
    with pytest.raises(InvariantBroken, match="layer 2 is posted before"):
        exchange.post(2, q)
    assert_same_bits(exchange.collect(1), rig.expected(plan, 1, q))
    with pytest.raises(InvariantBroken, match="layer 1 is collected and was not posted"):
        exchange.collect(1)
    exchange.close()
    rig.check(Random(6))
