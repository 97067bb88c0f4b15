"""Attention kernels on the device: decode against its bandwidth, and prefill against torch's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.result import Row
from cluster.attention.cuda.backend import TritonBackend
from cluster.attention.cuda.shape import HeadShape
from cluster.attention.plan import Run, plan_attention
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId

LEAST_S = 0.05
ROUNDS = 5


def row(part: str, case: str, measured: float, unit: str, against: str, other: float) -> Row:
    """The one form of a result here; `other` is what it stands against, in the same unit."""
    return {
        "part": part,
        "case": case,
        "measured": measured,
        "unit": unit,
        "against": against,
        "other": other,
        "ratio": measured / other,
    }


def settle(device: torch.device) -> None:
    """Waits until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call: the median of rounds of as many calls as take `LEAST_S`."""
    work()
    settle(device)
    times: list[float] = []
    calls = 1
    while len(times) < ROUNDS:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        settle(device)
        taken = time.perf_counter() - started
        if taken < LEAST_S and not times:
            calls = max(calls + 1, round(calls * 1.5 * LEAST_S / max(taken, 1e-6)))
            continue
        times.append(taken / calls)
    return statistics.median(times)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second of a copy, counting what is read and what is written, and of a read."""

    copy: float
    read: float

    @property
    def best(self) -> float:
        return max(self.copy, self.read)


def bandwidth(device: torch.device, num_bytes: int) -> Bandwidth:
    """`num_bytes` is many times the device's last cache."""
    source = torch.zeros(num_bytes // 4, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    copied = seconds(lambda: target.copy_(source), device)
    read = seconds(lambda: source.view(torch.float32).sum(), device)
    return Bandwidth(2 * num_bytes / copied, num_bytes / read)


@dataclass(frozen=True, slots=True)
class DecodeCase:
    """`rows` requests, each with `own` tokens behind `shared` tokens that all of them read."""

    rows: int
    own: int
    shared: int = 0

    def __str__(self) -> str:
        return f"{self.rows} x {self.own}" + (f" + {self.shared} shared" if self.shared else "")

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values are read."""
        return self.rows * self.own + self.shared


def decode_rows(
    shape: HeadShape, case: DecodeCase, device: torch.device, best: float
) -> Iterator[Row]:
    """Bytes of keys and values per second, each counted once."""
    segments = _scattered([case.shared] * bool(case.shared) + [case.own] * case.rows)
    document, own = segments[: bool(case.shared)], segments[bool(case.shared) :]
    runs = [Run(i, 1, (*document, segment)) for i, segment in enumerate(own)]
    k, v = _caches(shape, segments, device)
    attention = TritonBackend.on(shape, device).prepare(plan_attention(runs))
    q = torch.randn((case.rows, shape.num_heads, shape.head_dim), device=device)
    work = _recorded(lambda: attention.attend(q, k, v).o, device)
    num_bytes = case.tokens * shape.num_kv_heads * shape.head_dim * 2 * shape.dtype.itemsize
    reached = num_bytes / seconds(work, device) / 1e9
    name = f"{_named(shape)}, {case}"
    yield row("decode attention", name, reached, "GB/s", "bandwidth", best / 1e9)


def prefill_rows(
    shape: HeadShape, num_rows: int, before: int, device: torch.device
) -> Iterator[Row]:
    """FLOP per second of a chunk behind `before` keys, against torch's attention on keys and
    values that lie side by side."""
    segments = _scattered([before, num_rows])
    k, v = _caches(shape, segments, device)
    plan = plan_attention([Run(0, num_rows, tuple(segments))])
    attention = TritonBackend.on(shape, device).prepare(plan)
    q = torch.randn((num_rows, shape.num_heads, shape.head_dim), device=device)
    size = (1, shape.num_kv_heads, before + num_rows, shape.head_dim)
    keys, values = (torch.randn(size, device=device).to(shape.dtype) for _ in range(2))
    dense = q.transpose(0, 1)[None].to(shape.dtype)
    ours = seconds(lambda: attention.attend(q, k, v), device)
    # Without a mask torch takes its fastest kernel, and computes what it need not: no less work.
    theirs = seconds(
        lambda: scaled_dot_product_attention(dense, keys, values, enable_gqa=True), device
    )
    seen = num_rows * before + num_rows * (num_rows + 1) / 2
    work = 4 * shape.num_heads * shape.head_dim / 1e12
    all_seen = work * num_rows * (before + num_rows) / theirs
    name = f"{_named(shape)}, {num_rows} rows after {before}"
    yield row("prefill attention", name, work * seen / ours, "TFLOP/s", "torch", all_seen)


def _recorded(work: Callable[[], Tensor], device: torch.device) -> Callable[[], object]:
    """Without the time of launching, where it can be recorded."""
    if device.type != "cuda":
        return work
    # Imported here: only a CUDA device can record.
    from cluster.engine.cuda_graphs import CudaRecorder  # noqa: PLC0415

    return CudaRecorder().record(work).replay


def _scattered(lengths: Sequence[int]) -> list[SegmentView]:
    """Segments whose blocks lie anywhere among each other's."""
    counts = [blocks_for(n) for n in lengths]
    free = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for num_tokens, count in zip(lengths, counts, strict=True):
        taken, free = free[:count], free[count:]
        found.append(SegmentView(tuple(map(BlockId, taken)), num_tokens))
    return found


def _caches(
    shape: HeadShape, segments: Sequence[SegmentView], device: torch.device
) -> tuple[Tensor, Tensor]:
    size = (sum(len(s.blocks) for s in segments), shape.num_kv_heads)
    k = torch.randn((*size, shape.head_dim, BLOCK_TOKENS), device=device, dtype=shape.dtype)
    v = torch.randn((*size, BLOCK_TOKENS, shape.head_dim), device=device, dtype=shape.dtype)
    return k, v


def _named(shape: HeadShape) -> str:
    dtype = str(shape.dtype).removeprefix("torch.")
    return f"{shape.num_heads}/{shape.num_kv_heads} heads of {shape.head_dim}, {dtype}"
