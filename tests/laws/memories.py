"""The laws of `swap` and `copies` and the moves between the device's blocks and the host's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from cluster.engine.kv_cache import KvCache
from cluster.engine.tiers.copies import Copies, Rows
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.moves import Mover
from cluster.ids import BlockId
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.node import Admission, Blocks, Node
from tests.knowledge.caches import cache_of, compute
from tests.laws.cases import Case
from tests.tiers.nodes import TINY, bits, new_arena, random_cache

# The bits of a node's keys and values on the device and on the host.
Held = tuple[bytes | None, bytes | None]
NUM_BLOCKS = 24


@dataclass
class Memories:
    """Documents of a block or two in both memories; what leaves a block leaves rubbish in it."""

    cache: KnowledgeCache
    device: KvCache
    arena: HostArena
    mover: Mover
    nodes: list[Node]

    def swap_out(self) -> None:
        for node in self.nodes:
            if node.device:
                left = node.device
                assert self.cache.device.evict(node)
                self._move()
                for layer in (*self.device.k, *self.device.v):
                    layer[list(left)] = torch.nan

    def swap_in(self) -> None:
        for node in self.nodes:
            if not node.device:
                self.cache.pin(node)
                self.cache.load(node)
                self._move()
                self.cache.unpin([node])

    def _move(self) -> None:
        assert self.mover.run(self.cache.take_moves()) == ()
        self.cache.check()

    @property
    def copies(self) -> tuple[Held, ...]:
        device = [*self.device.k, *self.device.v]
        host = [*self.arena.k, *self.arena.v]
        return tuple((_content(device, n.device), _content(host, n.host)) for n in self.nodes)

    @property
    def on_device(self) -> tuple[bytes, ...]:
        return tuple(content for content, _ in self.copies if content is not None)

    @property
    def is_faithful(self) -> bool:
        return all(one is None or other is None or one == other for one, other in self.copies)


def _content(layers: Sequence[Tensor], blocks: Blocks) -> bytes | None:
    if not blocks:
        return None
    return b"".join(bits(layer[list(blocks)]).numpy().tobytes() for layer in layers)


@contextmanager
def draw_memories(data: st.DataObject, where: str = "dbh") -> Iterator[Memories]:
    """Each document on the device, in both memories or on the host."""
    cache = cache_of(NUM_BLOCKS, host_blocks=NUM_BLOCKS, admission=Admission.ALL)
    device = random_cache(TINY, NUM_BLOCKS, data.draw(st.integers(0, 99)))
    places = data.draw(st.lists(st.sampled_from(where), max_size=5))
    with new_arena(NUM_BLOCKS) as arena:
        mover = Mover(device, arena)
        memories = Memories(cache, device, arena, mover, [])
        for number, place in enumerate(places):
            node = compute(cache, f"d{number}", num_blocks=1 + number % 2)
            one = Memories(cache, device, arena, mover, [node])
            if place != "d":
                one.swap_out()
            if place == "b":
                one.swap_in()
            memories.nodes.append(node)
        yield memories
        mover.close()


def restored(data: st.DataObject) -> Case:
    with draw_memories(data, "db") as memories:
        values, before = {"ns": memories.copies}, memories.on_device
        memories.swap_out()
        assert not memories.on_device
        memories.swap_in()
        return Case(values, memories.on_device, before)


def faithful_out(data: st.DataObject) -> Case:
    with draw_memories(data) as memories:
        values = {"ns": memories.copies}
        memories.swap_out()
        return Case(values, memories.is_faithful, True)


def faithful_again(data: st.DataObject) -> Case:
    with draw_memories(data) as memories:
        values = {"ns": memories.copies}
        memories.swap_out()
        memories.swap_in()
        return Case(values, memories.is_faithful, True)


def copied_once(data: st.DataObject) -> Case:
    with draw_memories(data) as memories:
        values = {"ns": memories.copies}
        memories.swap_out()
        once = memories.copies
        memories.swap_in()
        memories.swap_out()
        return Case(values, memories.copies, once)


# copies: a memory is pairs of a block and its content


Writes = tuple[tuple[int, int], ...]
Move = tuple[Blocks, Blocks]
NO_ROWS = Rows.of([])
RUBBISH = {"rubbish": lambda: -1}


def copied(moves: Sequence[Move], source: Writes, target: Writes, is_out: bool) -> Writes:
    """The target, after copies that go together, out of the device or into it."""
    one, other = (torch.tensor([[x] for _, x in memory]) for memory in (source, target))
    rows = Rows.of(moves)
    if is_out:
        Copies([[(one, other)]], rows, NO_ROWS).copy_all()
    else:
        Copies([[(other, one)]], NO_ROWS, rows).copy_all()
    return tuple(enumerate(other.flatten().tolist()))


def same_memory(one: Writes, other: Writes) -> bool:
    """The last write of a block comes first."""
    return dict(reversed(one)) == dict(reversed(other))


def draw_blocks(data: st.DataObject, count: int) -> Blocks:
    numbers = data.draw(st.permutations(range(9)))
    return tuple(map(BlockId, numbers[:count]))


def untouched(data: st.DataObject) -> Case:
    count, is_out = data.draw(st.integers(0, 8)), data.draw(st.booleans())
    sources = draw_blocks(data, count)
    *targets, b = draw_blocks(data, count + 1)
    source, target = tuple(enumerate(range(10, 19))), tuple(enumerate(range(20, 29)))
    after = copied([(sources, tuple(targets))], source, target, is_out)
    values = {"b": b, "as": sources, "bs": targets, "from": source, "to": target}
    return Case(values, dict(after)[b], dict(target)[b], RUBBISH)


def together(data: st.DataObject) -> Case:
    count, is_out = data.draw(st.integers(0, 9)), data.draw(st.booleans())
    sources, targets = draw_blocks(data, count), draw_blocks(data, count)
    cut = data.draw(st.integers(0, count))
    first, then = (sources[:cut], targets[:cut]), (sources[cut:], targets[cut:])
    source, target = tuple(enumerate(range(10, 19))), tuple(enumerate(range(20, 29)))
    left = copied([first, then], source, target, is_out)
    right = copied([first], source, copied([then], source, target, is_out), is_out)
    values = dict(zip(("as", "bs", "cs", "ds"), (*first, *then), strict=True))
    return Case({**values, "from": source, "to": target}, left, right, RUBBISH, same_memory)
