"""The port to a process of the same host: queries go and states come through shared memory.

`kernels/src/channel_memory.h` draws what lies in it, and who writes when. An exchange has one of
its lanes for itself. After a loss the port is closed for good and its memory let go of: a process
that wakes late writes where nobody reads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from socket import socket
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluster.attention.split import PartPlan
from cluster.attention.state import State
from cluster.errors import InvariantBroken, Lost, ThothError, Unavailable
from cluster.kernels import kernels

if TYPE_CHECKING:
    import thoth_kernels

# For so long an answer is looked for before its reader sleeps: waking up costs a hundred
# microseconds and more, and the device has nothing else to do meanwhile.
SPIN_US = 500
# Queries, or parts, times heads times head_dim, in one lane.
MAX_ROW_NUMBERS = 2**28


@dataclass(frozen=True, slots=True)
class ChannelSizes:
    """What a channel can carry, fixed for its life. Memory is taken when it is first written, so
    that much room costs nothing.

    `plan_numbers` are the int32 of a step's plan, all arrays together; `lanes` the exchanges that
    may be open at once.
    """

    heads: int
    head_dim: int
    max_queries: int = 4096
    max_parts: int = 8192
    plan_numbers: int = 2**20
    lanes: int = 2

    def hold(self, plan: PartPlan) -> bool:
        """Whether a lane has room for the plan."""
        return (
            len(plan.queries) <= self.max_queries
            and plan.num_parts <= self.max_parts
            and plan.num_numbers <= self.plan_numbers
        )


@dataclass(frozen=True, slots=True)
class ChannelEnds:
    """What a server has to be told of a channel: its memory's descriptor and two eventfds, on which
    it is woken and wakes. They belong to whoever made or received them."""

    memory: int
    work_bell: int
    answer_bell: int
    sizes: ChannelSizes

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return self.memory, self.work_bell, self.answer_bell


class SharedMemoryPort:
    """`AttentionPort` for one engine's thread.

    `peer` is a pidfd of the server's process, which is copied: its death is known at once, and
    `timeout_s` is for one that lives and does not answer. `line` is the socket over which it was
    told of the channel; it is closed with the port, and that is how the server knows.

    Raises Unavailable when the system has no memory for the channel.
    """

    def __init__(self, sizes: ChannelSizes, peer: int, line: socket, *, timeout_s: float) -> None:
        self.sizes = sizes
        self.line = line
        self.timeout_s = timeout_s
        try:
            self.client: thoth_kernels.ChannelClient = kernels().ChannelClient(
                **asdict(sizes), peer=peer, spin_us=SPIN_US
            )
        except RuntimeError as error:
            raise Unavailable(f"no shared memory for a channel: {error}") from error
        self._free = deque(range(sizes.lanes))

    @property
    def ends(self) -> ChannelEnds:
        """To be given to the server; valid until the port is closed."""
        client = self.client
        return ChannelEnds(client.memory, client.work_bell, client.answer_bell, self.sizes)

    @property
    def num_ignored(self) -> int:
        """Answers that were not to what was posted last."""
        return self.client.num_ignored

    def carries(self, plan: PartPlan, /) -> bool:
        return self.sizes.hold(plan)

    def prepare(self, plan: PartPlan, /) -> SharedMemoryExchange:
        """Raises InvariantBroken for a plan that the channel cannot carry, or when all lanes are
        taken."""
        if not self._free:
            raise InvariantBroken(f"{self.sizes.lanes} exchanges are open, and there is no lane")
        attention = plan.attention
        try:
            self.client.begin(
                lane=self._free[0],
                num_queries=len(plan.queries),
                rows=plan.rows,
                run_rows=attention.run_rows,
                run_offsets=attention.run_offsets,
                run_segments=attention.run_segments,
                segment_tokens=attention.segment_tokens,
                segment_offsets=attention.segment_offsets,
                block_ids=attention.block_ids,
                timeout_s=self.timeout_s,
            )
        except (kernels().PeerLost, ValueError) as error:
            raise said(error) from error
        return SharedMemoryExchange(self, self._free.popleft(), self._state(plan.num_parts))

    def _state(self, num_parts: int) -> State:
        heads = self.sizes.heads
        size = (num_parts, heads, self.sizes.head_dim)
        return State(torch.empty(size), torch.empty((num_parts, heads)))

    def give_back(self, lane: int) -> None:
        """The lane that was left longest is taken next: what was posted there may be unanswered."""
        self._free.append(lane)

    def close(self) -> None:
        self.client.close()
        self.line.close()


@dataclass(slots=True)
class SharedMemoryExchange:
    """`state` is written over by every `collect`."""

    port: SharedMemoryPort
    lane: int
    state: State
    busy_s: float = field(default=0.0, init=False)
    _is_open: bool = field(default=True, init=False)

    def post(self, layer: int, q: Tensor, /) -> None:
        self._check_open()
        try:
            self.port.client.post(self.lane, layer, q.contiguous())
        except (kernels().PeerLost, ValueError) as error:
            raise said(error) from error

    def collect(self, layer: int, /) -> State:
        self._check_open()
        o, lse = self.state
        try:
            self.port.client.collect(self.lane, layer, o, lse, self.port.timeout_s)
        except (kernels().PeerLost, ValueError) as error:
            raise said(error) from error
        self.busy_s = self.port.client.busy_s(self.lane)
        return self.state

    def _check_open(self) -> None:
        if not self._is_open:
            raise InvariantBroken("an exchange is used after its end")

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.port.give_back(self.lane)


def said(error: Exception) -> ThothError:
    """What a channel says, in the words of this house."""
    if isinstance(error, kernels().PeerLost):
        return Lost(str(error))
    return InvariantBroken(str(error))
