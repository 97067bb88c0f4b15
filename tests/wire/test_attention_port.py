"""The port to another host: who dies, who is late, who answers what was not asked, and which blocks
are sent."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
import torch

from cluster.attention.native import NativeBackend
from cluster.attention.port import Exchange
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.blocks.segment import Home, SegmentView
from cluster.errors import InvalidArgument, InvariantBroken, Lost, Refused
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from cluster.wire import attention as wire_attention
from cluster.wire import attention_port
from cluster.wire.attention_port import GrpcPort, connect
from protos.thoth.v1 import attention_pb2 as pb
from tests.attention.shared_steps import (
    NUM_LAYERS,
    SIZES,
    Rig,
    SharedBlocks,
    assert_same_bits,
    drawn_plan,
    one_row,
)
from tests.attention.workers import PATIENCE_S, RemoteWorker, ended, source_of, wait_until
from tests.wire.attention_workers import Twist, Twisted, twisted

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


@pytest.fixture
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float16", native())
    yield made
    made.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RemoteWorker]:
    with ended(RemoteWorker(tmp_path / "door")) as made:
        yield made


def port_at(
    address: str, blocks: SharedBlocks, timeout_s: float = PATIENCE_S, sizes: ChannelSizes = SIZES
) -> GrpcPort:
    return connect(address, sizes, source_of(blocks), client="test", timeout_s=timeout_s)


def rig_at(port: GrpcPort, blocks: SharedBlocks) -> Rig:
    return Rig(port, blocks, native())


def some_plan(blocks: SharedBlocks, seed: int = 0) -> PartPlan:
    return drawn_plan(Random(seed), blocks.segments, 3)


def as_it_is(responses: list[pb.AttendResponse]) -> list[pb.AttendResponse]:
    return responses


@pytest.fixture
def honest() -> Iterator[tuple[str, Twisted]]:
    with twisted(as_it_is) as made:
        yield made


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


def answers(responses: Iterable[pb.AttendResponse]) -> list[pb.LayerAnswered]:
    return [each.answer for each in responses if each.WhichOneof("event") == "answer"]


def changed(response: pb.AttendResponse, **said: int) -> pb.AttendResponse:
    """Of another exchange, layer or post, and full of nothing."""
    answer = pb.LayerAnswered()
    answer.CopyFrom(response.answer)
    for name, value in said.items():
        setattr(answer, name, value)
    answer.o = bytes(len(answer.o))
    return pb.AttendResponse(answer=answer)


class Repeating:
    """Before each answer all earlier ones and others that nobody asked for, and after it the same
    again."""

    def __init__(self) -> None:
        self.said: list[pb.AttendResponse] = []
        self.num_wrong = 0

    def __call__(self, responses: list[pb.AttendResponse]) -> Iterator[pb.AttendResponse]:
        for response in responses:
            if response.WhichOneof("event") != "answer":
                yield response
                continue
            answer = response.answer
            wrong = [
                *self.said[-8:],
                changed(response, layer=answer.layer + 1),
                changed(response, sequence=answer.sequence + 1),
                changed(response, exchange=answer.exchange + 1),
                changed(response, first_part=1),
            ]
            self.num_wrong += len(wrong) + 1
            yield from (*wrong, response, response)
            self.said.append(response)


def test_what_was_not_asked_for_is_ignored_and_counted(blocks: SharedBlocks) -> None:
    twist = Repeating()
    with twisted(twist) as (address, _):
        port = port_at(address, blocks)
        rig = rig_at(port, blocks)
        plan = some_plan(blocks)
        for seed in range(3):
            rig.check(Random(seed))
            rig.check_step(plan, [2, 2, 2, 0, 2])
        # What comes after the last answer is not looked at.
        assert port.num_ignored == twist.num_wrong - 1
        port.close()


class Swapping:
    """Every other layer's answer waits until after the next one's."""

    def __init__(self) -> None:
        self.held: list[pb.AttendResponse] = []

    def __call__(self, responses: list[pb.AttendResponse]) -> list[pb.AttendResponse]:
        if not answers(responses):
            return responses
        if not self.held:
            self.held = responses
            return []
        held, self.held = self.held, []
        return [*responses, *held]


def test_answers_in_another_order_go_to_whom_they_belong(blocks: SharedBlocks) -> None:
    with twisted(Swapping()) as (address, _):
        port = port_at(address, blocks)
        rig = rig_at(port, blocks)
        plans = [some_plan(blocks, seed) for seed in range(2)]
        exchanges = [port.prepare(plan) for plan in plans]
        for layer in range(NUM_LAYERS):
            queries = [blocks.queries(plan) for plan in plans]
            for exchange, q in zip(exchanges, queries, strict=True):
                exchange.post(layer, q)
            for exchange, plan, q in zip(exchanges, plans, queries, strict=True):
                assert_same_bits(exchange.collect(layer), rig.expected(plan, layer, q))
        assert port.num_ignored == 0
        port.close()


def emptied(responses: list[pb.AttendResponse]) -> Iterator[pb.AttendResponse]:
    for response in responses:
        if response.WhichOneof("event") == "answer":
            response.answer.o = b"1234"
        yield response


def silenced(responses: list[pb.AttendResponse]) -> list[pb.AttendResponse]:
    return [each for each in responses if each.WhichOneof("event") != "answer"]


def babbling(responses: list[pb.AttendResponse]) -> Iterator[pb.AttendResponse]:
    yield from silenced(responses)
    for answer in answers(responses):
        for sequence in range(2, 3000):
            yield pb.AttendResponse(answer=pb.LayerAnswered(exchange=1, sequence=sequence))
        assert answer.sequence == 1


def confused(responses: list[pb.AttendResponse]) -> Iterator[pb.AttendResponse]:
    yield from silenced(responses)
    if answers(responses):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        (emptied, "does not fit the step"),
        (silenced, "no answer in time"),
        (babbling, "no answer in time"),
        (confused, "Exception iterating responses"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_gives_no_answer_is_lost(
    blocks: SharedBlocks, twist: Twist, said: str
) -> None:
    with twisted(twist) as (address, _):
        port = port_at(address, blocks)
        port.timeout_s = 0.3
        plan = some_plan(blocks)
        exchange, other = port.prepare(plan), port.prepare(plan)
        exchange.post(0, blocks.queries(plan))
        with pytest.raises(Lost, match=said):
            exchange.collect(0)
        for call in (exchange.collect, other.collect):
            with pytest.raises(Lost, match=said):
                call(0)
        with pytest.raises(Lost, match=said):
            other.post(0, blocks.queries(plan))
        with pytest.raises(Lost, match=said):
            port.prepare(plan)
        other.close()
        port.close()


def test_what_opens_no_channel_is_a_loss(blocks: SharedBlocks) -> None:
    def denied(responses: list[pb.AttendResponse]) -> list[pb.AttendResponse]:
        return [pb.AttendResponse(answer=pb.LayerAnswered())]

    with twisted(denied) as (address, _), pytest.raises(Lost, match="opens no channel"):
        port_at(address, blocks)


def test_a_worker_killed_between_two_steps_is_lost_before_the_next_posts(
    worker: RemoteWorker, blocks: SharedBlocks
) -> None:
    port = worker.remote_port(blocks)
    rig_at(port, blocks).check(Random(0))
    left = port.prepare(some_plan(blocks))
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: port.has_ended)
    left.close()
    with pytest.raises(Lost, match="attention on another host"):
        port.prepare(some_plan(blocks))
    port.close()
    with pytest.raises(Lost, match="no attention worker at"):
        worker.remote_port(blocks)


def compute_for_ever(exchange: Exchange, q: torch.Tensor) -> None:
    for layer in cycle(range(NUM_LAYERS)):
        exchange.post(layer, q)
        exchange.collect(layer)


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_killed_while_it_computes_is_lost(
    worker: RemoteWorker, blocks: SharedBlocks, seed: int
) -> None:
    port = worker.remote_port(blocks)
    plan = drawn_plan(Random(seed), blocks.segments, 25)
    exchange = port.prepare(plan)
    killer = threading.Timer(0.05 + 0.02 * seed, worker.process.kill)
    killer.start()
    with pytest.raises(Lost, match="attention on another host"):
        compute_for_ever(exchange, blocks.queries(plan))
    killer.join()
    port.close()


def test_a_worker_that_is_stopped_is_lost_and_nothing_of_it_is_seen_again(
    worker: RemoteWorker, blocks: SharedBlocks
) -> None:
    rig_at(port := worker.remote_port(blocks), blocks).check(Random(0))
    port.close()
    old = worker.remote_port(blocks)
    old.timeout_s = 0.3
    plan = some_plan(blocks)
    exchange = old.prepare(plan)
    worker.stop()
    exchange.post(0, torch.full_like(blocks.queries(plan), 7.0))
    for _ in range(2):
        with pytest.raises(Lost, match="no answer in time"):
            exchange.collect(0)
    with pytest.raises(Lost, match="no answer in time"):
        worker.remote_port(blocks, timeout_s=0.1)
    worker.process.send_signal(signal.SIGCONT)
    new = worker.remote_port(blocks)
    rig = rig_at(new, blocks)
    rig.check_step(plan, [0, 0])
    old.close()
    for seed in range(3):
        rig.check(Random(seed))
    assert new.num_ignored == 0
    new.close()


def test_a_worker_that_ends_in_order_ends_its_streams(
    worker: RemoteWorker, blocks: SharedBlocks
) -> None:
    port = worker.remote_port(blocks)
    exchange = port.prepare(some_plan(blocks))
    assert worker.end() == 0
    with pytest.raises(Lost, match="attention on another host"):
        compute_for_ever(exchange, blocks.queries(some_plan(blocks)))
    port.close()
