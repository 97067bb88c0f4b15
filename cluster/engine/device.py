"""The device a model runs on: found, set to honest arithmetic, and measured.

What is measured at start is a fact, not a setting: how many KV blocks fit the memory that weights
and the largest step leave.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cluster.errors import InvalidArgument, Unsupported

CPU = torch.device("cpu")
# Left to the driver, to graphs, and to what the allocator cannot use for being in pieces.
RESERVED_BYTES = 2**30
# Fewer and hardly one request runs.
LEAST_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of the whole device, and of it what nobody holds."""

    total_bytes: int
    free_bytes: int


def open_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1`. Raises Unsupported where torch finds no such device.

    On a GPU float32 products are computed in float32 (no TF32) and sums of 16-bit ones in float32.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        built = "for CUDA" if torch.version.cuda else "without CUDA"
        raise Unsupported(
            f"device {name} is asked for, and torch {torch.__version__}, built {built}, finds none",
            field="gpu_worker.device",
            limit="a CUDA build of torch, a driver and a GPU; or device cpu",
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise Unsupported(
            f"device {name} is asked for, and there are {torch.cuda.device_count()}",
            field="gpu_worker.device",
            limit=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    full_precision()
    return torch.device("cuda", device.index if device.index is not None else 0)


def full_precision() -> None:
    """Forbids the roundings that torch may take for speed."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def memory_of(device: torch.device) -> DeviceMemory:
    """Of a CUDA device, after what torch holds and does not use was given back."""
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(total, free)


def step_bytes(device: torch.device, largest_step: Callable[[], object]) -> int:
    """Bytes that a step takes beside weights and cache, measured by running the largest."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    largest_step()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def blocks_that_fit(memory: DeviceMemory, step_bytes: int, block_bytes: int) -> int:
    """KV blocks for the rest. Raises InvalidArgument when that is next to nothing."""
    left = memory.free_bytes - step_bytes - RESERVED_BYTES
    blocks = max(0, left) // block_bytes
    if blocks < LEAST_BLOCKS:
        raise InvalidArgument(
            f"{memory.free_bytes / 2**30:.1f} of {memory.total_bytes / 2**30:.1f} GiB are free "
            f"beside the weights, a step takes {step_bytes / 2**30:.1f}, and {LEAST_BLOCKS} blocks "
            f"of keys and values take {LEAST_BLOCKS * block_bytes / 2**30:.2f}",
            field="gpu_worker.kv_blocks",
            limit="a smaller model, 16-bit weights or keys and values, fewer step_tokens",
        )
    return blocks
