"""Engines with a knowledge cache; a block is poisoned as soon as nobody may read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cluster.attention.door import enter
from cluster.attention.fallback import FallbackPort
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.shared_memory import ChannelSizes
from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.clock import Clock, ManualClock
from cluster.engine.bench import Bench
from cluster.engine.engine import Engine, HostHands
from cluster.engine.forward import Computed, EagerForward, Forward, HostMemory, Model
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.shelves import DeviceMemory, Shelves, Shelving, open_arena, open_shelves
from cluster.engine.step import Step
from cluster.engine.tiers.copies import Copier, ThreadCopier
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout, kv_fingerprint
from cluster.ids import BlockId
from cluster.knowledge.cache import HostUse
from cluster.knowledge.commands import Move, PageIn, SwapIn
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.knowledge.prefill_cost import PrefillCost
from cluster.models.config import DecoderConfig
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload
from cluster.wire.attention_port import Source, connect
from tests.engines import Hands

# For an attention worker that lives and does not answer.
# A path on this host, or host:port of another.
Door = Path | str
TIMEOUT_S = 30.0


@dataclass
class Poison:
    """Blocks that were freed, and are filled with NaN in the next forward pass, unless a move has
    filled them since: a layer's as soon as they may be written. It stands at the copier's gate."""

    kv: KvCache
    copier: Copier
    freed: set[BlockId] = field(default_factory=set)
    spreading: Tensor | None = None
    # Layers in which it has been spread: of two sub-batches the second comes to each again.
    spread_in: set[int] = field(default_factory=set)

    def spread(self) -> None:
        self.spreading = torch.tensor(sorted(self.freed), dtype=torch.int64)
        self.freed.clear()
        self.spread_in.clear()

    def wait(self, layer: int, /) -> None:
        self.copier.wait(layer)
        if self.spreading is not None and layer not in self.spread_in:
            self.spread_in.add(layer)
            for blocks in (self.kv.k[layer], self.kv.v[layer]):
                blocks[self.spreading] = torch.nan


class PoisonedPool(BlockPool):
    def __init__(self, num_blocks: int, poison: Poison) -> None:
        super().__init__(num_blocks)
        self.poison = poison

    def release(self, blocks: Iterable[BlockId]) -> None:
        blocks = list(blocks)
        super().release(blocks)
        self.poison.freed |= set(blocks)


@dataclass
class PoisonedForward:
    forward: Forward
    poison: Poison

    def logits(self, step: Step, /) -> Tensor:
        return self.compute((step,)).logits

    def compute(self, steps: Sequence[Step], /) -> Computed:
        self.poison.spread()
        return self.forward.compute(steps)


@dataclass
class PoisonedHost:
    """What is swapped in is there to be read; what was swapped out may be poisoned after it."""

    host: HostHands
    poison: Poison

    def begin(self, moves: Sequence[Move], /) -> tuple[NodeKey, ...]:
        damaged = self.host.begin(moves)
        for move in moves:
            if isinstance(move, SwapIn | PageIn):
                self.poison.freed -= set(move.device)
        return damaged

    def finish(self) -> None:
        self.host.finish()

    def run(self, moves: Sequence[Move], /) -> tuple[NodeKey, ...]:
        damaged = self.begin(moves)
        self.finish()
        return damaged


@dataclass(frozen=True)
class KnownCosts(Bench):
    """Not measured, so that a test has one story: a token costs a second. Attending on the host
    beats loading for a few rows, and not for many."""

    def measure(self) -> PrefillCost:
        return PrefillCost((0, 4096), (1, 512), [[1.0, 512.0], [3.0, 1536.0]])

    def attend_block_s(self, num_host_blocks: int) -> float:
        return 0.1


@dataclass
class Rig:
    """An engine whose documents are kept, and what it stands on."""

    engine: Engine
    shelves: Shelves
    kv: KvCache
    # Who attends on the host, where there is one.
    port: FallbackPort | None

    @property
    def attending(self) -> FallbackPort:
        assert self.port is not None
        return self.port

    def close(self) -> None:
        if self.port is not None:
            self.port.close()
        self.shelves.close(self.engine.clock)


@dataclass(frozen=True)
class Tiers:
    """What is kept where, in blocks; 0: without that tier."""

    host_blocks: int = 0
    disk_blocks: int = 0
    policy: PolicyName = PolicyName.PGDSF
    placement: Placement = Placement.TREE
    admission: Admission = Admission.ALL
    host_use: HostUse = HostUse.LOAD
    kept_tokens: int = 0

    def shelving(self, stride_bytes: int, folder: Path) -> Shelving:
        tiers = [Tier.DEVICE]
        tiers += [Tier.HOST] if self.host_blocks else []
        tiers += [Tier.DISK] if self.disk_blocks else []
        return Shelving(
            tiers=tuple(tiers),
            policy=self.policy,
            placement=self.placement,
            admission=self.admission,
            host_use=self.host_use,
            host_bytes=self.host_blocks * stride_bytes,
            disk_bytes=self.disk_blocks * stride_bytes,
            kept_tokens=self.kept_tokens,
            disk_folder=folder,
        )


def beside_every_step() -> Copier:
    """However little there is to copy."""
    return ThreadCopier(least_bytes=0)


@dataclass(frozen=True)
class Build:
    """How to make a rig, again and again over the same folder."""

    config: DecoderConfig
    hands: Hands
    limits: IterationLimits
    num_blocks: int
    tiers: Tiers
    folder: Path
    # Where an attention worker is found; None: the host is attended in this process alone.
    door: Door | None = None
    copier: Callable[[], Copier] = beside_every_step
    # Where requests may decode; by default on the device alone.
    offload: Callable[[], Offload] = Offload

    def rig(
        self,
        model: Model | None = None,
        clock: Clock | None = None,
        left: Callable[[KvLayout], HostArena] | None = None,
    ) -> Rig:
        config = self.config
        shape = KvShape(
            config.num_layers, config.num_kv_heads, config.head_dim, self.hands.kv_dtype
        )
        kv = KvCache(shape, self.num_blocks)
        copier = self.copier()
        poison = Poison(kv, copier)
        clock = clock or ManualClock()
        layout = KvLayout(shape, kv_fingerprint("a model", str(self.hands), shape))
        shelving = self.tiers.shelving(layout.stride_bytes, self.folder)
        arena = left(layout) if left is not None else open_arena(shelving, layout)
        attention = self.hands.attention()
        port = None if arena is None else FallbackPort(LocalPort(attention, arena.k, arena.v))
        if port is not None and arena is not None and self.door is not None:
            port.attach(self.enter(self.door, arena))
        ports: dict[Home, AttentionPort] = {}
        host = None
        if arena is not None and port is not None:
            ports = {Home.HOST: port, Home.STREAMED: LocalPort(attention, arena.k, arena.v)}
            host = HostMemory(arena.k, arena.v, attention)
        model = model or self.hands.model(config)
        eager = EagerForward(model, kv, attention, ports, poison, host)
        forward = PoisonedForward(eager, poison)
        bench = KnownCosts(forward, self.num_blocks, config.max_position, 512, clock)
        shelves = open_shelves(
            shelving,
            DeviceMemory(PoisonedPool(self.num_blocks, poison), kv, layout, bench, 1, copier),
            arena,
            arena.scan() if left is not None and arena is not None else (),
        )
        engine = Engine(
            forward=forward,
            vocab_size=config.vocab_size,
            scheduler=IterationScheduler(self.limits, shelves.cache, self.offload()),
            clock=clock,
            host=shelves.host and PoisonedHost(shelves.host, poison),
            disk=shelves.disk,
        )
        return Rig(engine, shelves, kv, port)

    def enter(self, door: Door, arena: HostArena) -> AttentionPort:
        sizes = ChannelSizes(self.config.num_heads, self.config.head_dim)
        if isinstance(door, Path):
            return enter(door, sizes, arena.kv, arena.fd, timeout_s=TIMEOUT_S)
        source = Source(arena.kv, arena.memory, arena.generations)
        return connect(door, sizes, source, client="test", timeout_s=TIMEOUT_S)
