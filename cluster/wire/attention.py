"""Attention between hosts in messages: where blocks lie, what a channel carries, a step's plan, and
rows that come in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.attention.plan import AttentionPlan
from cluster.attention.shared_kv import SharedKv
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.errors import InvalidArgument, InvariantBroken
from protos.thoth.v1 import attention_pb2 as pb

# Rows in one message: far below the largest one, and the next is on its way while one is copied.
PIECE_BYTES = 4 * 2**20
# A size that is larger is none, and no product of two leaves 64 bits.
_MOST = {"num_bytes": 2**48, "num_blocks": 2**31, "stride": 2**40, "starts": 2**48}
_INT32, _FLOAT32 = np.dtype("<i4"), np.dtype("<f4")


def kv_to_pb(kv: SharedKv) -> pb.SharedKv:
    starts = [start for layer in kv.starts for start in layer]
    return pb.SharedKv(
        dtype=kv.dtype,
        num_bytes=kv.num_bytes,
        num_blocks=kv.num_blocks,
        kv_heads=kv.kv_heads,
        head_dim=kv.head_dim,
        stride=kv.stride,
        starts=starts,
    )


def kv_from_pb(message: pb.SharedKv) -> SharedKv:
    """Raises InvalidArgument for what no memory can be; `views` checks how it fits together."""
    starts = list(message.starts)
    if len(starts) % 2:
        raise InvalidArgument("a layer begins with k and with v", field="open.kv.starts")
    for name, most in _MOST.items():
        said = max(starts, default=0) if name == "starts" else getattr(message, name)
        if said >= most:
            raise InvalidArgument(
                f"{name} is {said}", field=f"open.kv.{name}", limit=f"below {most}"
            )
    return SharedKv(
        dtype=message.dtype,
        num_bytes=message.num_bytes,
        num_blocks=message.num_blocks,
        kv_heads=message.kv_heads,
        head_dim=message.head_dim,
        stride=message.stride,
        starts=tuple(zip(starts[::2], starts[1::2], strict=True)),
    )


def sizes_to_pb(sizes: ChannelSizes) -> pb.ChannelSizes:
    return pb.ChannelSizes(**asdict(sizes))


def sizes_from_pb(message: pb.ChannelSizes) -> ChannelSizes:
    """Raises InvalidArgument; whether they are too large is the channel's to say."""
    sizes = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    for name, size in sizes.items():
        if not 1 <= size < 2**31:
            raise InvalidArgument(
                f"{name} is {size}", field=f"open.sizes.{name}", limit=f"1 to {2**31 - 1}"
            )
    return ChannelSizes(**sizes)


def check_plan(plan: PartPlan, sizes: ChannelSizes) -> None:
    """Raises InvariantBroken for one that a channel of these sizes cannot carry."""
    for name, num, most in (
        ("queries", len(plan.queries), sizes.max_queries),
        ("parts", plan.num_parts, sizes.max_parts),
        ("numbers in its plan", plan.num_numbers, sizes.plan_numbers),
    ):
        if num > most:
            raise InvariantBroken(f"the step has {num} {name}, the channel {most}")


def begin_to_pb(exchange: int, plan: PartPlan) -> pb.BeginExchange:
    attention = plan.attention
    return pb.BeginExchange(
        exchange=exchange,
        num_queries=len(plan.queries),
        rows=_packed(plan.rows),
        run_rows=_packed(attention.run_rows),
        run_offsets=_packed(attention.run_offsets),
        run_segments=_packed(attention.run_segments),
        segment_tokens=_packed(attention.segment_tokens),
        segment_offsets=_packed(attention.segment_offsets),
        block_ids=_packed(attention.block_ids),
    )


def blocks_to_pb(blocks: NDArray[np.integer[Any]]) -> pb.ForgetBlocks:
    return pb.ForgetBlocks(blocks=blocks.astype(_INT32).tobytes())


def blocks_from_pb(message: pb.ForgetBlocks) -> Tensor:
    """Raises InvalidArgument for what are no numbers; which are blocks is the copy's to say."""
    return _unpacked(message.blocks, "forget.blocks")


def plan_from_pb(message: pb.BeginExchange, sizes: ChannelSizes) -> PartPlan:
    """Which rows of the step the queries are of is not said. Raises InvalidArgument for what are no
    arrays and for more queries than the sizes have; the rest is the channel's to check."""
    if message.num_queries > sizes.max_queries:
        raise InvalidArgument(
            f"the step has {message.num_queries} queries",
            field="begin.num_queries",
            limit=f"at most {sizes.max_queries}",
        )
    if len(message.run_rows) % (2 * _INT32.itemsize):
        raise InvalidArgument("a run has a first row and a number", field="begin.run_rows")
    return PartPlan(
        torch.arange(message.num_queries),
        _unpacked(message.rows, "begin.rows"),
        AttentionPlan(
            _unpacked(message.run_rows, "begin.run_rows").view(-1, 2),
            _unpacked(message.run_offsets, "begin.run_offsets"),
            _unpacked(message.run_segments, "begin.run_segments"),
            _unpacked(message.segment_tokens, "begin.segment_tokens"),
            _unpacked(message.segment_offsets, "begin.segment_offsets"),
            _unpacked(message.block_ids, "begin.block_ids"),
        ),
    )


def _packed(numbers: Tensor) -> bytes:
    return numbers.numpy().astype(_INT32, copy=False).tobytes()


def _unpacked(content: bytes, field: str) -> Tensor:
    if len(content) % _INT32.itemsize:
        raise InvalidArgument(f"{len(content)} bytes are no int32", field=field)
    numbers = torch.empty(len(content) // _INT32.itemsize, dtype=torch.int32)
    numbers.numpy()[:] = np.frombuffer(content, _INT32)
    return numbers


def pieces(num_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cuts rows into what one message takes; no rows are one piece."""
    step = max(1, PIECE_BYTES // row_bytes)
    for first in range(0, max(1, num_rows), step):
        yield slice(first, min(first + step, num_rows))


def row_content(rows: Tensor) -> bytes:
    """Of float32 rows on the cpu."""
    return rows.contiguous().numpy().astype(_FLOAT32, copy=False).tobytes()


def fill(rows: Tensor, first: int, content: bytes, field: str) -> int:
    """Rows from `first` on become the content's; the number of the row behind them. `rows` is
    contiguous float32. Raises InvalidArgument when the content is not whole rows, or too many."""
    row_size = rows[:1].numel() if len(rows) else 1
    num_rows, rest = divmod(len(content), row_size * _FLOAT32.itemsize)
    if rest or first + num_rows > len(rows):
        raise InvalidArgument(
            f"{len(content)} bytes from row {first} on",
            field=field,
            limit=f"{len(rows)} rows of {row_size * _FLOAT32.itemsize} bytes",
        )
    numbers = rows.numpy().reshape(-1)
    numbers[first * row_size : (first + num_rows) * row_size] = np.frombuffer(content, _FLOAT32)
    return first + num_rows
