"""A request on its way through a worker.

There is no prefill phase and no decode phase: a sequence has tokens, `num_computed` of them have
keys and values, and each step computes some of the rest. When none is left, the last row's logits
give the next token.

    tokens:    [ segment 0 | segment 1 | ... | last segment + generated ids ]
    segments:  | nodes of the tree, lent | its own ....                     |
               |<--- num_computed --->|<----- still to compute ------------->|

From row to row of a decoding sequence nothing changes but its last segment, sixteen rows long not
even that one's blocks: `room_until` and `still` say so once. Whatever gives, takes or moves a block
forgets both (`forget`), and the next step that ran finds them anew (`stand`).

What can never be shared lies where its `home` is: on the device, or on the host, where it decodes
while the device computes something else. What may be shared is computed on the device.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise

from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentTable, SegmentView
from cluster.ids import BlockId
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.request import CachedTokens, Request


@dataclass(frozen=True, slots=True)
class Held:
    """What a sequence gives up: blocks of its own in both memories, and nodes."""

    device: list[BlockId]
    host: list[BlockId]
    nodes: list[Node]


@dataclass(slots=True, eq=False)
class Sequence:
    """Mutable state of one request; owned by the iteration scheduler, and equal to itself alone.

    `keys` are those of the leading segments that may be shared, `nodes` the ones of them that it
    has pinned. `num_reached` is the most that ever was computed: what lies below it and is computed
    after a preemption is computed again, and counts as neither cached nor computed.
    """

    request: Request
    arrived_s: float
    keys: tuple[NodeKey, ...] = ()
    # The order of arrival.
    ordinal: int = 0
    tokens: list[int] = field(init=False)
    starts: list[int] = field(init=False)
    tables: list[SegmentTable] = field(init=False)
    nodes: list[Node] = field(init=False, default_factory=list)
    num_computed: int = 0
    num_reached: int = 0
    num_recomputed: int = 0
    num_fresh: int = 0
    # For each node, where it was found and how many of its tokens that saved.
    found: list[tuple[Tier, int]] = field(init=False, default_factory=list)
    cached: Counter[Tier] = field(init=False, default_factory=Counter)
    num_accessed: int = 0
    cost_s: float = 0.0
    # Nodes that a step has run with.
    num_settled: int = 0
    first_step_s: float | None = None
    has_sampled: bool = False
    home: Home = Home.DEVICE
    is_running: bool = False
    # Steps since one computed anything of it, and since its home changed.
    num_skipped: int = 0
    num_steps_there: int = 0
    # Where the step that is planned ends; None: it computes nothing of it.
    planned: int | None = None
    # As long as it has no more tokens, a row needs nothing but its last segment; 0: who knows.
    room_until: int = 0
    # What such a row attends before its last segment.
    still: tuple[SegmentView, ...] = ()
    num_prompt: int = field(init=False)
    most_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        segments = self.request.segments
        self.num_prompt = self.request.num_prompt_tokens
        self.most_tokens = self.num_prompt + self.request.sampling.max_tokens
        self.tokens = [t for segment in segments for t in segment] + list(self.request.output_ids)
        self.starts = [0, *accumulate(map(len, segments[:-1]))]
        self.tables = [SegmentTable() for _ in segments]

    @property
    def num_remaining(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def cached_tokens(self) -> CachedTokens:
        return CachedTokens(*(self.cached[t] for t in (Tier.DEVICE, Tier.HOST, Tier.DISK)))

    @property
    def next_key(self) -> NodeKey | None:
        """The key of the segment that it stands at the start of, if that may be shared."""
        index = len(self.nodes)
        is_at_start = index < len(self.keys) and self.num_computed == self.starts[index]
        return self.keys[index] if is_at_start else None

    @property
    def next_to_keep(self) -> int | None:
        """The segment that is computed whole and not in the tree yet."""
        index = len(self.nodes)
        if index >= len(self.keys) or self.num_computed < self.starts[index + 1]:
            return None
        return index

    def num_rows_after(self, index: int) -> int:
        """Rows that attend a leading segment, if the answer becomes as long as it may."""
        return self.most_tokens - self.starts[index + 1]

    def adopt(self, node: Node, tier: Tier, home: Home) -> bool:
        """Takes the next segment as it lies in a memory. True: for the first time."""
        table = self.tables[len(self.nodes)]
        self.forget()
        table.blocks = node.host if home is Home.HOST else node.device
        table.is_shared, table.home = True, home
        self.num_computed += node.num_tokens
        num_saved = max(0, self.num_computed - max(self.starts[len(self.nodes)], self.num_reached))
        self.cached[tier] += num_saved
        self.num_reached += num_saved
        return self._has(node, tier, num_saved)

    def come_nearer(self) -> None:
        """What it attends on the host, and has come to the device since, it attends there."""
        for table, node in zip(self.tables, self.nodes, strict=False):
            if table.home is Home.HOST and node.device:
                table.blocks, table.home = node.device, Home.DEVICE
                self.forget()

    def kept(self, node: Node) -> bool:
        """The next segment, which it has computed, is a node now. True: for the first time."""
        return self._has(node, Tier.DEVICE, 0)

    def _has(self, node: Node, tier: Tier, num_saved: int) -> bool:
        self.nodes.append(node)
        self.found.append((tier, num_saved))
        is_first = len(self.nodes) > self.num_accessed
        self.num_accessed = max(self.num_accessed, len(self.nodes))
        return is_first

    def computed(self, end: int) -> None:
        """The tokens before `end` have keys and values now."""
        num_prompt = self.num_prompt
        if num_prompt <= self.num_computed == self.num_reached:
            self.num_computed = self.num_reached = end
            return
        again = min(end, self.num_reached) - self.num_computed
        self.num_recomputed += max(0, again)
        self.num_fresh += max(0, min(end, num_prompt) - max(self.num_computed, self.num_reached))
        self.num_computed = end
        self.num_reached = max(self.num_reached, end)

    def lengths(self, end: int) -> list[int]:
        """Tokens of each segment among the first `end`; segments not begun yet are left out."""
        if len(self.starts) == 1:
            return [end] if end > 0 else []
        last = bisect_right(self.starts, end - 1)
        bounds = [*self.starts[1:last], end] if last else []
        return [b - a for a, b in zip(self.starts[:last], bounds, strict=True)]

    @property
    def is_decoding(self) -> bool:
        """Whether one row is all that its next token takes."""
        return len(self.tokens) - self.num_computed == 1 and self.num_computed > 0

    @property
    def has_row(self) -> bool:
        """Whether it decodes, and a step needs to look up nothing for that."""
        num_tokens = len(self.tokens)
        return num_tokens <= self.room_until and num_tokens - self.num_computed == 1

    def stand(self) -> None:
        """A step has run: what does not change from here on, if only the last segment grows."""
        *others, last = self.tables
        num_last = self.num_computed - self.starts[-1]
        has_all = len(self.nodes) == len(self.keys) and len(last.blocks) == blocks_for(num_last)
        lent = self.tables[: len(self.nodes)]
        if num_last > 0 and has_all and all(table.home is Home.DEVICE for table in lent):
            lengths = [b - a for a, b in pairwise(self.starts)]
            self.still = tuple(t.view(n) for t, n in zip(others, lengths, strict=True))
            self.room_until = self.starts[-1] + BLOCK_TOKENS * len(last.blocks)

    def forget(self) -> None:
        """Blocks are about to change."""
        self.room_until, self.still = 0, ()

    def settle(self, home: Home) -> None:
        """Where its own segments are to lie; while it holds no block of theirs."""
        self.forget()
        self.home = home
        for table in self._own_tables:
            table.home = home

    @property
    def _own_tables(self) -> list[SegmentTable]:
        return self.tables[len(self.keys) :]

    def missing(self, end: int, home: Home = Home.DEVICE) -> int:
        """Blocks of a memory to be allocated before the first `end` tokens fit."""
        pairs = zip(self.tables, self.lengths(end), strict=False)
        return sum(table.missing(length) for table, length in pairs if table.home is home)

    def grow(self, end: int, blocks: tuple[BlockId, ...], home: Home = Home.DEVICE) -> None:
        """Takes exactly `missing(end, home)` blocks."""
        self.forget()
        taken = iter(blocks)
        for table, length in zip(self.tables, self.lengths(end), strict=False):
            if table.home is home:
                table.blocks += tuple(islice(taken, table.missing(length)))

    def pageable(self) -> list[BlockId]:
        """The blocks of its own segments, all in one memory."""
        return [block for table in self._own_tables for block in table.blocks]

    def page(self, home: Home, blocks: tuple[BlockId, ...]) -> None:
        """Its own segments lie in these blocks of another memory from now on."""
        taken = iter(blocks)
        for table in self._own_tables:
            table.blocks = tuple(islice(taken, len(table.blocks)))
        self.settle(home)
        self.num_steps_there = 0

    def host_tokens(self, end: int) -> int:
        """Of the first `end`, those that lie on the host."""
        if self.room_until:
            return end - self.starts[len(self.keys)] if self.home is Home.HOST else 0
        pairs = zip(self.tables, self.lengths(end), strict=False)
        return sum(length for table, length in pairs if table.home is Home.HOST)

    def views(self, end: int) -> tuple[SegmentView, ...]:
        """The segments the first `end` tokens lie in. Several rows attend their own where the
        device computes, wherever they lie."""
        if self.room_until and end - self.num_computed == 1:
            last = self.tables[-1]
            return (*self.still, SegmentView(last.blocks, end - self.starts[-1], last.home))
        tables = list(zip(self.tables, self.lengths(end), strict=False))
        if self.home is Home.DEVICE or end - self.num_computed == 1:
            return tuple(table.view(length) for table, length in tables)
        return tuple(
            table.view(length)._replace(home=Home.STREAMED)
            if table.home is Home.HOST and not table.is_shared
            else table.view(length)
            for table, length in tables
        )

    def blocks(self, home: Home = Home.DEVICE) -> list[BlockId]:
        """Its own in a memory: what is lent to it is not among them."""
        return _own_blocks(self.tables, home)

    def num_own_blocks(self, home: Home = Home.DEVICE) -> int:
        tables = self.tables
        return sum(len(t.blocks) for t in tables if not t.is_shared and t.home is home)

    def let_go(self) -> Held:
        """Gives up every block and node: ended, or preempted and to be computed again."""
        held = Held(self.blocks(Home.DEVICE), self.blocks(Home.HOST), self.nodes)
        self.tables = [SegmentTable() for _ in self.tables]
        self.nodes, self.found = [], []
        self.forget()
        self.num_computed = self.num_settled = self.num_skipped = self.num_steps_there = 0
        self.planned = None
        self.home, self.is_running = Home.DEVICE, False
        return held

    def cut(self, num_nodes: int) -> Held:
        """Goes back to the start of a segment whose node is lost, which it has adopted since the
        last step: gives up all from there on."""
        tables = self.tables[num_nodes:]
        device, host = (_own_blocks(tables, home) for home in (Home.DEVICE, Home.HOST))
        for tier, num_saved in self.found[num_nodes:]:
            self.cached[tier] -= num_saved
            self.num_reached -= num_saved
        nodes = self.nodes[num_nodes:]
        del self.nodes[num_nodes:], self.found[num_nodes:]
        self.tables[num_nodes:] = [SegmentTable() for _ in self.tables[num_nodes:]]
        self.num_computed = self.starts[num_nodes]
        self.settle(self.home)
        return Held(device, host, nodes)


def _own_blocks(tables: Iterable[SegmentTable], home: Home) -> list[BlockId]:
    return [b for t in tables if not t.is_shared and t.home is home for b in t.blocks]
