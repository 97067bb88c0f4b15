"""The port to an attention worker of another host: blocks and queries go and states come through
one gRPC stream.

The worker computes over a copy. A block is sent before the first step that attends it, and again
after it was written over, which its generation tells: nothing is lost with the worker, and nothing
stale is attended. After a loss the port is closed for good.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.attention.shared_kv import SharedKv
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import InvalidArgument, InvariantBroken, Lost, Refused, ThothError
from cluster.kernels import kernels
from cluster.wire.attention import (
    begin_to_pb,
    blocks_to_pb,
    check_plan,
    fill,
    kv_to_pb,
    pieces,
    row_content,
    sizes_to_pb,
)
from cluster.wire.attention_sent import Blocks, SentBlocks
from cluster.wire.attention_stream import AttentionStream
from cluster.wire.serving import MAX_MESSAGE_BYTES
from protos.thoth.v1 import attention_pb2 as pb

# Of what is around the content in a message.
_FRAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """The blocks that a port sends: `kv` says where they lie in `memory`. `generations` tells of
    each block another number after every write, and an odd one while it is written."""

    kv: SharedKv
    memory: memoryview
    generations: Callable[[NDArray[np.integer[Any]]], NDArray[np.int64]]

    def content(self, block: int) -> bytes:
        return bytes(self.memory[self.kv.block_bytes(block)])


def connect(
    address: str, sizes: ChannelSizes, source: Source, *, client: str, timeout_s: float
) -> GrpcPort:
    """A port to the worker at `host:port`; `client` is who says it is. Raises Lost when nobody is
    there in time, Refused when the worker does not want it, or would give other bits than this
    process, or a message cannot hold a block."""
    place = source.kv.block_bytes(0)
    for what, num_bytes in (
        ("a block", place.stop - place.start),
        ("a plan", 4 * sizes.plan_numbers),
    ):
        if num_bytes + _FRAME_BYTES > MAX_MESSAGE_BYTES:
            raise InvalidArgument(
                f"{what} of {num_bytes} bytes", limit=f"a message of {MAX_MESSAGE_BYTES} bytes"
            )
    opening = pb.OpenChannel(client=client, kv=kv_to_pb(source.kv), sizes=sizes_to_pb(sizes))
    stream = AttentionStream(address)
    stream.send(lambda: pb.AttendRequest(open=opening))
    try:
        first = stream.receive(time.monotonic(), timeout_s)
    except Refused:
        stream.close()
        raise
    except ThothError as error:
        stream.close()
        raise Lost(f"no attention worker at {address}: {error.message}") from error
    if not first.opened.page_bytes:
        stream.close()
        raise Lost(f"what is at {address} opens no channel")
    if first.opened.isa != kernels().isa():
        stream.close()
        raise Refused(
            f"the attention worker at {address} computes with {first.opened.isa}, and this process "
            f"with {kernels().isa()}: their states differ in bits"
        )
    sent = SentBlocks(source.kv, first.opened.max_bytes, first.opened.page_bytes)
    return GrpcPort(stream, sizes, source, sent, timeout_s)


class GrpcPort:
    """`AttentionPort` for one engine's thread, made by `connect`. `timeout_s` is for a worker that
    neither answers nor takes what it is sent."""

    def __init__(
        self,
        stream: AttentionStream,
        sizes: ChannelSizes,
        source: Source,
        sent: SentBlocks,
        timeout_s: float,
    ) -> None:
        self.sizes = sizes
        self.timeout_s = timeout_s
        # Answers that were not to what was posted last.
        self.num_ignored = 0
        self.num_blocks_sent = 0
        self._stream = stream
        self._source = source
        self._sent = sent
        self._exchanges: dict[int, GrpcExchange] = {}
        self._numbers = count(1)
        self._sequences = count(1)
        self._lost = ""

    @property
    def has_ended(self) -> bool:
        """Whether the stream is known to be broken; what arrived before may still be collected."""
        return self._stream.has_ended

    def carries(self, plan: PartPlan, /) -> bool:
        """A copy is sent once for each generation of a block: what is still written has none."""
        return self.sizes.hold(plan) and not plan.is_growing

    def prepare(self, plan: PartPlan, /) -> GrpcExchange:
        """Raises InvariantBroken for a plan that the channel cannot carry, or when all lanes are
        taken."""
        self._check_alive()
        if len(self._exchanges) == self.sizes.lanes:
            raise InvariantBroken(f"{self.sizes.lanes} exchanges are open, and there is no lane")
        check_plan(plan, self.sizes)
        blocks = self._send_blocks(plan.attention.block_ids)
        number = next(self._numbers)
        begin = begin_to_pb(number, plan)
        self._stream.send(lambda: pb.AttendRequest(begin=begin))
        state = self._state(plan.num_parts)
        exchange = GrpcExchange(self, number, blocks, len(plan.queries), state)
        self._exchanges[number] = exchange
        return exchange

    def _check_alive(self) -> None:
        """What ends between two steps is known before the next one begins."""
        self.check_open()
        if self.has_ended:
            self._receive_until(lambda: False)

    def _state(self, num_parts: int) -> State:
        heads = self.sizes.heads
        size = (num_parts, heads, self.sizes.head_dim)
        return State(torch.empty(size), torch.empty((num_parts, heads)))

    def _send_blocks(self, block_ids: Tensor) -> Blocks:
        """Those that the worker has not; the step's, each once."""
        blocks = np.unique(block_ids.numpy())
        if len(blocks) and not 0 <= blocks[0] <= blocks[-1] < self._source.kv.num_blocks:
            raise InvariantBroken(
                f"the plan has blocks {blocks[0]} to {blocks[-1]} of {self._source.kv.num_blocks}"
            )
        generations = self._source.generations(blocks)
        if (generations % 2).any():
            raise InvariantBroken(f"block {blocks[generations % 2 == 1][0]} is not whole")
        in_use = [exchange.blocks for exchange in self._exchanges.values()]
        forgotten, wanted = self._sent.update(blocks, generations, in_use)
        if len(forgotten):
            forget = blocks_to_pb(forgotten)
            self._stream.send(lambda: pb.AttendRequest(forget=forget))
        self.num_blocks_sent += len(wanted)
        for block in wanted.tolist():
            self._stream.send(partial(self._write, block))
        return blocks

    def _write(self, block: int) -> pb.AttendRequest:
        """When it is sent. Should the step have been given up meanwhile, and the block be written
        over, then nobody attends it until it is sent again."""
        content = self._source.content(block)
        return pb.AttendRequest(write=pb.WriteBlock(block=block, content=content))

    def check_open(self) -> None:
        if self._lost:
            raise Lost(self._lost)

    def check_layer(self, layer: int) -> None:
        if not 0 <= layer < len(self._source.kv.starts):
            raise InvariantBroken(f"layer is {layer} of {len(self._source.kv.starts)}")

    def post(self, exchange: int, layer: int, q: Tensor) -> int:
        """Sends a layer's queries; its sequence."""
        sequence = next(self._sequences)
        for piece in pieces(len(q), q.shape[1] * q.shape[2] * q.itemsize):
            message = pb.PostLayer(
                exchange=exchange,
                sequence=sequence,
                layer=layer,
                first_query=piece.start,
                q=row_content(q[piece]),
            )
            self._stream.send(partial(pb.AttendRequest, post=message))
        return sequence

    def collect(self, exchange: GrpcExchange) -> None:
        """Until all states of what was posted are there."""
        self._receive_until(lambda: exchange.is_answered)

    def _receive_until(self, is_enough: Callable[[], bool]) -> None:
        since_s = time.monotonic()
        try:
            while not is_enough():
                self._sort(self._stream.receive(since_s, self.timeout_s).answer)
        except ThothError as error:
            self._lose(error)

    def _sort(self, answer: pb.LayerAnswered) -> None:
        exchange = self._exchanges.get(answer.exchange)
        if exchange is None or not exchange.takes(answer):
            self.num_ignored += 1

    def _lose(self, error: ThothError) -> NoReturn:
        self._end(f"attention on another host: {error.message}")
        raise Lost(self._lost) from error

    def give_back(self, exchange: int) -> None:
        del self._exchanges[exchange]
        if not self._lost:
            end = pb.EndExchange(exchange=exchange)
            self._stream.send(lambda: pb.AttendRequest(end=end))

    def close(self) -> None:
        self._end("the port was closed")

    def _end(self, why: str) -> None:
        self._lost = self._lost or why
        self._stream.close()


