"""From a model folder and a handful of choices to an engine that runs.

    device  backend    attention          decoder            weights
    cpu     native     thoth_kernels      thoth_kernels      float32, int8
    cpu     torch      torch reference    torch              float32
    cuda    native     Triton             torch              float32, float16, bfloat16
    cuda    torch      torch reference    torch              float32, float16, bfloat16

Sums are float32 everywhere.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from cluster.attention.fallback import FallbackPort
from cluster.attention.native import NativeBackend
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.shared_memory import MAX_ROW_NUMBERS, ChannelSizes
from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.clock import Clock
from cluster.engine.device import open_device
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward, Elsewhere, Forward, HostMemory, OpenGate
from cluster.engine.host_attention import HostAttention
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.prefill_profile import Bench
from cluster.engine.shelves import DeviceMemory, Shelves, Shelving, open_arena, open_shelves
from cluster.engine.tiers.copies import Copier, ThreadCopier
from cluster.engine.tiers.cuda_copies import CudaCopier
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout, kv_fingerprint
from cluster.errors import Unsupported
from cluster.kernels import kernels, kernels_available
from cluster.models.config import DecoderConfig
from cluster.models.decoder import Decoder
from cluster.models.determinism import row_multiple_for
from cluster.models.folder import load_decoder
from cluster.models.native import NativeDecoder, Precision
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits

log = logging.getLogger(__name__)


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Backend(StrEnum):
    """AUTO is NATIVE where that can be, TORCH elsewhere."""

    AUTO = "auto"
    NATIVE = "native"
    TORCH = "torch"


class WeightFormat(StrEnum):
    """AUTO is the fastest that device and backend offer and that keeps perplexity: the first of
    their row in `_WEIGHTS`."""

    AUTO = "auto"
    FLOAT32 = "float32"
    INT8 = "int8"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class KvFormat(StrEnum):
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

CPU_BLOCKS = 2048

# What each device and backend can multiply with.
_WEIGHTS = {
    (Device.CPU, Backend.NATIVE): (WeightFormat.INT8, WeightFormat.FLOAT32),
    (Device.CPU, Backend.TORCH): (WeightFormat.FLOAT32,),
    (Device.CUDA, Backend.NATIVE): (
        WeightFormat.BFLOAT16,
        WeightFormat.FLOAT16,
        WeightFormat.FLOAT32,
    ),
    (Device.CUDA, Backend.TORCH): (
        WeightFormat.BFLOAT16,
        WeightFormat.FLOAT16,
        WeightFormat.FLOAT32,
    ),
}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a user chooses. `threads` are for the cpu; `kv_blocks` None is 2,048 on the cpu and what
    fits on cuda; `context_tokens` None is what the model was trained for. `deterministic` pads the
    rows of torch's products on the cpu, whose bits else depend on the batch: the native ones never
    do. `shelving` says where documents' keys and values are kept; by default nowhere."""

    device: Device = Device.CPU
    backend: Backend = Backend.AUTO
    weights: WeightFormat = WeightFormat.AUTO
    kv: KvFormat = KvFormat.FLOAT32
    threads: int = 1
    deterministic: bool = True
    kv_blocks: int | None = None
    step_tokens: int = 512
    max_running: int = 32
    max_waiting: int = 128
    context_tokens: int | None = None
    shelving: Shelving = field(default_factory=Shelving)


@dataclass(frozen=True, slots=True)
class Assembled:
    """`backend` says in words what computes: for logs, metrics and `thoth doctor`. Whoever ends the
    engine closes this after the last step."""

    engine: Engine
    shelves: Shelves
    backend: str
    context_tokens: int
    block_bytes: int

    def close(self, clock: Clock) -> None:
        """Writes what is not on disk yet, and gives everything back."""
        if self.engine.attention is not None:
            self.engine.attention.close()
        self.shelves.close(clock)


