"""A disk store on a folder, and what is asked of it, for the tests of the tiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.engine.tiers.disk_store import DiskStore
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.knowledge.commands import DiskCommand, DiskDone, NodeRecord, Read, Write
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Blocks
from tests.tiers.nodes import LAYOUT, new_arena, write

# Longer than any disk takes: what waits so long has failed.
SOON_S = 60.0


@dataclass(frozen=True)
class Disk:
    """`notified` has an item for every call of `notify`."""

    root: Path
    store: DiskStore
    arena: HostArena
    notified: Sequence[None]

    def do(self, *commands: DiskCommand) -> list[bool]:
        """Whether each `Write` and `Read` was good."""
        self.store.submit(commands)
        keys = [c.record.key for c in commands if isinstance(c, Write | Read)]
        done: list[DiskDone] = []
        while len(done) < len(keys):
            ended = self.store.completed(SOON_S)
            assert ended, "the disk does not answer"
            done += ended
        assert [event.key for event in done] == keys
        return [event.is_good for event in done]

    def save(self, record: NodeRecord, host: Blocks) -> bool:
        """Fills host blocks with the node, writes it to disk, and clears them."""
        write(self.arena, record, host)
        (is_good,) = self.do(Write(record, host))
        self.arena.clear(host)
        return is_good

    def load(self, record: NodeRecord, host: Blocks) -> bool:
        (is_good,) = self.do(Read(record, host))
        return is_good

    def file(self, key: NodeKey) -> Path:
        return self.root / LAYOUT.fingerprint.hex() / key.hex()[:2] / f"{key.hex()}.kv"

    def files(self) -> list[Path]:
        """All but the lock."""
        return [p for p in self.root.rglob("*") if p.is_file() and p.name != "lock"]


@contextmanager
def new_disk(root: Path, num_blocks: int = 6, layout: KvLayout = LAYOUT) -> Iterator[Disk]:
    notified: list[None] = []
    with new_arena(num_blocks, layout) as arena:
        store = DiskStore(root, arena, lambda: notified.append(None))
        try:
            yield Disk(root, store, arena, notified)
        finally:
            store.close(SOON_S)
