"""One client's stream at an attention worker: from its messages to a channel of this process.

    stream  --blocks-->          copy    <--reads-- the server's loop
            --plans, queries-->  channel <--serves--
            <--states--

The server's loop computes for a client on another host as for one on this, without the
interpreter's lock. Everything that comes is checked before it is used.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.server import AttentionServer
from cluster.attention.shared_memory import ChannelSizes, SharedMemoryExchange, SharedMemoryPort
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import InvalidArgument, InvariantBroken, TooLarge, Unavailable
from cluster.kernels import kernels
from cluster.wire.attention import (
    blocks_from_pb,
    fill,
    kv_from_pb,
    pieces,
    plan_from_pb,
    row_content,
    sizes_from_pb,
)
from cluster.wire.attention_copy import PAGE_BYTES, BlockCopy
from protos.thoth.v1 import attention_pb2 as pb

# For the server's loop, which serves others too. A client that has less patience goes.
_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Step:
    """An exchange, and the queries of a layer as they come: `posted` is their sequence and layer,
    `num_filled` how many of them are there."""

    exchange: SharedMemoryExchange
    blocks: Tensor
    q: Tensor
    posted: tuple[int, int] = (0, 0)
    num_filled: int = 0


@dataclass(slots=True)
class _Served:
    """Of an open channel."""

    copy: BlockCopy
    port: SharedMemoryPort
    steps: dict[int, _Step]


class Relay:
    """Called by one thread at a time, which may have to wait. `max_bytes` bounds the copy, and the
    channel too."""

    def __init__(self, server: AttentionServer, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes
        self._served: _Served | None = None
        self._held = ExitStack()

    def answers(self, request: pb.AttendRequest) -> list[pb.AttendResponse]:
        """Raises Refused for what cannot be, with field and limit, Unavailable when the system
        gives no more, and Lost when the server's loop does not answer. Then it is to be closed."""
        event = request.WhichOneof("event")
        if self._served is None:
            if event != "open":
                raise InvalidArgument("the first request opens no channel", field="open")
            return [self._open(request.open)]
        match event:
            case "write":
                self._served.copy.write(request.write.block, request.write.content)
            case "begin":
                _begin(self._served, request.begin)
            case "post":
                return _post(self._served, request.post)
            case "forget":
                _forget(self._served, request.forget)
            case "end":
                _end(self._served, request.end.exchange)
            case _:
                raise InvalidArgument("not a request of an open channel", field=event or "event")
        return []

    def close(self) -> None:
        """Waits for the layer that is computed."""
        self._served = None
        self._held.close()

    def _open(self, message: pb.OpenChannel) -> pb.AttendResponse:
        sizes = sizes_from_pb(message.sizes)
        if channel_bytes(sizes) > self._max_bytes:
            raise TooLarge(
                f"a channel has {channel_bytes(sizes)} bytes",
                field="open.sizes",
                limit=f"{self._max_bytes} bytes",
            )
        copy = BlockCopy(kv_from_pb(message.kv), self._max_bytes)
        self._held.callback(copy.close)
        port = _port(sizes)
        self._held.callback(port.close)
        number = self._server.add(port.ends, copy.k, copy.v)
        self._held.callback(self._server.remove, number)
        self._served = _Served(copy, port, {})
        opened = pb.ChannelOpened(
            max_bytes=self._max_bytes, page_bytes=PAGE_BYTES, isa=kernels().isa()
        )
        return pb.AttendResponse(opened=opened)


def channel_bytes(sizes: ChannelSizes) -> int:
    """The most that a channel takes, when all of it was used."""
    rows = (sizes.max_queries + sizes.max_parts) * sizes.heads * sizes.head_dim
    return 4 * sizes.lanes * (rows + sizes.max_parts * sizes.heads + sizes.plan_numbers)


