"""Finding a device, and how many blocks fit it."""

from __future__ import annotations

import pytest
import torch

from cluster.engine.device import (
    LEAST_BLOCKS,
    RESERVED_BYTES,
    DeviceMemory,
    blocks_that_fit,
    full_precision,
    memory_of,
    open_device,
    step_bytes,
)
from cluster.errors import InvalidArgument, Unsupported

GIB = 2**30


def test_the_cpu_is_always_there() -> None:
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named_with_what_is_wanted() -> None:
    with pytest.raises(Unsupported, match="finds none") as refused:
        open_device("cuda")
    assert refused.value.field == "gpu_worker.device"
    assert "driver" in refused.value.limit


def test_float32_products_are_float32() -> None:
    full_precision()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction


def test_blocks_fill_what_weights_and_steps_leave() -> None:
    memory = DeviceMemory(total_bytes=24 * GIB, free_bytes=8 * GIB)
    blocks = blocks_that_fit(memory, step_bytes=GIB, block_bytes=2**21)
    assert blocks * 2**21 == 8 * GIB - GIB - RESERVED_BYTES


def test_too_little_memory_is_refused_with_the_numbers() -> None:
    memory = DeviceMemory(total_bytes=16 * GIB, free_bytes=2 * GIB)
    for taken in (GIB, 4 * GIB):
        with pytest.raises(InvalidArgument, match=r"2\.0 of 16\.0 GiB are free") as refused:
            blocks_that_fit(memory, step_bytes=taken, block_bytes=2**21)
        assert refused.value.field == "gpu_worker.kv_blocks"
    exactly = DeviceMemory(16 * GIB, RESERVED_BYTES + LEAST_BLOCKS * 2**20)
    assert blocks_that_fit(exactly, 0, 2**20) == LEAST_BLOCKS


@pytest.mark.gpu
def test_memory_and_the_peak_of_a_step_are_measured() -> None:
    device = open_device("cuda")
    memory = memory_of(device)
    assert 0 < memory.free_bytes <= memory.total_bytes
    assert step_bytes(device, lambda: torch.ones(2**26, device=device).sum()) >= 2**28
    with pytest.raises(Unsupported, match="there are"):
        open_device("cuda:99")
