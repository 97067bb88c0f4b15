"""What comes to an attention worker from other hosts: checked before it is used, and given back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import lt
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import torch

from cluster.attention.native import NativeBackend
from cluster.attention.shared_kv import SharedKv
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.blocks.segment import Home, SegmentView
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from cluster.wire.attention import begin_to_pb, kv_to_pb, row_content, sizes_to_pb
from cluster.wire.attention_relay import channel_bytes
from cluster.wire.serving import MAX_MESSAGE_BYTES, MESSAGE_OPTIONS
from protos.thoth.v1 import attention_pb2 as pb
from protos.thoth.v1 import attention_pb2_grpc
from tests.attention.shared_steps import (
    HEAD_DIM,
    HEADS,
    NUM_LAYERS,
    Rig,
    SharedBlocks,
    drawn_plan,
    one_row,
)
from tests.attention.workers import PATIENCE_S, RemoteWorker, ended, source_of, wait_until

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")

SMALL = ChannelSizes(HEADS, HEAD_DIM, max_queries=64, max_parts=64, plan_numbers=4096)
ROW_BYTES = 4 * HEADS * HEAD_DIM
# Of the worker here; the honest neighbour needs less.
LIMIT_BYTES = 2**26
OPTIONS = [*MESSAGE_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


@pytest.fixture(scope="module")
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float32", native())
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteWorker]:
    path = tmp_path_factory.mktemp("worker") / "door"
    with ended(RemoteWorker(path, max_bytes=LIMIT_BYTES)) as made:
        yield made
        assert made.end() == 0


@pytest.fixture(scope="module")
def neighbour(worker: RemoteWorker, blocks: SharedBlocks) -> Iterator[Rig]:
    """An honest client, who is there all the time."""
    port = worker.remote_port(blocks)
    yield Rig(port, blocks, native())
    port.close()


Requests = list[pb.AttendRequest]


def opening(kv: SharedKv, sizes: ChannelSizes = SMALL) -> pb.AttendRequest:
    message = pb.OpenChannel(client="wrong", kv=kv_to_pb(kv), sizes=sizes_to_pb(sizes))
    return pb.AttendRequest(open=message)


def writing(blocks: SharedBlocks, ids: Sequence[int]) -> Requests:
    source = source_of(blocks)
    return [pb.AttendRequest(write=pb.WriteBlock(block=i, content=source.content(i))) for i in ids]


def beginning(plan: PartPlan, exchange: int = 1, **said: Any) -> pb.AttendRequest:
    message = begin_to_pb(exchange, plan)
    for name, value in said.items():
        setattr(message, name, value)
    return pb.AttendRequest(begin=message)


def posting(q: bytes, exchange: int = 1, layer: int = 0, first_query: int = 0) -> pb.AttendRequest:
    return pb.AttendRequest(
        post=pb.PostLayer(exchange=exchange, sequence=1, layer=layer, first_query=first_query, q=q)
    )


def int32(*numbers: int) -> bytes:
    return torch.tensor(numbers, dtype=torch.int32).numpy().tobytes()


def talked(address: str, requests: Requests) -> list[pb.AttendResponse]:
    """All that the worker answers, until it ends the stream."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        call = attention_pb2_grpc.AttentionServiceStub(channel).Attend(
            iter(requests), timeout=PATIENCE_S
        )
        answered: list[pb.AttendResponse] = []
        with suppress(grpc.RpcError):
            answered.extend(call)
        return answered


