"""Memory of the cpu that asks the system for huge pages."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch
from torch import Tensor

HUGE_PAGE_BYTES = 2**21


def zeros(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """As `torch.zeros` on the cpu, in huge pages where the system grants them.

    Blocks lie scattered over a cache: with small pages nearly each block that attention reads
    costs a walk through the page tables. What is smaller than a huge page gains nothing.
    """
    num_bytes = math.prod(size) * dtype.itemsize
    if num_bytes < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=dtype)
    return _mapped(num_bytes).view(dtype).view(size)


def _mapped(num_bytes: int) -> Tensor:
    """Bytes that begin at a huge page; the tensor keeps the mapping alive."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, num_bytes + HUGE_PAGE_BYTES, flags=flags)
    with suppress(OSError):  # a system built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -whole.data_ptr() % HUGE_PAGE_BYTES
    part = whole[begin : begin + num_bytes]
    # The system hands out zeros; one byte of each page is enough to have it now and not in a step.
    part[:: mmap.PAGESIZE].zero_()
    return part
