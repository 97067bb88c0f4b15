"""The knowledge cache of an engine with its hands: memory on the host, files on disk.

    device's blocks <--Mover--> HostArena <--DiskStore--> files

A host or a disk that cannot be had is done without, and said so: the service goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from cluster.blocks.pool import BLOCK_TOKENS, BlockPool
from cluster.clock import Clock
from cluster.engine.bench import Bench
from cluster.engine.kv_cache import KvCache
from cluster.engine.prefill_profile import prefill_cost
from cluster.engine.tiers.copies import Copier
from cluster.engine.tiers.disk_store import DiskStore
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.moves import Mover
from cluster.errors import Lost, Unavailable
from cluster.ids import BlockId
from cluster.knowledge.cache import CacheOptions, HostUse, KnowledgeCache, no_cache
from cluster.knowledge.commands import Clear, Found, NodeRecord, SwapIn, SwapOut
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Admission, Blocks, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.knowledge.prefill_cost import TransferCost
from cluster.request import SegmentSource

log = logging.getLogger(__name__)

# What a disk is taken to read in a second, before it was asked.
DISK_BYTES_PER_S = 500e6
# Writing down what is not on disk yet may take so long at a stop.
FLUSH_S = 20.0
_TRIAL_BLOCKS = 8
_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Shelving:
    """What a user chooses. Without tiers nothing is kept. `notes` is a folder for what was
    measured; `disk_folder` is needed for a disk tier."""

    tiers: tuple[Tier, ...] = ()
    policy: PolicyName = PolicyName.PGDSF
    placement: Placement = Placement.TREE
    admission: Admission = Admission.REUSED
    host_use: HostUse = HostUse.AUTO
    host_bytes: int = 2**30
    disk_bytes: int = 8 * 2**30
    kept_tokens: int = 0
    disk_folder: Path | None = None
    notes: Path | None = None


@dataclass(slots=True)
class Shelves:
    """The brain and its hands. They belong to the engine's thread."""

    cache: KnowledgeCache
    host: Mover | None = None
    disk: DiskStore | None = None
    arena: HostArena | None = None

    def close(self, clock: Clock) -> None:
        """Writes what is not on disk yet, the most valuable first, as far as the time goes."""
        if self.disk is not None:
            try:
                self._flush(clock, clock.now_s() + FLUSH_S)
            finally:
                self.disk.close()
            nodes = self.cache.tree.nodes.values()
            log.info("%d of %d documents are on disk", sum(n.on_disk for n in nodes), len(nodes))
        if self.host is not None:
            self.host.close()
            self.host = None
        if self.arena is not None:
            self.arena.close()

    def _flush(self, clock: Clock, deadline_s: float) -> None:
        for key in self.cache.unwritten():
            while (node := self.cache.find(key)) is not None and not node.on_disk:
                if clock.now_s() >= deadline_s or not self._write(key, clock):
                    return

    def _write(self, key: NodeKey, clock: Clock) -> bool:
        """Brings the node, or one above it, nearer to disk. False: that cannot be done."""
        if self.host is None or self.disk is None:
            return False
        node = self.cache.find(key)
        is_begun = node is not None and self.cache.disk.write(node)
        moves = self.cache.take_moves()
        self.host.run(moves)
        self.disk.submit(self.cache.take_disk_commands(clock.now_s()))
        done = self.disk.completed(_WAIT_S)
        for event in done:
            self.cache.disk_done(event, clock.now_s())
        has_progress = is_begun or bool(moves) or bool(done)
        return has_progress and all(event.is_good for event in done)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Where the engine computes: its blocks, what measuring it takes, and who copies beside it."""

    pool: BlockPool
    kv: KvCache
    layout: KvLayout
    bench: Bench
    num_threads: int
    copier: Copier | None = None

    @property
    def name(self) -> str:
        """Of what is measured here, when it is remembered."""
        return f"{self.layout.fingerprint.hex()}-{self.num_threads}"


def open_shelves(
    shelving: Shelving,
    device: DeviceMemory,
    arena: HostArena | None = None,
    on_host: Sequence[Found] = (),
) -> Shelves:
    """Builds the tiers, finds again what they hold, and measures what things cost: seconds.

    `arena` is the host's memory, which belongs to the shelves from now on; `on_host` is what a scan
    found in it, if another worker left it.
    """
    if not shelving.tiers:
        return Shelves(no_cache(device.pool))
    prefill = prefill_cost(device.bench, shelving.notes, device.name)
    mover = None if arena is None else Mover(device.kv, arena, device.copier)
    disk = None if arena is None else _open_disk(shelving, arena)
    stride = device.layout.stride_bytes
    options = CacheOptions(
        policy=shelving.policy,
        placement=shelving.placement,
        admission=shelving.admission,
        host_use=shelving.host_use,
        host_blocks=0 if arena is None else arena.num_blocks,
        disk_blocks=0 if disk is None else shelving.disk_bytes // stride,
        kept_blocks=shelving.kept_tokens // BLOCK_TOKENS,
    )
    disk_block_s = stride / DISK_BYTES_PER_S
    transfer = TransferCost(0.0, disk_block_s)
    if mover is not None:
        transfer = TransferCost(
            host_block_s=_host_block_s(mover, _free_blocks(options, on_host), device),
            disk_block_s=disk_block_s,
            attend_block_s=device.bench.attend_block_s(options.host_blocks),
        )
    fingerprint = device.layout.fingerprint
    cache = KnowledgeCache(options, fingerprint, device.pool, prefill, transfer)
    cache.restore(on_host, disk.scan() if disk is not None else ())
    log.info("%d documents found again", len(cache.tree.nodes))
    if mover is not None:
        mover.run(cache.take_moves())
    if disk is not None:
        disk.submit(cache.take_disk_commands(0.0))
    return Shelves(cache, mover, disk, arena)


def open_arena(shelving: Shelving, layout: KvLayout, kept: int | None = None) -> HostArena | None:
    """The host's memory; None where that tier is not wanted, or cannot be had.

    `kept` is the descriptor of one that another worker left: it is taken over if it is what would
    be made anew, and closed if not.
    """
    num_blocks = 0
    if Tier.HOST in shelving.tiers:
        num_blocks = shelving.host_bytes // layout.stride_bytes
        if not num_blocks:
            log.warning("cache.host_bytes %d hold no block: no host tier", shelving.host_bytes)
    if kept is not None and (arena := _taken_over(kept, layout, num_blocks)):
        return arena
    if not num_blocks:
        return None
    try:
        return HostArena.create(layout, num_blocks)
    except Unavailable as error:
        log.warning("no host tier: %s", error)
        return None


def _taken_over(kept: int, layout: KvLayout, num_blocks: int) -> HostArena | None:
    try:
        arena = HostArena.attach(kept, layout)
        if arena.num_blocks == num_blocks:
            return arena
        log.info("the host had %d blocks, and has %d now", arena.num_blocks, num_blocks)
        arena.close()
    except Lost as error:
        log.info("what was left on the host is not taken over: %s", error.message)
        os.close(kept)
    return None


def _open_disk(shelving: Shelving, arena: HostArena) -> DiskStore | None:
    if Tier.DISK not in shelving.tiers or shelving.disk_folder is None:
        return None
    try:
        return DiskStore(shelving.disk_folder, arena, notify=_nobody)
    except Unavailable as error:
        log.warning("no disk tier: %s", error)
        return None


def _nobody() -> None:
    """The engine asks by itself."""


def _free_blocks(options: CacheOptions, on_host: Sequence[Found]) -> Blocks:
    """Some that a trial may write."""
    held = {block for found in on_host for block in found.host}
    free = (BlockId(i) for i in range(options.host_blocks) if i not in held)
    return tuple(islice(free, _TRIAL_BLOCKS))


def _host_block_s(mover: Mover, host: Blocks, device: DeviceMemory) -> float:
    """Seconds to verify a block and bring it from the host to the device, measured."""
    count = min(len(host), device.pool.num_blocks)
    if not count:
        return 0.0
    host, blocks = host[:count], tuple(map(BlockId, range(count)))
    key = NodeKey(b"\xff" * len(ROOT))
    record = NodeRecord(key, ROOT, SegmentSource(), count * BLOCK_TOKENS)
    mover.run([SwapOut(record, blocks, host)])
    clock = device.bench.clock
    begun_s = clock.now_s()
    mover.run([SwapIn(key, host, blocks)])
    if device.kv.k[0].is_cuda:
        torch.cuda.synchronize()
    seconds = clock.now_s() - begun_s
    mover.run([Clear(host)])
    return seconds / count