def assemble_engine(
    folder: Path,
    options: EngineOptions,
    clock: Clock,
    model_digest: str = "",
    kept: int | None = None,
) -> Assembled:
    """Loads the weights: seconds. `model_digest` tells what is kept on disk for this model; `kept`
    is the descriptor of a host's memory that another process left.

    Raises Refused for a model or choices that cannot be served.
    """
    options = resolved(options)
    torch.set_num_threads(options.threads)
    device = open_device(options.device)
    decoder = load_decoder(folder, device, _DTYPES.get(options.weights, torch.float32))
    config = decoder.config
    context_tokens = min(options.context_tokens or config.max_position, config.max_position)
    limits = IterationLimits(
        step_tokens=options.step_tokens,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
        context_tokens=context_tokens,
    )
    num_blocks = _num_blocks(options, decoder)
    shape = kv_shape(config, options.kv)
    layout = KvLayout(shape, kv_fingerprint(model_digest, computed_by(options), shape))
    cpu = _cpu_attention(options)
    arena = open_arena(options.shelving, layout, kept)
    port = None if arena is None else FallbackPort(LocalPort(cpu, arena.k, arena.v))
    ports: dict[Home, AttentionPort] = {}
    host = None
    if arena is not None and port is not None:
        ports = {Home.HOST: port, Home.STREAMED: LocalPort(cpu, arena.k, arena.v)}
        host = HostMemory(arena.k, arena.v, cpu)
    copier = None if arena is None else _copier(device, arena)
    memory = _Memory(num_blocks, shape, cpu, Elsewhere(ports, copier or OpenGate(), host))
    forward, kv = _forward(options, decoder, memory, limits)
    said = describe(options)
    log.info("computing with %s, %d KV blocks", said, num_blocks)
    shelves = open_shelves(
        options.shelving,
        DeviceMemory(
            pool=BlockPool(num_blocks),
            kv=kv,
            layout=layout,
            bench=Bench(forward, num_blocks, context_tokens, options.step_tokens, clock),
            num_threads=options.threads,
            copier=copier,
        ),
        arena,
        () if arena is None or kept is None else arena.scan(),
    )
    attention = None
    if port is not None and arena is not None and isinstance(cpu, NativeBackend):
        sizes = _channel_sizes(config, options)
        own_block_s = shelves.cache.transfer.attend_block_s
        attention = HostAttention(port, arena, sizes, clock, own_block_s)
    engine = Engine(
        forward=forward,
        vocab_size=config.vocab_size,
        scheduler=IterationScheduler(limits, shelves.cache),
        clock=clock,
        host=shelves.host,
        disk=shelves.disk,
        attention=attention,
    )
    return Assembled(engine, shelves, said, context_tokens, kv.shape.block_bytes)


def _channel_sizes(config: DecoderConfig, options: EngineOptions) -> ChannelSizes:
    """Steps that need more than this do without a worker."""
    most = MAX_ROW_NUMBERS // (config.num_heads * config.head_dim)
    rows = min(options.step_tokens, most)
    parts = min(16 * options.step_tokens, most)
    return ChannelSizes(config.num_heads, config.head_dim, max_queries=rows, max_parts=parts)


