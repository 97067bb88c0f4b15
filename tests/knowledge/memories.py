"""Memories whose blocks hold a token that says whose they are.

Moves and commands are done on them in their order, so that a block that was given out twice,
overwritten too early or read too late shows by what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.ids import BlockId
from cluster.knowledge.commands import (
    Clear,
    Delete,
    DiskCommand,
    DiskDone,
    Found,
    Move,
    NodeRecord,
    Read,
    SwapIn,
    SwapOut,
    Verify,
    Write,
)
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Blocks, Placement

# What a block holds: whose it is, and which of its blocks.
Content = tuple[bytes, int]
RUBBISH: Content = (b"rubbish", -1)


def content_of(key: bytes, num_blocks: int) -> list[Content]:
    return [(key, i) for i in range(num_blocks)]


@dataclass(slots=True)
class Memories:
    """`host_records` are what a scan of the host would find, `broken` its blocks that turned to
    rubbish. `commands` are not done yet, `answers` not told; `busy` are the blocks of both."""

    device: dict[BlockId, Content] = field(default_factory=dict)
    host: dict[BlockId, Content] = field(default_factory=dict)
    host_records: dict[Blocks, NodeRecord] = field(default_factory=dict)
    broken: set[BlockId] = field(default_factory=set)
    disk: dict[NodeKey, tuple[NodeRecord, list[Content]]] = field(default_factory=dict)
    commands: list[DiskCommand] = field(default_factory=list)
    answers: list[DiskDone] = field(default_factory=list)
    busy: dict[NodeKey, Blocks] = field(default_factory=dict)

    def do_move(self, move: Move, damaged: set[NodeKey]) -> None:
        match move:
            case SwapOut(record, device, host):
                self._write_host(host)
                content = [self.device[block] for block in device]
                assert record.key in damaged or content == content_of(record.key, len(device))
                self.host.update(zip(host, content, strict=True))
                self.host_records[host] = record
            case SwapIn(key, host, device):
                content = [self.host.get(block, RUBBISH) for block in host]
                if content != content_of(key, len(host)):
                    assert self.broken & set(host) or key in damaged
                    damaged.add(key)
                self.device.update(zip(device, content, strict=True))
            case Verify(key, host):
                if [self.host.get(block, RUBBISH) for block in host] != content_of(key, len(host)):
                    assert self.broken & set(host) or key in damaged
                    damaged.add(key)
            case Clear(host):
                self._write_host(host)

    def _write_host(self, blocks: Blocks) -> None:
        held = {block for busy in self.busy.values() for block in busy}
        assert not held & set(blocks), "a block that a disk's command still needs is overwritten"
        for others in [others for others in self.host_records if set(others) & set(blocks)]:
            del self.host_records[others]
        for block in blocks:
            self.host[block] = RUBBISH
            self.broken.discard(block)

    def take(self, command: DiskCommand) -> None:
        if not isinstance(command, Delete):
            assert command.record.key not in self.busy
            self.busy[command.record.key] = command.host
        self.commands.append(command)

    def do_command(self, pick: int, is_good: bool = True) -> None:
        """One of the disk's commands, in any order but for those of one node."""
        keys = [c.key if isinstance(c, Delete) else c.record.key for c in self.commands]
        first = [i for i, key in enumerate(keys) if key not in keys[:i]]
        if not first:
            return
        command = self.commands.pop(first[pick % len(first)])
        match command:
            case Delete(key):
                self.disk.pop(key, None)
            case Write(record, host):
                self._do_write(record, host, is_good)
            case Read(record, host):
                self._do_read(record, host, is_good)

    def _do_write(self, record: NodeRecord, host: Blocks, is_good: bool) -> None:
        content = [self.host[block] for block in host]
        if content != content_of(record.key, len(host)):
            assert self.broken & set(host)
            is_good = False
        if is_good:
            self.disk[record.key] = (record, content)
        self.answers.append(DiskDone(record.key, is_good))

    def _do_read(self, record: NodeRecord, host: Blocks, is_good: bool) -> None:
        known, content = self.disk[record.key]
        assert known == record
        self.host.update(zip(host, content if is_good else [RUBBISH] * len(host), strict=True))
        if is_good:
            self.host_records[host] = record
        self.answers.append(DiskDone(record.key, is_good))

    def answer(self, pick: int) -> DiskDone:
        event = self.answers.pop(pick % len(self.answers))
        del self.busy[event.key]
        return event

    def damage(self, pick: int) -> None:
        """A block of the host turns to rubbish."""
        blocks = [b for blocks in self.host_records for b in blocks]
        if blocks:
            block = blocks[pick % len(blocks)]
            self.host[block] = RUBBISH
            self.broken.add(block)

    def after_a_death(self, is_host_lost: bool) -> Memories:
        """What is left when the process dies: what is whole on the host, and on disk."""
        whole = {
            host: record
            for host, record in self.host_records.items()
            if [self.host[block] for block in host] == content_of(record.key, len(host))
        }
        if is_host_lost:
            return Memories(disk=self.disk)
        return Memories(host=self.host, host_records=whole, disk=self.disk)

    def scan(self) -> tuple[list[Found], list[Found]]:
        on_host = [Found(record, host) for host, record in self.host_records.items()]
        return on_host, [Found(record) for record, _ in self.disk.values()]


def reachable(
    on_host: list[Found], on_disk: list[Found], placement: Placement
) -> tuple[set[NodeKey], set[NodeKey]]:
    """The copies that may stay, found by going over all again until nothing changes."""
    host: set[NodeKey] = set()
    disk: set[NodeKey] = set()
    while True:
        size = len(host) + len(disk)
        for found in on_disk:
            if found.record.parent in disk | {ROOT}:
                disk.add(found.record.key)
        for found in on_host:
            above = host if placement is Placement.TREE else host | disk
            if found.record.parent in above | {ROOT}:
                host.add(found.record.key)
        if len(host) + len(disk) == size:
            return host, disk
