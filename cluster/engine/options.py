"""What a user chooses of an engine, and what computes with it.

    device  backend    attention          decoder            weights
    cpu     native     thoth_kernels      thoth_kernels      float32, int8
    cpu     torch      torch reference    torch              float32
    cuda    native     Triton             torch              float32, float16, bfloat16
    cuda    torch      torch reference    torch              float32, float16, bfloat16

Sums are float32 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from cluster.engine.shelves import Shelving
from cluster.errors import Unsupported
from cluster.kernels import kernels, kernels_available
from cluster.scheduling.offload import OffloadOptions


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
    do. `shelving` says where documents' keys and values are kept; by default nowhere. `offload` is
    of the host tier there."""

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
    offload: OffloadOptions = field(default_factory=OffloadOptions)


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
