"""Engines of seeded random weights over every backend that this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.native import NativeBackend
from cluster.attention.reference import ReferenceBackend
from cluster.blocks.pool import BlockPool
from cluster.clock import Clock, ManualClock
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward, Model
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from cluster.knowledge.cache import no_cache
from cluster.models.config import DecoderConfig
from cluster.models.decoder import Decoder, Pass, random_decoder
from cluster.models.native import NativeDecoder, Precision
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits

if TYPE_CHECKING:
    import thoth_kernels


@dataclass
class Recorder:
    """The model, keeping the logits of every output row in order."""

    model: Model
    rows: list[Tensor] = field(default_factory=list)

    def begin(self, token_ids: Tensor, positions: Tensor, /) -> RecordedPass:
        return RecordedPass(self.model.begin(token_ids, positions), self.rows)


@dataclass
class PassedOn:
    """A pass like the inner one, for those that only look at some of it."""

    inner: Pass

    @property
    def num_layers(self) -> int:
        return self.inner.num_layers

    def project(self, layer: int, /) -> tuple[Tensor, Tensor, Tensor]:
        return self.inner.project(layer)

    def finish(self, layer: int, o: Tensor, /) -> None:
        self.inner.finish(layer, o)

    def logits(self, output_rows: Tensor, /) -> Tensor:
        return self.inner.logits(output_rows)


@dataclass
class RecordedPass(PassedOn):
    rows: list[Tensor]

    def logits(self, output_rows: Tensor, /) -> Tensor:
        logits = self.inner.logits(output_rows)
        self.rows.extend(logits)
        return logits


class PoisonedPool(BlockPool):
    """Fills every block that comes back with NaN: whoever still reads it shows."""

    def __init__(self, num_blocks: int, cache: KvCache) -> None:
        super().__init__(num_blocks)
        self.cache = cache

    def release(self, blocks: Sequence[BlockId]) -> None:  # type: ignore[override]
        super().release(blocks)
        self.cache.poison(torch.tensor(blocks, dtype=torch.int64))


@dataclass(frozen=True, slots=True)
class Hands:
    """What attends and multiplies: torch, or the kernels with weights of a precision."""

    precision: str
    threads: int = 1
    kv_dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        kv = str(self.kv_dtype).removeprefix("torch.")
        return f"{self.precision}-{kv}-{self.threads}"

    @property
    def is_fast(self) -> bool:
        return self.precision != "torch"

    def model(self, config: DecoderConfig, seed: int = 5) -> Model:
        return _model(config, seed, self.precision, self.threads)

    def attention(self) -> AttentionBackend:
        if self.precision == "torch":
            return ReferenceBackend()
        return NativeBackend(_threads(self.threads))

    def engine(
        self,
        config: DecoderConfig,
        limits: IterationLimits,
        num_blocks: int,
        clock: Clock | None = None,
        model: Model | None = None,
    ) -> Engine:
        """Blocks that come back are poisoned."""
        shape = KvShape(config.num_layers, config.num_kv_heads, config.head_dim, self.kv_dtype)
        cache = KvCache(shape, num_blocks)
        return Engine(
            forward=EagerForward(model or self.model(config), cache, self.attention()),
            vocab_size=config.vocab_size,
            scheduler=IterationScheduler(limits, no_cache(PoisonedPool(num_blocks, cache))),
            clock=clock or ManualClock(),
        )


TORCH = Hands("torch")


def hands_of_every_backend() -> list[Hands]:
    """Torch, and where they were built the kernels in each precision."""
    if not kernels_available():
        return [TORCH]
    return [TORCH, Hands("float32"), Hands("int8", kv_dtype=torch.float16)]


@cache
def _threads(count: int) -> thoth_kernels.Threads:
    threads: thoth_kernels.Threads = kernels().Threads(count)
    return threads


@cache
def _model(config: DecoderConfig, seed: int, precision: str, threads: int) -> Model:
    decoder: Decoder = random_decoder(config, seed)
    if precision == "torch":
        return decoder
    return NativeDecoder(config, decoder.weights, _threads(threads), Precision(precision))