WRONG_KV: list[tuple[Callable[[SharedKv], SharedKv], str]] = [
    (lambda kv: replace(kv, dtype="int8"), "kv"),
    (lambda kv: replace(kv, num_bytes=2**50), "open.kv.num_bytes"),
    (lambda kv: replace(kv, num_bytes=2**47), "open.kv.num_bytes"),
    (lambda kv: replace(kv, num_bytes=0), "open.kv.num_bytes"),
    (lambda kv: replace(kv, num_bytes=kv.num_bytes - 1), "kv"),
    (lambda kv: replace(kv, num_blocks=2**40), "open.kv.num_blocks"),
    (lambda kv: replace(kv, num_blocks=kv.num_blocks + 1), "kv"),
    (lambda kv: replace(kv, num_blocks=0), "kv"),
    (lambda kv: replace(kv, stride=2**45), "open.kv.stride"),
    (lambda kv: replace(kv, stride=kv.stride // 2), "kv"),
    (lambda kv: replace(kv, starts=((0, 2**50),)), "open.kv.starts"),
    (lambda kv: replace(kv, starts=()), "kv"),
]


@pytest.mark.parametrize(("damage", "field"), WRONG_KV)
def test_blocks_that_cannot_be_are_refused(
    worker: RemoteWorker,
    neighbour: Rig,
    damage: Callable[[SharedKv], SharedKv],
    field: str,
) -> None:
    requests = [opening(damage(neighbour.blocks.kv))]
    (answer,) = talked(worker.address, requests)
    assert (answer.failed.reason, answer.failed.field) == ("INVALID_ARGUMENT", field)
    neighbour.check(Random(0), num_runs=1)


@pytest.mark.parametrize(
    ("name", "size", "reason", "said"),
    [
        ("lanes", 0, "INVALID_ARGUMENT", "lanes is 0"),
        ("lanes", 65, "INVALID_ARGUMENT", "lanes is 65"),
        ("max_parts", 2**31, "INVALID_ARGUMENT", "max_parts is 2147483648"),
        ("max_queries", 2**20, "TOO_LARGE", "a channel has"),
        ("heads", 7, "INVALID_ARGUMENT", "7 heads"),
    ],
)
def test_channels_that_cannot_be_are_refused(
    worker: RemoteWorker, neighbour: Rig, name: str, size: int, reason: str, said: str
) -> None:
    sizes = replace(SMALL, **{name: size})
    (answer,) = talked(worker.address, [opening(neighbour.blocks.kv, sizes)])
    assert answer.failed.reason == reason
    assert said in answer.failed.message
    assert answer.failed.field
    neighbour.check(Random(1), num_runs=1)


def test_the_first_request_and_no_other_opens_the_channel(
    worker: RemoteWorker, neighbour: Rig
) -> None:
    blocks = neighbour.blocks
    for first in (*writing(blocks, [0]), pb.AttendRequest()):
        (answer,) = talked(worker.address, [first])
        assert (answer.failed.reason, answer.failed.field) == ("INVALID_ARGUMENT", "open")
    for second in (opening(blocks.kv), pb.AttendRequest()):
        opened, answer = talked(worker.address, [opening(blocks.kv), second])
        assert opened.opened.max_bytes == LIMIT_BYTES
        assert answer.failed.reason == "INVALID_ARGUMENT"
    neighbour.check(Random(2), num_runs=1)


def test_a_block_has_its_place_and_its_size(worker: RemoteWorker, neighbour: Rig) -> None:
    blocks = neighbour.blocks
    (whole,) = writing(blocks, [0])
    content = whole.write.content
    for block, sent, field in (
        (blocks.kv.num_blocks, content, "write.block"),
        (2**64 - 1, content, "write.block"),
        (0, content[:-1], "write.content"),
        (0, content + b"x", "write.content"),
        (0, b"", "write.content"),
    ):
        wrong = pb.AttendRequest(write=pb.WriteBlock(block=block, content=sent))
        failed = talked(worker.address, [opening(blocks.kv), wrong])[-1].failed
        assert (failed.reason, failed.field) == ("INVALID_ARGUMENT", field)
        assert failed.limit
    neighbour.check(Random(3), num_runs=1)


def test_no_more_is_kept_than_the_limit(tmp_path: Path, blocks: SharedBlocks) -> None:
    """Blocks that are written again do not count again; of a channel nothing is taken yet."""
    one = blocks.kv.block_bytes(0)
    pages = -(-(one.stop - one.start) // 4096) + 1
    limit = max(channel_bytes(SMALL), 8 * 4096 * pages)
    with ended(RemoteWorker(tmp_path / "door", 1, limit)) as small:
        fitting = limit // (4096 * pages)
        ids = [*range(fitting), 0, 1, 2]
        assert len(talked(small.address, [opening(blocks.kv), *writing(blocks, ids)])) == 1
        many = writing(blocks, range(2 * fitting))
        opened, answer = talked(small.address, [opening(blocks.kv), *many])
    assert opened.HasField("opened")
    assert (answer.failed.reason, answer.failed.field) == ("TOO_LARGE", "write.block")
    assert answer.failed.limit == f"{limit} bytes"


def one_block_plan(block: int) -> PartPlan:
    return one_row(SegmentView((BlockId(block),), 3, Home.HOST))


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"num_queries": SMALL.max_queries + 1}, "begin.num_queries"),
        ({"num_queries": 2**32 - 1}, "begin.num_queries"),
        ({"num_queries": 0}, "begin"),
        ({"rows": b"123"}, "begin.rows"),
        ({"rows": int32(7)}, "begin"),
        ({"rows": int32(-1)}, "begin"),
        ({"rows": int32(*[0] * (SMALL.max_parts + 1))}, "begin"),
        ({"run_rows": int32(0)}, "begin.run_rows"),
        ({"run_rows": int32(0, 2**31 - 1)}, "begin"),
        ({"run_offsets": int32()}, "begin"),
        ({"run_offsets": int32(0, 2**31 - 1)}, "begin"),
        ({"run_segments": int32(1)}, "begin"),
        ({"segment_tokens": int32(17)}, "begin"),
        ({"segment_tokens": int32(-1)}, "begin"),
        ({"segment_offsets": int32(0, 2)}, "begin"),
        ({"segment_offsets": int32(1, 0)}, "begin"),
        ({"block_ids": int32(1)}, "begin.block_ids"),
        ({"block_ids": int32(-1)}, "begin.block_ids"),
        ({"block_ids": int32(2**31 - 1)}, "begin.block_ids"),
        ({"block_ids": int32(*[0] * SMALL.plan_numbers)}, "begin"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_it_is_attended(
    worker: RemoteWorker, neighbour: Rig, said: dict[str, Any], field: str
) -> None:
    blocks = neighbour.blocks
    requests = [opening(blocks.kv), *writing(blocks, [0])]
    right = beginning(one_block_plan(0))
    q = posting(bytes(ROW_BYTES))
    answer = talked(worker.address, [*requests, right, q])[-1]
    assert (len(answer.answer.o), len(answer.answer.lse)) == (ROW_BYTES, 4 * HEADS)
    wrong = beginning(one_block_plan(0), **said)
    failed = talked(worker.address, [*requests, wrong, q])[-1].failed
    assert (failed.reason, failed.field) == ("INVALID_ARGUMENT", field)
    neighbour.check(Random(4), num_runs=1)


def test_exchanges_and_their_queries_are_checked(worker: RemoteWorker, neighbour: Rig) -> None:
    blocks = neighbour.blocks
    plan = one_block_plan(0)
    q = row_content(blocks.queries(plan))
    begun = [opening(blocks.kv), *writing(blocks, [0]), beginning(plan, 1)]
    for wrong, field in (
        ([beginning(plan, 1)], "begin.exchange"),
        ([beginning(plan, 2), beginning(plan, 3)], "begin.exchange"),
        ([posting(q, exchange=2)], "post.exchange"),
        ([posting(q, layer=NUM_LAYERS)], "post.layer"),
        ([posting(q, first_query=1)], "post.first_query"),
        ([posting(q + q)], "post.q"),
        ([posting(q[:-1])], "post.q"),
        ([pb.AttendRequest(end=pb.EndExchange(exchange=2))], "end.exchange"),
        ([pb.AttendRequest(end=pb.EndExchange(exchange=1)), posting(q)], "post.exchange"),
    ):
        failed = talked(worker.address, [*begun, *wrong])[-1].failed
        assert (failed.reason, failed.field) == ("INVALID_ARGUMENT", field)
    neighbour.check(Random(5), num_runs=1)


def test_what_is_attended_and_what_was_never_written_is_not_forgotten(
    worker: RemoteWorker, neighbour: Rig
) -> None:
    blocks = neighbour.blocks
    plan = one_block_plan(0)
    q = posting(row_content(blocks.queries(plan)))
    done = pb.AttendRequest(end=pb.EndExchange(exchange=1))
    written = [opening(blocks.kv), *writing(blocks, [0, 1])]
    opened, answer = talked(worker.address, [*written, beginning(plan), q, done, forgetting(0)])
    assert opened.opened.page_bytes
    assert answer.HasField("answer")
    for wrong in (
        [forgetting(blocks.kv.num_blocks)],
        [forgetting(-1)],
        [forgetting(2)],
        [forgetting(1), forgetting(1)],
        [beginning(plan), forgetting(1, 0)],
        [pb.AttendRequest(forget=pb.ForgetBlocks(blocks=b"123"))],
    ):
        failed = talked(worker.address, [*written, *wrong])[-1].failed
        assert (failed.reason, failed.field) == ("INVALID_ARGUMENT", "forget.blocks")
    failed = talked(worker.address, [*written, forgetting(0), beginning(plan)])[-1].failed
    assert (failed.reason, failed.field) == ("INVALID_ARGUMENT", "begin.block_ids")
    neighbour.check(Random(10), num_runs=1)


def forgetting(*blocks: int) -> pb.AttendRequest:
    return pb.AttendRequest(forget=pb.ForgetBlocks(blocks=int32(*blocks)))


def test_a_message_that_is_too_long_ends_the_stream_alone(
    worker: RemoteWorker, neighbour: Rig
) -> None:
    long = pb.AttendRequest(write=pb.WriteBlock(content=bytes(MAX_MESSAGE_BYTES)))
    requests = iter([opening(neighbour.blocks.kv), long])
    with grpc.insecure_channel(worker.address, options=UNLIMITED) as channel:
        call = attention_pb2_grpc.AttentionServiceStub(channel).Attend(requests)
        with pytest.raises(grpc.RpcError) as broken:
            list(call)
    assert broken.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    neighbour.check(Random(6), num_runs=1)


NUM_ROUNDS = 20


def copies(worker: RemoteWorker) -> int:
    """Mappings of copies of blocks: one that is read, and one in which room is made."""
    maps = Path("/proc", str(worker.process.pid), "maps").read_text()
    return maps.count("memfd:thoth-kv-copy")


def held(worker: RemoteWorker) -> list[int]:
    """Descriptors of both sides and the worker's threads. The transport has some of its own, which
    come and go, but never one for each client that was there."""
    threads = Path("/proc", str(worker.process.pid), "task")
    return [worker.num_descriptors, len(os.listdir(threads)), len(os.listdir("/proc/self/fd"))]


def abandoned(address: str, requests: Requests) -> None:
    """Goes away while answers are on their way to it, and reads none."""
    channel = grpc.insecure_channel(address, options=OPTIONS)
    call = attention_pb2_grpc.AttentionServiceStub(channel).Attend(iter(requests))
    next(iter(call))
    call.cancel()
    channel.close()


def test_nothing_is_left_of_clients_however_they_go(worker: RemoteWorker, neighbour: Rig) -> None:
    blocks = neighbour.blocks
    plan = drawn_plan(Random(7), blocks.segments, 2)
    needed = sorted(set(plan.attention.block_ids.tolist()))
    q = row_content(blocks.queries(plan))
    sizes = replace(SMALL, max_queries=2048, max_parts=2048)
    hasty = [opening(blocks.kv, sizes), *writing(blocks, needed), beginning(plan)]
    hasty += [posting(q, layer=i % NUM_LAYERS) for i in range(50)]
    worker.remote_port(blocks).close()
    abandoned(worker.address, hasty)
    neighbour.check(Random(8))
    wait_until(lambda: copies(worker) == 2)
    most = [number + NUM_ROUNDS for number in held(worker)]
    for seed in range(NUM_ROUNDS):
        port = worker.remote_port(blocks)
        if seed % 4:
            Rig(port, blocks, native()).check(Random(seed))
        else:
            exchange = port.prepare(plan)
            exchange.post(0, blocks.queries(plan))
        port.close()
        abandoned(worker.address, hasty)
        talked(worker.address, [opening(blocks.kv), pb.AttendRequest()])
    wait_until(lambda: copies(worker) == 2)
    wait_until(lambda: all(map(lt, held(worker), most)))
    neighbour.check(Random(9))
