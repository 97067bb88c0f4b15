"""From a model folder and a handful of choices to an engine that runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch

from cluster.attention.fallback import FallbackPort
from cluster.attention.native import NativeBackend
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.shared_memory import MAX_ROW_NUMBERS, ChannelSizes
from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.clock import Clock
from cluster.engine.bench import Bench
from cluster.engine.device import open_device
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward, Elsewhere, Forward, HostMemory, OpenGate
from cluster.engine.host_attention import HostAttention
from cluster.engine.host_bench import HostBench
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.options import (
    Backend,
    Device,
    EngineOptions,
    KvFormat,
    computed_by,
    describe,
    resolved,
)
from cluster.engine.shelves import DeviceMemory, Shelves, open_arena, open_shelves
from cluster.engine.stage_profile import device_costs
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
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.stages import HostCosts

log = logging.getLogger(__name__)


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

CPU_BLOCKS = 2048

Cpu: TypeAlias = NativeBackend | ReferenceBackend


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
    decoder = load_decoder(folder, device, DTYPES.get(options.weights, torch.float32))
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
    host = None if arena is None else _Host.of(arena, cpu, _sizes(config, options), clock)
    copier = None if arena is None else _copier(device, arena)
    memory = _Memory(num_blocks, shape, cpu, _elsewhere(host, copier))
    forward, kv = _forward(options, decoder, memory, limits)
    said = describe(options)
    log.info("computing with %s, %d KV blocks", said, num_blocks)
    device_memory = DeviceMemory(
        pool=BlockPool(num_blocks),
        kv=kv,
        layout=layout,
        bench=Bench(forward, num_blocks, context_tokens, options.step_tokens, clock),
        num_threads=options.threads,
        copier=copier,
    )
    own = None if host is None else host.costs(is_beside=options.device is Device.CUDA)
    offload = _offload(options, device_memory, own)
    on_host = () if arena is None or kept is None else arena.scan()
    shelves = open_shelves(options.shelving, device_memory, arena, on_host)
    attention = None
    if host is not None and own is not None and isinstance(cpu, NativeBackend):
        own_block_s = shelves.cache.transfer.attend_block_s
        attention = HostAttention(host.port, host.bench, own, own_block_s)
    engine = Engine(
        forward=forward,
        vocab_size=config.vocab_size,
        scheduler=IterationScheduler(limits, shelves.cache, offload),
        clock=clock,
        host=shelves.host,
        disk=shelves.disk,
        attention=attention,
    )
    return Assembled(engine, shelves, said, context_tokens, kv.shape.block_bytes)


@dataclass(frozen=True, slots=True)
class _Host:
    """The host's memory, and who attends it."""

    arena: HostArena
    port: FallbackPort
    bench: HostBench

    @classmethod
    def of(cls, arena: HostArena, cpu: Cpu, sizes: ChannelSizes, clock: Clock) -> _Host:
        port = FallbackPort(LocalPort(cpu, arena.k, arena.v))
        return cls(arena, port, HostBench(arena, sizes, clock))

    def costs(self, *, is_beside: bool) -> HostCosts:
        """Of this process."""
        return self.bench.costs(self.port.own, is_beside=is_beside)


def _elsewhere(host: _Host | None, copier: Copier | None) -> Elsewhere:
    if host is None or copier is None:
        return Elsewhere({}, OpenGate(), None)
    own, arena = host.port.own, host.arena
    ports: dict[Home, AttentionPort] = {Home.HOST: host.port, Home.STREAMED: own}
    return Elsewhere(ports, copier, HostMemory(arena.k, arena.v, own.backend))


def _offload(options: EngineOptions, memory: DeviceMemory, own: HostCosts | None) -> Offload:
    """The mode, with what it costs here; without a host's memory there is but `gpu_only`."""
    mode = options.offload.mode
    if mode is OffloadMode.GPU_ONLY:
        return Offload()
    if own is None:
        log.warning("offload %s needs a host tier, and there is none: gpu_only", mode)
        return Offload()
    costs = device_costs(memory.bench, options.shelving.notes, memory.name)
    return options.offload.with_costs(costs.with_host(own))


def _sizes(config: DecoderConfig, options: EngineOptions) -> ChannelSizes:
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
    cpu: Cpu
    elsewhere: Elsewhere


def _copier(device: torch.device, arena: HostArena) -> Copier:
    return CudaCopier(device, arena) if device.type == "cuda" else ThreadCopier()


def _cpu_attention(options: EngineOptions) -> Cpu:
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
    return KvShape(config.num_layers, config.num_kv_heads, config.head_dim, DTYPES[kv])
