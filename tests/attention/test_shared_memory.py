"""The port to another process: what it cannot carry, who dies, who lies, and what is left over."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from cluster.attention.door import enter
from cluster.attention.native import NativeBackend
from cluster.attention.shared_memory import ChannelSizes, SharedMemoryExchange, SharedMemoryPort
from cluster.attention.split import PartPlan
from cluster.blocks.segment import Home, SegmentView
from cluster.errors import InvariantBroken, Lost, Refused
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from tests.attention.shared_steps import NUM_LAYERS, SIZES, Rig, SharedBlocks, drawn_plan, one_row
from tests.attention.workers import Worker, open_descriptors, wait_until, worker_at

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")

ENDED = "process has ended"
# A channel's first lane: its request, its answer, its plan.
LANE_AT, LANE_HEAD_BYTES, PLAN_BYTES = 4096, 192, 400


@pytest.fixture(scope="module")
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float32", native())
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """For tests that leave it as they found it."""
    with worker_at(tmp_path_factory.mktemp("worker") / "door") as made:
        yield made
        assert made.end() == 0


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Worker]:
    with worker_at(tmp_path / "door") as made:
        yield made


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


def rig_at(port: SharedMemoryPort, blocks: SharedBlocks) -> Rig:
    return Rig(port, blocks, native())


def some_plan(blocks: SharedBlocks, seed: int = 0) -> PartPlan:
    return drawn_plan(Random(seed), blocks.segments, 3)


def test_there_are_as_many_exchanges_as_lanes(worker: Worker, blocks: SharedBlocks) -> None:
    port = worker.port(blocks)
    plan = some_plan(blocks)
    first, _ = port.prepare(plan), port.prepare(plan)
    with pytest.raises(InvariantBroken, match="2 exchanges are open"):
        port.prepare(plan)
    first.close()
    first.close()
    rig_at(port, blocks).check(Random(1))
    with pytest.raises(InvariantBroken, match="after its end"):
        first.post(0, blocks.queries(plan))
    port.close()


def test_an_exchange_says_what_the_worker_computed_for_it(
    worker: Worker, blocks: SharedBlocks
) -> None:
    port = worker.port(blocks)
    plan = some_plan(blocks)
    exchange, other = port.prepare(plan), port.prepare(plan)
    busy_s = [0.0]
    begun_s = time.monotonic()
    for layer in range(2):
        exchange.post(layer, blocks.queries(plan))
        exchange.collect(layer)
        busy_s.append(exchange.busy_s)
    assert 0.0 < busy_s[1] < busy_s[2] < time.monotonic() - begun_s
    assert other.busy_s == 0.0
    exchange.close()
    other.close()
    assert port.prepare(plan).busy_s == 0.0
    port.close()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (ChannelSizes(6, 24, max_queries=4), "queries, the channel 4"),
        (ChannelSizes(6, 24, max_parts=5), "parts, the channel 5"),
        (ChannelSizes(6, 24, plan_numbers=12), "numbers in its plan, the channel 12"),
    ],
)
def test_a_plan_beyond_the_channel_is_refused_with_its_numbers(
    worker: Worker, blocks: SharedBlocks, sizes: ChannelSizes, said: str
) -> None:
    port = enter(worker.path, sizes, blocks.kv, blocks.fd, timeout_s=60.0)
    with pytest.raises(InvariantBroken, match=said):
        port.prepare(drawn_plan(Random(2), blocks.segments, 8))
    rig_at(port, blocks).check_step(one_row(blocks.segments[3]), [0])
    port.close()


def test_queries_of_another_shape_are_refused(worker: Worker, blocks: SharedBlocks) -> None:
    port = worker.port(blocks)
    exchange = port.prepare(some_plan(blocks))
    with pytest.raises(InvariantBroken, match="q is contiguous float32"):
        exchange.post(0, torch.zeros((1, 6, 23)))
    port.close()


def test_a_step_that_cannot_be_is_answered_with_what_is_wrong(
    worker: Worker, blocks: SharedBlocks
) -> None:
    behind = SegmentView((BlockId(blocks.kv.num_blocks),), 3, Home.HOST)
    plan = one_row(behind)
    port = worker.port(blocks)
    exchange = port.prepare(plan)
    exchange.post(0, blocks.queries(plan))
    with pytest.raises(Lost, match=f"the plan has block {blocks.kv.num_blocks}"):
        exchange.collect(0)
    with pytest.raises(Lost):
        port.prepare(plan)
    port.close()


def test_many_clients_are_served_at_once(worker: Worker, blocks: SharedBlocks) -> None:
    def steps(seed: int) -> None:
        mine = SharedBlocks("float16", native(), seed)
        port = worker.port(mine)
        random = Random(seed)
        for _ in range(8):
            rig_at(port, mine).check(random)
        port.close()
        mine.close()

    with ThreadPoolExecutor(4) as clients:
        for done in [clients.submit(steps, seed) for seed in range(4)]:
            done.result()


def test_a_worker_killed_while_idle_is_lost(doomed: Worker, blocks: SharedBlocks) -> None:
    port = doomed.port(blocks)
    rig_at(port, blocks).check(Random(0))
    exchange = port.prepare(some_plan(blocks))
    doomed.process.kill()
    doomed.process.wait()
    exchange.post(0, blocks.queries(some_plan(blocks)))
    with pytest.raises(Lost, match=ENDED):
        exchange.collect(0)
    with pytest.raises(Lost, match=ENDED):
        port.prepare(some_plan(blocks))
    port.close()
    with pytest.raises(Lost, match="no attention worker"):
        doomed.port(blocks)


def test_the_death_is_known_to_the_next_step_before_it_posts(
    doomed: Worker, blocks: SharedBlocks
) -> None:
    port = doomed.port(blocks)
    doomed.process.kill()
    doomed.process.wait()
    with pytest.raises(Lost, match=ENDED):
        port.prepare(some_plan(blocks))
    port.close()


def compute_for_ever(exchange: SharedMemoryExchange, q: Tensor) -> None:
    for layer in cycle(range(NUM_LAYERS)):
        exchange.post(layer, q)
        exchange.collect(layer)


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_killed_while_it_computes_is_lost(
    doomed: Worker, blocks: SharedBlocks, seed: int
) -> None:
    port = doomed.port(blocks)
    plan = drawn_plan(Random(seed), blocks.segments, 25)
    exchange = port.prepare(plan)
    killer = threading.Timer(0.05 + 0.01 * seed, doomed.process.kill)
    killer.start()
    with pytest.raises(Lost, match=ENDED):
        compute_for_ever(exchange, blocks.queries(plan))
    killer.join()
    port.close()


def test_a_worker_that_is_stopped_is_lost_and_nothing_of_it_is_seen_again(
    doomed: Worker, blocks: SharedBlocks
) -> None:
    old = doomed.port(blocks, timeout_s=0.3)
    before = doomed.num_descriptors
    plan = some_plan(blocks)
    exchange = old.prepare(plan)
    doomed.stop()
    exchange.post(0, torch.full_like(blocks.queries(plan), 7.0))
    with pytest.raises(Lost, match="no answer in time"):
        exchange.collect(0)
    for _ in range(2):
        with pytest.raises(Lost, match="no answer in time"):
            exchange.collect(0)
    doomed.process.send_signal(signal.SIGCONT)
    new = doomed.port(blocks)
    rig = rig_at(new, blocks)
    rig.check_step(plan, [0, 0])
    old.close()
    for seed in range(5):
        rig.check(Random(seed))
    assert new.num_ignored == 0
    wait_until(lambda: doomed.num_descriptors == before)
    new.close()


class Hostile:
    """A client that writes what it likes over its channel."""

    def __init__(self, port: SharedMemoryPort, random: Random) -> None:
        self.port = port
        self.random = random
        self.memory = mmap.mmap(port.ends.memory, 0)

    def strike(self) -> None:
        """Bytes over a lane's request, and some over its plan; what was whole may stay so."""
        random = self.random
        begin = LANE_AT + (random.random() < 0.3) * random.randrange(16)
        self.memory[begin : begin + 8] = random.randbytes(8)
        for _ in range(random.randrange(8)):
            at = LANE_AT + 8 + random.randrange(LANE_HEAD_BYTES + PLAN_BYTES)
            width = random.choice((1, 2, 4))
            self.memory[at : at + width] = random.randbytes(width)
        os.eventfd_write(self.port.ends.work_bell, random.choice((1, 2, 2**32)))

    def close(self) -> None:
        self.memory.close()
        self.port.close()


