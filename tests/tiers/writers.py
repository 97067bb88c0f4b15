"""Processes that write nodes until they are killed."""

from __future__ import annotations

from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from random import Random
from typing import Protocol

from cluster.engine.tiers.host_arena import HostArena
from cluster.ids import BlockId
from cluster.knowledge.commands import Delete, NodeRecord, Write
from tests.tiers.disks import SOON_S, new_disk
from tests.tiers.nodes import LAYOUT, record_of, write

# So many that some node is whole at any moment.
NUM_BLOCKS = 96
# After so many nodes a writer says that it is at work.
NUM_BEFORE_SIGN = 5


class Descriptor(Protocol):
    """How one crosses to another process."""

    def detach(self) -> int: ...


def crossing(fd: int) -> Descriptor:
    descriptor: Descriptor = DupFd(fd)
    return descriptor


def drawn(number: int) -> NodeRecord:
    """The node that a writer writes as its `number`th; the reader draws it again."""
    return record_of(f"node {number}", 1 + Random(number).randrange(80))


def fill_arena(descriptor: Descriptor, ready: Connection, seed: int) -> None:
    """Writes over what was there, at random, for ever."""
    random = Random(seed)
    arena = HostArena.attach(descriptor.detach(), LAYOUT)
    for number in count():
        record = drawn(number)
        size = -(-record.num_tokens // 16)
        write(arena, record, tuple(map(BlockId, random.sample(range(NUM_BLOCKS), size))))
        if number == NUM_BEFORE_SIGN:
            ready.send_bytes(b"!")


def fill_disk(root: Path, ready: Connection, seed: int) -> None:
    """Writes nodes and deletes some again, for ever."""
    random = Random(seed)
    with new_disk(root) as disk:
        for number in count():
            record = drawn(number)
            host = tuple(map(BlockId, range(-(-record.num_tokens // 16))))
            write(disk.arena, record, host)
            disk.store.submit([Write(record, host)])
            if random.random() < 0.3:
                disk.store.submit([Delete(drawn(random.randrange(number + 1)).key)])
            (done,) = disk.store.completed(SOON_S)
            assert done.is_good
            if number == NUM_BEFORE_SIGN:
                ready.send_bytes(b"!")
