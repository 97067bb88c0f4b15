"""Memory in huge pages is memory like any other."""

from __future__ import annotations

import gc
import mmap

import pytest
import torch

from cluster.engine.huge_pages import HUGE_PAGE_BYTES, zeros

SIZES = [(3, 5), (2, 3, HUGE_PAGE_BYTES // 8), (HUGE_PAGE_BYTES // 4 + 1,), (0, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_what_torch_would_give(size: tuple[int, ...], dtype: torch.dtype) -> None:
    found = zeros(size, dtype)
    assert found.is_contiguous()
    assert torch.equal(found, torch.zeros(size, dtype=dtype))
    assert found.dtype == dtype


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no huge pages")
def test_what_is_large_begins_at_a_huge_page() -> None:
    assert zeros((HUGE_PAGE_BYTES,), torch.float16).data_ptr() % HUGE_PAGE_BYTES == 0


def test_a_view_keeps_the_memory_alive() -> None:
    whole = zeros((2, HUGE_PAGE_BYTES), torch.float32)
    part = whole[1]
    del whole
    gc.collect()
    part.fill_(1.0)
    assert part.sum() == HUGE_PAGE_BYTES


def test_a_system_without_huge_pages_gets_plain_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    found = zeros((HUGE_PAGE_BYTES,), torch.float32)
    assert torch.equal(found, torch.zeros(HUGE_PAGE_BYTES))
