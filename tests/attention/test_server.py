"""The server's own words: what it counts, and that what was removed is left alone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from cluster.attention.native import NativeBackend
from cluster.attention.server import AttentionServer
from cluster.attention.shared_memory import SharedMemoryPort
from cluster.errors import InvalidArgument, InvariantBroken, Lost, Unavailable
from cluster.kernels import kernels, kernels_available
from tests.attention.shared_steps import NUM_LAYERS, SIZES, Rig, SharedBlocks, drawn_plan

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A port that nobody serves yet."""
    backend = NativeBackend(kernels().Threads(1))
    blocks = SharedBlocks("float16", backend)
    ours, theirs = socket.socketpair()
    me = os.pidfd_open(os.getpid())
    port = SharedMemoryPort(SIZES, me, ours, timeout_s=60.0)
    os.close(me)
    yield Rig(port, blocks, backend)
    port.close()
    theirs.close()
    blocks.close()


@pytest.fixture
def server() -> Iterator[AttentionServer]:
    made = AttentionServer(2)
    yield made
    made.close()


def shared(rig: Rig) -> SharedMemoryPort:
    assert isinstance(rig.port, SharedMemoryPort)
    return rig.port


def test_steps_layers_and_parts_are_counted(rig: Rig, server: AttentionServer) -> None:
    server.add(shared(rig).ends, rig.blocks.k, rig.blocks.v)
    plan = drawn_plan(Random(0), rig.blocks.segments, 4)
    for _ in range(2):
        rig.check_step(plan, list(range(NUM_LAYERS)))
    counts = server.counts
    assert (counts.steps, counts.layers, counts.errors) == (2, 2 * NUM_LAYERS, 0)
    assert counts.parts == 2 * NUM_LAYERS * plan.num_parts
    assert counts.busy_s > 0.0


def test_what_was_posted_before_it_was_served_is_answered(
    rig: Rig, server: AttentionServer
) -> None:
    plan = drawn_plan(Random(1), rig.blocks.segments, 2)
    exchange = shared(rig).prepare(plan)
    q = rig.blocks.queries(plan)
    exchange.post(0, q)
    server.add(shared(rig).ends, rig.blocks.k, rig.blocks.v)
    assert exchange.collect(0).o.equal(rig.expected(plan, 0, q).o)


def test_a_channel_that_was_removed_is_left_alone(rig: Rig, server: AttentionServer) -> None:
    port = shared(rig)
    number = server.add(port.ends, rig.blocks.k, rig.blocks.v)
    rig.check(Random(2))
    server.remove(number)
    with pytest.raises(InvariantBroken, match=f"no channel {number}"):
        server.remove(number)
    port.timeout_s = 0.1
    with pytest.raises(Lost, match="no answer in time"):
        rig.check(Random(2))
    assert server.counts.errors == 0


def test_what_cannot_be_served_is_refused(rig: Rig, server: AttentionServer) -> None:
    ends, k, v = shared(rig).ends, rig.blocks.k, rig.blocks.v
    with pytest.raises(InvalidArgument, match="as many layers of k as of v"):
        server.add(ends, k, v[:1])
    with pytest.raises(InvalidArgument, match="no layer"):
        server.add(ends, [], [])
    with pytest.raises(InvalidArgument, match="v_cache is"):
        server.add(ends, k, k)
    with pytest.raises(InvalidArgument, match="lanes is 65"):
        server.add(replace(ends, sizes=replace(ends.sizes, lanes=65)), k, v)
    with pytest.raises(Unavailable, match="Bad file descriptor"):
        server.add(replace(ends, work_bell=10**6), k, v)