def _num_blocks(options: EngineOptions, decoder: Decoder) -> int:
    if options.kv_blocks is not None:
        return options.kv_blocks
    if options.device is Device.CPU:
        return CPU_BLOCKS
    device = decoder.weights.embedding.device
    shape = kv_shape(decoder.config, options.kv)
    blocks: int = cuda().fitting_blocks(decoder, shape, device, options.step_tokens)
    return blocks


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the device is to hold, and what lies elsewhere; `cpu` attends here."""

    num_blocks: int
    shape: KvShape
    cpu: NativeBackend | ReferenceBackend
    elsewhere: Elsewhere


def _copier(device: torch.device, arena: HostArena) -> Copier:
    return CudaCopier(device, arena) if device.type == "cuda" else ThreadCopier()


def _cpu_attention(options: EngineOptions) -> NativeBackend | ReferenceBackend:
    """The device's own on the cpu, so that a host's states have its bits."""
    is_native = options.backend is Backend.NATIVE
    if is_native and (options.device is Device.CPU or kernels_available()):
        return NativeBackend(kernels().Threads(options.threads))
    return ReferenceBackend()


def _forward(
    options: EngineOptions, decoder: Decoder, memory: _Memory, limits: IterationLimits
) -> tuple[Forward, KvCache]:
    shape, num_blocks = memory.shape, memory.num_blocks
    if options.device is Device.CUDA and options.backend is Backend.NATIVE:
        graphed: tuple[Forward, KvCache] = cuda().graphed_forward(
            decoder, shape, num_blocks, limits, memory.elsewhere
        )
        return graphed
    cache = KvCache(shape, num_blocks, decoder.weights.embedding.device)
    return _eager(options, decoder, cache, memory), cache


def _eager(options: EngineOptions, decoder: Decoder, cache: KvCache, memory: _Memory) -> Forward:
    cpu, elsewhere = memory.cpu, memory.elsewhere
    ports, gate, host = elsewhere.ports, elsewhere.gate, elsewhere.host
    if options.device is Device.CUDA:
        return EagerForward(decoder, cache, ReferenceBackend(options.device), ports, gate, host)
    if isinstance(cpu, NativeBackend):
        precision = Precision(options.weights.value)
        native = NativeDecoder(decoder.config, decoder.weights, cpu.threads, precision)
        return EagerForward(native, cache, cpu, ports, gate, host)
    multiple = row_multiple_for(decoder.weights) if options.deterministic else 1
    torch_decoder = Decoder(decoder.config, decoder.weights, multiple)
    return EagerForward(torch_decoder, cache, cpu, ports, gate, host)


def cuda() -> ModuleType:
    """`cluster.engine.cuda`, which imports Triton. Raises Unsupported where there is none."""
    try:
        return import_module("cluster.engine.cuda")
    except ImportError as error:
        raise Unsupported(
            f"device cuda needs Triton, which does not import: {error}",
            field="gpu_worker.device",
            limit="a CUDA build of torch, or device cpu",
        ) from error


def kv_shape(config: DecoderConfig, kv: KvFormat = KvFormat.FLOAT32) -> KvShape:
    return KvShape(config.num_layers, config.num_kv_heads, config.head_dim, _DTYPES[kv])


def resolved(options: EngineOptions) -> EngineOptions:
    """Without AUTO. Raises Unsupported for weights that device and backend do not multiply with."""
    backend = options.backend
    if backend is Backend.AUTO:
        is_native = options.device is Device.CUDA or kernels_available()
        backend = Backend.NATIVE if is_native else Backend.TORCH
    offered = _WEIGHTS[options.device, backend]
    weights = offered[0] if options.weights is WeightFormat.AUTO else options.weights
    if weights not in offered:
        raise Unsupported(
            f"{weights} weights are not computed on {options.device} by the {backend} backend",
            field="gpu_worker.weights",
            limit=" or ".join(offered),
        )
    return replace(options, backend=backend, weights=weights)


def describe(options: EngineOptions) -> str:
    """One line: what computes, and on how many threads."""
    if options.device is not Device.CPU:
        return computed_by(options)
    return f"{computed_by(options)}, {options.threads} thread{'s' * (options.threads > 1)}"


def computed_by(options: EngineOptions) -> str:
    """Device, backend with its instruction set, weights and KV: all that bits may depend on."""
    options = resolved(options)
    name = "torch"
    if options.backend is Backend.NATIVE:
        name = "triton" if options.device is Device.CUDA else f"thoth_kernels {kernels().isa()}"
    return f"{options.device}: {name}, {options.weights} weights, {options.kv} KV"
