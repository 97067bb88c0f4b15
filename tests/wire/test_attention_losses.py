"""The port to another host: who dies, who is late, and who answers what was not asked."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from cluster.errors import Lost
from cluster.kernels import kernels_available
from protos.thoth.v1 import attention_pb2 as pb
from tests.attention.shared_steps import NUM_LAYERS, SharedBlocks, assert_same_bits, drawn_plan
from tests.attention.workers import RemoteWorker, ended, wait_until
from tests.wire.attention_workers import (
    Twist,
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
def worker(tmp_path: Path) -> Iterator[RemoteWorker]:
    with ended(RemoteWorker(tmp_path / "door")) as made:
        yield made


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
    before = worker.num_descriptors
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
    # A client has more than that, and the transport a few that come and go.
    wait_until(lambda: worker.num_descriptors < before + 4)
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
