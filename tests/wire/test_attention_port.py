"""The port to another host: what it cannot carry, and which blocks it sends."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from cluster.attention.plan import Run, plan_attention
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan, split_attention
from cluster.blocks.segment import Home, SegmentView
from cluster.engine.kv_cache import KvShape
from cluster.engine.tiers.layout import KvLayout
from cluster.errors import InvalidArgument, InvariantBroken, Lost, Refused
from cluster.ids import BlockId
from cluster.kernels import kernels_available
from cluster.wire import attention as wire_attention
from cluster.wire import attention_port
from cluster.wire.attention_port import Source, connect
from tests.attention.shared_steps import (
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    NUM_LAYERS,
    SIZES,
    SharedBlocks,
    assert_same_bits,
    drawn_plan,
    one_row,
)
from tests.attention.workers import PATIENCE_S, RemoteWorker, ended
from tests.tiers.nodes import new_arena, record_of
from tests.wire.attention_workers import (
    Twisted,
    as_it_is,
    compute_for_ever,
    native,
    port_at,
    rig_at,
    some_plan,
    twisted,
)

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


@pytest.fixture
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float16", native())
    yield made
    made.close()


@pytest.fixture
def honest() -> Iterator[tuple[str, Twisted]]:
    with twisted(as_it_is) as made:
        yield made


def test_blocks_that_the_step_writes_are_carried_by_no_copy(
    blocks: SharedBlocks, honest: tuple[str, Twisted]
) -> None:
    address, _ = honest
    port = port_at(address, blocks)
    on_host = blocks.segments[2]
    on_device = SegmentView((BlockId(0),), 1)
    read = split_attention([Run(0, 1, (on_host, on_device))]).parts[Home.HOST]
    written = split_attention([Run(0, 1, (on_device, on_host))]).parts[Home.HOST]
    assert port.carries(read)
    assert not port.carries(written)
    port.close()


def test_nobody_at_the_address_is_a_loss(blocks: SharedBlocks) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Lost, match=f"no attention worker at {address}"):
            port_at(address, blocks)
        silent.listen()
        with pytest.raises(Lost, match="no answer in time"):
            port_at(address, blocks, timeout_s=0.1)


def test_a_channel_that_does_not_fit_the_blocks_is_refused(
    honest: tuple[str, Twisted], blocks: SharedBlocks, tmp_path: Path
) -> None:
    with ended(RemoteWorker(tmp_path / "door", max_bytes=2**22)) as small:
        with pytest.raises(Refused, match="7 heads"):
            port_at(small.address, blocks, sizes=ChannelSizes(7, 24, 64, 64, 4096))
        with pytest.raises(Refused, match="a channel has") as refused:
            port_at(small.address, blocks)
    assert (refused.value.field, refused.value.limit) == ("open.sizes", "4194304 bytes")


def test_what_no_message_can_hold_is_refused_before_it_is_sent(
    blocks: SharedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument, match="a plan of 67108864 bytes"):
        port_at("127.0.0.1:1", blocks, sizes=ChannelSizes(6, 24, plan_numbers=2**24))
    monkeypatch.setattr(attention_port, "MAX_MESSAGE_BYTES", 4096)
    with pytest.raises(InvalidArgument, match="a block of"):
        port_at("127.0.0.1:1", blocks)


def test_there_are_as_many_exchanges_as_lanes(
    honest: tuple[str, Twisted], blocks: SharedBlocks
) -> None:
    port = port_at(honest[0], blocks)
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
    with pytest.raises(Lost, match="the port was closed"):
        port.prepare(plan)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (ChannelSizes(6, 24, max_queries=4), "queries, the channel 4"),
        (ChannelSizes(6, 24, max_parts=5), "parts, the channel 5"),
        (ChannelSizes(6, 24, plan_numbers=12), "numbers in its plan, the channel 12"),
    ],
)
def test_a_plan_beyond_the_channel_is_refused_with_its_numbers(
    honest: tuple[str, Twisted], blocks: SharedBlocks, sizes: ChannelSizes, said: str
) -> None:
    port = port_at(honest[0], blocks, sizes=sizes)
    with pytest.raises(InvariantBroken, match=said):
        port.prepare(drawn_plan(Random(2), blocks.segments, 8))
    rig_at(port, blocks).check_step(one_row(blocks.segments[3]), [0])
    port.close()


def test_what_cannot_be_attended_is_refused_before_it_is_sent(
    honest: tuple[str, Twisted], blocks: SharedBlocks
) -> None:
    port = port_at(honest[0], blocks)
    behind = SegmentView((BlockId(blocks.kv.num_blocks),), 3, Home.HOST)
    with pytest.raises(InvariantBroken, match=f"of {blocks.kv.num_blocks}"):
        port.prepare(one_row(behind))
    torn = blocks.segments[1].blocks[0]
    blocks.generations[torn] += 1
    with pytest.raises(InvariantBroken, match=f"block {torn} is not whole"):
        port.prepare(one_row(blocks.segments[1]))
    plan = one_row(blocks.segments[2])
    exchange = port.prepare(plan)
    with pytest.raises(InvariantBroken, match="q is float32"):
        exchange.post(0, torch.zeros((1, 6, 23)))
    with pytest.raises(InvariantBroken, match=f"layer is {NUM_LAYERS} of {NUM_LAYERS}"):
        exchange.post(NUM_LAYERS, blocks.queries(plan))
    exchange.close()
    rig_at(port, blocks).check_step(plan, [1])
    port.close()


def test_a_block_is_sent_once_and_again_when_it_was_written_over(
    honest: tuple[str, Twisted], blocks: SharedBlocks
) -> None:
    address, servicer = honest
    port = port_at(address, blocks)
    rig = rig_at(port, blocks)
    first, second = blocks.segments[3], blocks.segments[4]
    rig.check_step(one_row(first), [0, 1])
    rig.check_step(one_row(first), [2])
    rig.check_step(one_row(second), [0])
    assert servicer.written == [*sorted(first.blocks), *sorted(second.blocks)]
    servicer.written.clear()
    blocks.write_over(first, native())
    rig.check_step(one_row(second), [1])
    assert servicer.written == []
    rig.check_step(one_row(first), list(range(NUM_LAYERS)))
    assert servicer.written == sorted(first.blocks)
    assert port.num_blocks_sent == 2 * len(first.blocks) + len(second.blocks)
    port.close()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_stale_is_attended_whatever_is_written_over_between_steps(
    honest: tuple[str, Twisted], blocks: SharedBlocks, seed: int
) -> None:
    """Also where the step before was given up with its blocks still on their way."""
    random = Random(seed)
    port = port_at(honest[0], blocks)
    rig = rig_at(port, blocks)
    for _ in range(12):
        blocks.write_over(random.choice(blocks.segments), native())
        if random.random() < 0.5:
            port.prepare(drawn_plan(random, blocks.segments, 2)).close()
            blocks.write_over(random.choice(blocks.segments), native())
        rig.check(random)
    port.close()


def test_blocks_that_are_too_many_for_the_worker_make_room_for_each_other(
    blocks: SharedBlocks,
) -> None:
    """Room for the two longest segments, and for no third."""
    random = Random(0)
    sizes = ChannelSizes(HEADS, HEAD_DIM, max_queries=64, max_parts=64, plan_numbers=4096)
    max_pages = 2 * blocks.kv.num_blocks + 3 * 66
    with twisted(as_it_is, max_pages * mmap.PAGESIZE) as (address, servicer):
        port = port_at(address, blocks, sizes=sizes)
        rig = rig_at(port, blocks)
        for _ in range(20):
            kept = one_row(random.choice(blocks.segments))
            exchange = port.prepare(kept)
            rig.check_step(one_row(random.choice(blocks.segments)), [0, 3])
            q = blocks.queries(kept)
            exchange.post(2, q)
            assert_same_bits(exchange.collect(2), rig.expected(kept, 2, q))
            exchange.close()
            blocks.write_over(random.choice(blocks.segments), native())
        assert len(servicer.written) > 1.5 * blocks.kv.num_blocks
        port.close()


def test_a_step_that_the_worker_has_no_room_for_is_lost(blocks: SharedBlocks) -> None:
    sizes = ChannelSizes(HEADS, HEAD_DIM, max_queries=64, max_parts=64, plan_numbers=4096)
    row = torch.zeros(1, dtype=torch.int32)
    all_at_once = plan_attention([Run(0, 1, tuple(blocks.segments))])
    with twisted(as_it_is, 150 * mmap.PAGESIZE) as (address, _):
        port = port_at(address, blocks, sizes=sizes)
        rig_at(port, blocks).check_step(one_row(blocks.segments[4]), [0])
        exchange = port.prepare(PartPlan(row.long(), row, all_at_once))
        with pytest.raises(Lost, match="does not fit beside"):
            compute_for_ever(exchange, torch.zeros((1, HEADS, HEAD_DIM)))
        port.close()


def test_what_an_arena_has_written_is_attended_elsewhere(
    honest: tuple[str, Twisted],
) -> None:
    shape = KvShape(2, KV_HEADS, HEAD_DIM, torch.float16)
    node = record_of("a", 40)
    host = (BlockId(4), BlockId(1), BlockId(2))
    plan = one_row(SegmentView(host, 40, Home.HOST))
    q = torch.randn((1, HEADS, HEAD_DIM), generator=torch.Generator().manual_seed(0))
    with new_arena(6, KvLayout(shape, b"fingerprint of a")) as arena:
        source = Source(arena.kv, arena.memory, arena.generations)
        port = connect(honest[0], SIZES, source, client="test", timeout_s=PATIENCE_S)
        states = []
        for seed in range(2):
            with arena.writing((node, host)):
                for layer in (*arena.k, *arena.v):
                    drawn = torch.randn(layer.shape, generator=torch.Generator().manual_seed(seed))
                    layer[list(host)] = drawn[list(host)].to(layer.dtype)
            exchange = port.prepare(plan)
            exchange.post(1, q)
            found = exchange.collect(1)
            here = native().prepare(plan.attention).attend(q, arena.k[1], arena.v[1])
            assert_same_bits(found, here)
            states.append(found.o.clone())
            exchange.close()
        assert not torch.equal(*states)
        assert honest[1].written == 2 * sorted(host)
        port.close()


def test_a_new_port_sends_all_that_it_needs(
    honest: tuple[str, Twisted], blocks: SharedBlocks
) -> None:
    address, servicer = honest
    for _ in range(2):
        servicer.written.clear()
        port = port_at(address, blocks)
        rig_at(port, blocks).check_step(one_row(blocks.segments[4]), [0])
        assert servicer.written == sorted(blocks.segments[4].blocks)
        port.close()


def test_rows_that_one_message_does_not_hold_come_in_pieces(
    honest: tuple[str, Twisted], blocks: SharedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_attention, "PIECE_BYTES", 1500)
    port = port_at(honest[0], blocks)
    for seed in range(3):
        rig_at(port, blocks).check(Random(seed), num_runs=6)
    assert port.num_ignored == 0
    port.close()