@pytest.mark.parametrize("seed", range(3))
def test_garbage_harms_nobody_else(worker: Worker, blocks: SharedBlocks, seed: int) -> None:
    random = Random(seed)
    honest = worker.port(blocks)
    hostile = Hostile(worker.port(blocks), random)
    plan = some_plan(blocks, seed)
    hostile.port.prepare(plan).post(0, blocks.queries(plan))
    for _ in range(60):
        for _ in range(20):
            hostile.strike()
        rig_at(honest, blocks).check(random)
    hostile.close()
    rig_at(honest, blocks).check(random)
    honest.close()
    assert worker.process.poll() is None


def test_a_bell_that_is_full_and_blocks_stops_nobody(worker: Worker, blocks: SharedBlocks) -> None:
    honest, hostile = worker.port(blocks), worker.port(blocks)
    ends = hostile.ends
    for bell in (ends.work_bell, ends.answer_bell):
        os.eventfd_write(bell, 2**64 - 2)
        os.set_blocking(bell, True)
    memory = mmap.mmap(ends.memory, 0)
    # The client says that it sleeps, so that it is rung for.
    memory[128:132] = (1).to_bytes(4, "little")
    for sequence in range(1, 9):
        memory[LANE_AT : LANE_AT + 8] = sequence.to_bytes(8, "little")
        rig_at(honest, blocks).check(Random(sequence))
    memory.close()
    hostile.close()
    honest.close()


def test_every_descriptor_is_closed_in_the_end(worker: Worker, blocks: SharedBlocks) -> None:
    rig_at(worker.port(blocks), blocks).port.close()
    wait_until(lambda: settled(worker))
    ours, theirs = open_descriptors(), worker.num_descriptors
    for seed in range(5):
        port = worker.port(blocks)
        rig_at(port, blocks).check(Random(seed))
        port.close()
    wait_until(lambda: worker.num_descriptors == theirs)
    assert open_descriptors() == ours


def settled(worker: Worker) -> bool:
    """No line of an earlier client is open any more."""
    links = (f"/proc/{worker.process.pid}/fd/{fd}" for fd in numbers_of(worker))
    return sum(is_socket(link) for link in links) == 1


def numbers_of(worker: Worker) -> list[str]:
    return os.listdir(f"/proc/{worker.process.pid}/fd")


def is_socket(link: str) -> bool:
    try:
        return os.readlink(link).startswith("socket:")
    except FileNotFoundError:
        return True


def test_sizes_are_those_of_the_blocks(worker: Worker, blocks: SharedBlocks) -> None:
    assert (SIZES.heads, SIZES.head_dim) == (6, 24)
    with pytest.raises(Refused, match="refused the channel: not served: the channel has 7 heads"):
        enter(worker.path, ChannelSizes(7, 24), blocks.kv, blocks.fd, timeout_s=60.0)