@dataclass(slots=True)
class GrpcExchange:
    """`state` is written over by every `collect`. `busy_s` counts from the post to the last state,
    the way there and back among it."""

    port: GrpcPort
    number: int
    blocks: Blocks
    num_queries: int
    state: State
    busy_s: float = field(default=0.0, init=False)
    _is_open: bool = field(default=True, init=False)
    # Sequence and layer.
    _posted: tuple[int, int] | None = field(default=None, init=False)
    # Pieces of the posted layer's states, and of how many parts.
    _arrived: list[pb.LayerAnswered] = field(default_factory=list, init=False)
    _num_arrived: int = field(default=0, init=False)
    _posted_s: float = field(default=0.0, init=False)
    _arrived_s: float = field(default=0.0, init=False)

    def post(self, layer: int, q: Tensor, /) -> None:
        self._check_open()
        if self._posted is not None:
            raise InvariantBroken(
                f"layer {layer} is posted before layer {self._posted[1]} was collected"
            )
        self.port.check_layer(layer)
        size = (self.num_queries, self.port.sizes.heads, self.port.sizes.head_dim)
        if q.shape != size or q.dtype != torch.float32:
            raise InvariantBroken(f"q is float32 {size}, not {q.dtype} {tuple(q.shape)}")
        self._posted_s = time.monotonic()
        self._posted = (self.port.post(self.number, layer, q), layer)

    def collect(self, layer: int, /) -> State:
        self._check_open()
        if self._posted is None or self._posted[1] != layer:
            raise InvariantBroken(f"layer {layer} is collected and was not posted")
        self.port.collect(self)
        self.busy_s += self._arrived_s - self._posted_s
        for piece in self._arrived:
            fill(self.state.o, piece.first_part, piece.o, "o")
            fill(self.state.lse, piece.first_part, piece.lse, "lse")
        self._posted, self._num_arrived = None, 0
        self._arrived.clear()
        return self.state

    def takes(self, answer: pb.LayerAnswered) -> bool:
        """Whether it is the next piece of what was posted. Raises InvalidArgument when it is, and
        does not fit."""
        is_next = answer.first_part == self._num_arrived and not self.is_answered
        if (answer.sequence, answer.layer) != self._posted or not is_next:
            return False
        num_parts, rest = divmod(len(answer.lse), 4 * self.port.sizes.heads)
        is_whole = not rest and len(answer.o) == len(answer.lse) * self.port.sizes.head_dim
        if not is_whole or self._num_arrived + num_parts > len(self.state.o):
            raise InvalidArgument(f"the answer to layer {answer.layer} does not fit the step")
        self._arrived.append(answer)
        self._num_arrived += num_parts
        self._arrived_s = time.monotonic()
        return True

    @property
    def is_answered(self) -> bool:
        return bool(self._arrived) and self._num_arrived == len(self.state.o)

    def _check_open(self) -> None:
        if not self._is_open:
            raise InvariantBroken("an exchange is used after its end")
        self.port.check_open()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.port.give_back(self.number)