def _port(sizes: ChannelSizes) -> SharedMemoryPort:
    """Its server is this very process; nobody listens at its line."""
    line, other = socket.socketpair()
    other.close()
    me = os.pidfd_open(os.getpid())
    try:
        return SharedMemoryPort(sizes, me, line, timeout_s=_TIMEOUT_S)
    except ValueError as error:
        line.close()
        raise InvalidArgument(str(error), field="open.sizes") from error
    except Unavailable:
        line.close()
        raise
    finally:
        os.close(me)


def _begin(served: _Served, message: pb.BeginExchange) -> None:
    number = message.exchange
    if number in served.steps:
        raise InvalidArgument(f"exchange {number} is open already", field="begin.exchange")
    sizes = served.port.sizes
    if len(served.steps) == sizes.lanes:
        raise InvalidArgument(
            "no lane is left", field="begin.exchange", limit=f"{sizes.lanes} exchanges"
        )
    plan = plan_from_pb(message, sizes)
    blocks = plan.attention.block_ids
    served.copy.check_written(blocks, "begin.block_ids")
    q = torch.empty((message.num_queries, sizes.heads, sizes.head_dim))
    served.steps[number] = _Step(_prepared(served.port, plan), blocks, q)


def _forget(served: _Served, message: pb.ForgetBlocks) -> None:
    """What an open exchange attends is kept: reading it would take memory that nobody counts."""
    blocks = blocks_from_pb(message)
    for number, step in served.steps.items():
        if torch.isin(blocks, step.blocks).any():
            raise InvalidArgument(f"exchange {number} attends a block", field="forget.blocks")
    served.copy.forget(blocks)


def _prepared(port: SharedMemoryPort, plan: PartPlan) -> SharedMemoryExchange:
    """The channel checks the sizes, and its server the rest, but only when it first computes."""
    arrays = plan.attention
    try:
        exchange = port.prepare(plan)
        kernels().AttentionPlan(
            arrays.run_rows,
            arrays.run_offsets,
            arrays.run_segments,
            arrays.segment_tokens,
            arrays.segment_offsets,
            arrays.block_ids,
        )
    except InvariantBroken as error:
        raise InvalidArgument(error.message, field="begin") from error
    except ValueError as error:
        raise InvalidArgument(str(error), field="begin") from error
    return exchange


def _post(served: _Served, message: pb.PostLayer) -> list[pb.AttendResponse]:
    """The states, once all queries are there."""
    step = _step(served, message.exchange, "post.exchange")
    posted = (message.sequence, message.layer)
    if message.layer >= len(served.copy.k):
        raise InvalidArgument(
            f"layer {message.layer} is posted",
            field="post.layer",
            limit=f"{len(served.copy.k)} layers",
        )
    if message.first_query != step.num_filled or (step.num_filled and step.posted != posted):
        raise InvalidArgument(
            f"queries from {message.first_query} on, after {step.num_filled}",
            field="post.first_query",
        )
    step.posted = posted
    step.num_filled = fill(step.q, step.num_filled, message.q, "post.q")
    if step.num_filled < len(step.q):
        return []
    step.num_filled = 0
    step.exchange.post(message.layer, step.q)
    return _answered(message, step.exchange.collect(message.layer))


def _answered(message: pb.PostLayer, state: State) -> list[pb.AttendResponse]:
    row_bytes = 4 * state.o.shape[1] * (state.o.shape[2] + 1)
    return [
        pb.AttendResponse(
            answer=pb.LayerAnswered(
                exchange=message.exchange,
                sequence=message.sequence,
                layer=message.layer,
                first_part=piece.start,
                o=row_content(state.o[piece]),
                lse=row_content(state.lse[piece]),
            )
        )
        for piece in pieces(len(state.o), row_bytes)
    ]


def _end(served: _Served, exchange: int) -> None:
    step = _step(served, exchange, "end.exchange")
    step.exchange.close()
    del served.steps[exchange]


def _step(served: _Served, exchange: int, field: str) -> _Step:
    if exchange not in served.steps:
        raise InvalidArgument(f"exchange {exchange} is not open", field=field)
    return served.steps[exchange]
