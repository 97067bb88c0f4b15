"""Promise (b) where a request's own keys and values change their memory: its logits have the same
bits wherever they lie, whoever attends them, and whatever is computed in turn with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster.attention.door import enter
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.shared_memory import ChannelSizes
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.blocks.segment import Home, SegmentView
from cluster.engine.forward import Computed, EagerForward, HostMemory
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.step import lay_out
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.moves import Mover
from cluster.errors import InvariantBroken
from cluster.ids import BlockId, RequestId
from cluster.knowledge.commands import PageIn, PageOut
from cluster.models.config import decoder_config
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk
from tests.attention.workers import PATIENCE_S, worker_at
from tests.engines import Hands, hands_of_every_backend
from tests.tiers.nodes import blocks
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())
NUM_BLOCKS = 8
# A request's blocks, and those of another beside it, in either memory.
OWN, OTHER = blocks(5, 1, 3), blocks(0, 6, 2)
IDS = tuple(range(3, 43))
CUTS = (0, 17, 29, 37, 38, 39, 40)
every_backend = pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)
Meet = Callable[[HostArena, Hands], AttentionPort]


def in_this_process(arena: HostArena, hands: Hands) -> AttentionPort:
    return LocalPort(hands.attention(), arena.k, arena.v)


@dataclass
class Memories:
    """A model over a device and a host, each full of NaN until something is written."""

    hands: Hands
    arena: HostArena
    port: AttentionPort

    def __post_init__(self) -> None:
        self.kv = KvCache(self.arena.layout.shape, NUM_BLOCKS)
        self.kv.poison(torch.arange(NUM_BLOCKS))
        for layer in (*self.arena.k, *self.arena.v):
            layer.fill_(torch.nan)
        backend = self.hands.attention()
        self.forward = EagerForward(
            self.hands.model(CONFIG),
            self.kv,
            backend,
            {
                Home.HOST: self.port,
                Home.STREAMED: LocalPort(backend, self.arena.k, self.arena.v),
            },
            host=HostMemory(self.arena.k, self.arena.v, backend),
        )
        self.mover = Mover(self.kv, self.arena)

    def compute(self, *batches: Sequence[Chunk]) -> Computed:
        return self.forward.compute([lay_out(batch) for batch in batches])

    def close(self) -> None:
        self.mover.close()
        self.port.close()
        self.arena.close()


def new_memories(hands: Hands, meet: Meet = in_this_process) -> Memories:
    shape = KvShape(CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim, hands.kv_dtype)
    arena = HostArena.create(KvLayout(shape, b"f" * 16), NUM_BLOCKS)
    return Memories(hands, arena, meet(arena, hands))


def chunk(number: int, home: Home, own: tuple[BlockId, ...] = OWN, more: int = 0) -> Chunk:
    """The tokens between two cuts; `more` makes them another request's."""
    start, end = CUTS[number], CUTS[number + 1]
    held = own[: -(-end // BLOCK_TOKENS)]
    segment = SegmentView(held, end, home)
    ids = tuple(id + more for id in IDS[start:end])
    return Chunk(RequestId(f"r{more}"), start, ids, (segment,), Sampling())


def homes_of(number: int) -> Home:
    """A prompt's chunk is streamed, and what follows it is attended on the host."""
    return Home.STREAMED if CUTS[number + 1] - CUTS[number] > 1 else Home.HOST


def alone_on_the_device(hands: Hands, own: tuple[BlockId, ...], more: int = 0) -> list[Tensor]:
    memories = new_memories(hands)
    found = [
        memories.compute([chunk(number, Home.DEVICE, own, more)]).logits[0]
        for number in range(len(CUTS) - 1)
    ]
    memories.close()
    return found


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert not any(row.isnan().any() for row in found)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@every_backend
def test_a_request_on_the_host_has_the_bits_that_it_has_on_the_device(hands: Hands) -> None:
    memories = new_memories(hands)
    found = [
        memories.compute([chunk(number, homes_of(number))]).logits[0]
        for number in range(len(CUTS) - 1)
    ]
    memories.close()
    assert_same(found, alone_on_the_device(hands, OWN))


@every_backend
def test_a_request_that_is_paged_out_and_in_between_its_steps_keeps_its_bits(hands: Hands) -> None:
    memories, found = new_memories(hands), []
    on_host = blocks(2, 4, 7)
    for number in range(len(CUTS) - 1):
        is_out = number % 2 == 1
        home, own = (homes_of(number), on_host) if is_out else (Home.DEVICE, OWN)
        found.append(memories.compute([chunk(number, home, own)]).logits[0])
        move = PageIn(on_host, OWN) if is_out else PageOut(OWN, on_host)
        assert memories.mover.run([move]) == ()
    memories.close()
    assert_same(found, alone_on_the_device(hands, OWN))


def check_turns(hands: Hands, meet: Meet) -> list[Computed]:
    """One request on the host and one on the device, whose chunks take turns."""
    memories = new_memories(hands, meet)
    own, other, computed = [], [], []
    for number in range(len(CUTS) - 1):
        first = [chunk(number, Home.DEVICE, OTHER, more=7)]
        second = [chunk(number, homes_of(number))]
        computed.append(memories.compute(first, second))
        other.append(computed[-1].logits[0])
        own.append(computed[-1].logits[1])
    memories.close()
    assert_same(own, alone_on_the_device(hands, OWN))
    assert_same(other, alone_on_the_device(hands, OTHER, more=7))
    return computed


@every_backend
def test_two_batches_in_turn_have_the_bits_of_each_alone(hands: Hands) -> None:
    computed = check_turns(hands, in_this_process)
    streamed, decoded = computed[0].times, computed[-1].times
    assert [times.host_s for times in streamed] == [0.0, 0.0]
    assert (decoded[0].host_s, decoded[0].waited_s) == (0.0, 0.0)
    assert 0.0 < decoded[1].host_s <= decoded[1].waited_s * 1.01 + 1e-4
    assert all(times.linear_s > 0.0 and times.device_s > 0.0 for times in (*streamed, *decoded))


@pytest.mark.parametrize("hands", [h for h in hands_of_every_backend() if h.is_fast], ids=str)
def test_a_worker_beside_two_batches_changes_no_bit(hands: Hands, tmp_path: Path) -> None:
    sizes = ChannelSizes(CONFIG.num_heads, CONFIG.head_dim)
    with worker_at(tmp_path / "door") as worker:

        def beside(arena: HostArena, _: Hands) -> AttentionPort:
            return enter(worker.path, sizes, arena.kv, arena.fd, timeout_s=PATIENCE_S)

        computed = check_turns(hands, beside)
    assert computed[-1].times[1].host_s > 0.0


def test_what_goes_to_the_host_needs_one() -> None:
    hands = hands_of_every_backend()[0]
    shape = KvShape(CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim)
    kv = KvCache(shape, NUM_BLOCKS)
    port = LocalPort(hands.attention(), kv.k, kv.v)
    forward = EagerForward(hands.model(CONFIG), kv, ports={Home.STREAMED: port})
    with pytest.raises(InvariantBroken):
        forward.compute([lay_out([chunk(0, Home.STREAMED)])])
