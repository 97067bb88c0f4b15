"""A request on its way through a worker.

There is no prefill phase and no decode phase: a sequence has tokens, `num_computed` of them have
keys and values, and each step computes some of the rest. When none is left, the last row's logits
give the next token.

    tokens:    [ segment 0 | segment 1 | ... | last segment + generated ids ]
               |<--- num_computed --->|<----- still to compute ------------->|
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from cluster.blocks.segment import SegmentTable, SegmentView
from cluster.ids import BlockId
from cluster.request import Request


@dataclass(slots=True)
class Sequence:
    """Mutable state of one request; owned by the iteration scheduler."""

    request: Request
    arrived_s: float
    tokens: list[int] = field(init=False)
    starts: list[int] = field(init=False)
    tables: list[SegmentTable] = field(init=False)
    num_computed: int = 0
    num_recomputed: int = 0
    first_step_s: float | None = None
    has_sampled: bool = False

    def __post_init__(self) -> None:
        segments = self.request.segments
        self.tokens = [t for segment in segments for t in segment] + list(self.request.output_ids)
        self.starts = [0, *accumulate(map(len, segments[:-1]))]
        self.tables = [SegmentTable() for _ in segments]

    @property
    def num_remaining(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.request.num_prompt_tokens

    def lengths(self, end: int) -> list[int]:
        """Tokens of each segment among the first `end`; segments not begun yet are left out."""
        last = bisect_right(self.starts, end - 1)
        bounds = [*self.starts[1:last], end]
        return [b - a for a, b in zip(self.starts[:last], bounds, strict=True)]

    def missing(self, end: int) -> int:
        """Blocks to be allocated before the first `end` tokens fit."""
        pairs = zip(self.tables, self.lengths(end), strict=False)
        return sum(table.missing(length) for table, length in pairs)

    def grow(self, end: int, blocks: tuple[BlockId, ...]) -> None:
        """Takes exactly `missing(end)` blocks."""
        taken = iter(blocks)
        for table, length in zip(self.tables, self.lengths(end), strict=False):
            table.blocks.extend(next(taken) for _ in range(table.missing(length)))

    def views(self, end: int) -> tuple[SegmentView, ...]:
        """The segments the first `end` tokens lie in."""
        pairs = zip(self.tables, self.lengths(end), strict=False)
        return tuple(table.view(length) for table, length in pairs)

    def blocks(self) -> list[BlockId]:
        return [block for table in self.tables for block in table.blocks]

    def let_go(self) -> list[BlockId]:
        """Gives up every block: ended, or preempted and to be computed again."""
        held = self.blocks()
        for table in self.tables:
            table.blocks.clear()
        return held

    def restart(self) -> None:
        """Preempted: nothing of it is computed any more."""
        self.num_recomputed += self.num_computed
        self.num_computed = 0
