"""One core as the device, its pool for keys and values capped, and another core as its host."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import save_file

from benchmarks.offload_host import Host, host_on, pinned
from benchmarks.offload_load import Load
from benchmarks.offload_play import Played, play
from benchmarks.rag_clock import SkippingClock
from benchmarks.result import CannotRun
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine
from cluster.engine.options import EngineOptions, WeightFormat
from cluster.engine.pauses import ShortPauses
from cluster.engine.shelves import Shelving
from cluster.kernels import kernels_available, why_not
from cluster.knowledge.node import Tier
from cluster.models.config import decoder_config
from cluster.models.decoder import random_tensors
from cluster.scheduling.offload import OffloadMode, OffloadOptions

SEED = 0
MOST_RUNNING = 32
# Of the form of SmolLM2-135M and an eighteenth of its size, so that a thousand runs come to an end.
# Its shape decides its speed; what it says is nonsense.
MODEL = MappingProxyType(
    {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 64,
        "vocab_size": 1024,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
)
VOCAB = 1024
_LAYERS, _WIDTH, _FLOAT32_BYTES = 4, 384, 4
BLOCK_BYTES = 2 * _LAYERS * _WIDTH * _FLOAT32_BYTES * BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Way:
    """How a load is served. `share` is the host's speed, 0 where none is asked; an uncapped pool
    holds everything."""

    mode: OffloadMode = OffloadMode.GPU_ONLY
    share: float = 0.0
    is_capped: bool = True
    threads: int = 1

    def __str__(self) -> str:
        if not self.is_capped:
            return "uncapped"
        return f"{self.mode}, 2 threads" if self.threads > 1 else self.mode.value


GPU_ONLY = Way()
UNCAPPED = Way(is_capped=False)
TWO_THREADS = Way(threads=2)


@dataclass(frozen=True, slots=True)
class Setup:
    """What engines are built for: weights, and tokens that a capped device has room for; 0: for
    everything. `most_tokens` are everything."""

    weights: WeightFormat
    cap_tokens: int
    most_tokens: int

    def blocks(self, way: Way) -> int:
        is_capped = way.is_capped and self.cap_tokens
        return (self.cap_tokens if is_capped else self.most_tokens) // BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Cores:
    device: int
    host: int


def two_cores() -> Cores:
    """Raises CannotRun where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CannotRun("a device and its host need a core each")
    return Cores(*cores[:2])


class Rig:
    """`folder` holds the model, and what engines remember of this machine."""

    def __init__(self, folder: Path, host: Host, cores: Cores) -> None:
        self._folder, self._host, self._cores = folder, host, cores
        self._clock = SkippingClock()
        self._engines: dict[Way, Engine] = {}

    @contextmanager
    def engines(self, setup: Setup, ways: Sequence[Way]) -> Iterator[None]:
        """One for each way, which learns as long as it is there."""
        pauses = ShortPauses()
        with ExitStack() as stack:
            for way in ways:
                self._engines[way] = self._assembled(setup, way, stack)
            pauses.begin()
            stack.callback(pauses.end)
            stack.callback(self._engines.clear)
            yield

    def _assembled(self, setup: Setup, way: Way, stack: ExitStack) -> Engine:
        options = engine_options(setup, way, self._folder)
        # Helpers stay on the core of whoever starts them.
        with pinned({self._cores.host if way.threads > 1 else self._cores.device}):
            assembled = assemble_engine(self._folder, options, self._clock)
        stack.callback(assembled.close, self._clock)
        engine = assembled.engine
        if way.share:
            if engine.attention is None:
                raise CannotRun("the host's memory cannot be had")
            self._host.attach(engine.attention, way.share)
        return engine

    def play(self, way: Way, load: Load) -> Played:
        torch.set_num_threads(way.threads)
        return play(self._engines[way], load.arrivals(), self._clock)


def engine_options(setup: Setup, way: Way, folder: Path) -> EngineOptions:
    """All have a host's memory, whether or not they use it."""
    shelving = Shelving(
        tiers=(Tier.DEVICE, Tier.HOST),
        host_bytes=setup.most_tokens // BLOCK_TOKENS * (BLOCK_BYTES + 4096),
        # Those who are compared believe the same, and all cases do not rest on one moment.
        notes=folder / f"notes-{setup.cap_tokens}",
    )
    return EngineOptions(
        weights=setup.weights,
        threads=way.threads,
        kv_blocks=setup.blocks(way),
        max_running=MOST_RUNNING,
        max_waiting=1024,
        shelving=shelving,
        offload=OffloadOptions(way.mode, host_share=1.0),
    )


@contextmanager
def rig(folder: Path, model: Mapping[str, object] = MODEL) -> Iterator[Rig]:
    """This process on one core, an attention worker on another. Raises CannotRun."""
    if not kernels_available():
        raise CannotRun(f"the kernels were not built: {why_not()}")
    cores, threads = two_cores(), torch.get_num_threads()
    write_model(folder, model)
    with host_on(cores.host) as host, pinned({cores.device}):
        try:
            yield Rig(folder, host, cores)
        finally:
            torch.set_num_threads(threads)


def write_model(folder: Path, raw: Mapping[str, object]) -> None:
    """As much of a model's folder as an engine reads."""
    (folder / "config.json").write_text(json.dumps(dict(raw)))
    tensors = random_tensors(decoder_config(dict(raw)), SEED)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
