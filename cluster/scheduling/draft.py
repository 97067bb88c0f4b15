"""A step while it is being planned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.blocks.segment import Home
from cluster.knowledge.keys import NodeKey
from cluster.scheduling.plan import Chunk, PlanKind, Why
from cluster.scheduling.sequence import Sequence
from cluster.scheduling.stages import StageCosts, Work, keys_of


@dataclass(slots=True, eq=False)
class Entry:
    """The sequence computes as far as `end`; it has the blocks for that."""

    sequence: Sequence
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.sequence.num_computed


@dataclass(slots=True)
class Draft:
    """`budget` rows are left, `reserved` of them for those that decode, and no more than
    `prompt_rows` for prompts (None: no matter). `claimed` are the documents
    that those planned already will compute; `parked` decode on the host, and have the blocks for a
    row."""

    budget: int
    reserved: int = 0
    prompt_rows: int | None = None
    first: list[Entry] = field(default_factory=list)
    second: list[Entry] = field(default_factory=list)
    claimed: set[NodeKey] = field(default_factory=set)
    parked: list[Sequence] = field(default_factory=list)
    said: str = ""

    def room_for(self, sequence: Sequence) -> int:
        """Rows that it may take."""
        if sequence.is_decoding:
            return self.budget
        rows = self.budget - self.reserved
        return max(0, rows if self.prompt_rows is None else min(rows, self.prompt_rows))

    def add(self, sequence: Sequence, end: int) -> None:
        """It has the blocks for that."""
        if sequence.home is Home.HOST and sequence.is_decoding:
            self.parked.append(sequence)
        else:
            self.first.append(Entry(sequence, end))
            self._take(end - sequence.num_computed)

    def _take(self, rows: int) -> None:
        """Given back if negative."""
        self.budget -= rows
        if self.prompt_rows is not None and abs(rows) > 1:
            self.prompt_rows -= rows

    def drop(self, sequence: Sequence) -> None:
        """It computes nothing in this step after all."""
        kept = [entry for entry in self.first if entry.sequence is not sequence]
        self._take(sum(e.rows for e in kept) - sum(e.rows for e in self.first))
        self.first = kept

    @property
    def entries(self) -> list[Entry]:
        return self.first + self.second

    def why(self, costs: StageCosts) -> Why:
        works = tuple(total(batch) for batch in (self.first, self.second) if batch)
        if not works:
            return Why(said=self.said)
        second = works[1] if len(works) > 1 else Work()
        has_host = any(work.host_rows for work in works)
        kind = PlanKind.ONE_BATCH if has_host else PlanKind.GPU_ONLY
        return Why(
            kind=PlanKind.TWO_BATCH if len(works) > 1 else kind,
            works=works,
            times=tuple(costs.times(work) for work in works),
            seconds=costs.step_seconds(works[0], second),
            said=self.said,
        )


def work_of(sequence: Sequence, end: int) -> Work:
    rows = end - sequence.num_computed
    drawn = int(end == len(sequence.tokens))
    if rows == 1:
        on_host = sequence.host_tokens(end)
        return Work(1, 0, end - on_host, int(on_host > 0), on_host, drawn=drawn)
    # Several rows attend their own on the device: only what is lent to them on the host is not.
    lent = zip(sequence.nodes, sequence.tables, strict=False)
    on_host = sum(node.num_tokens for node, table in lent if table.home is Home.HOST)
    keys = keys_of(sequence.num_computed, rows) - rows * on_host
    streamed = rows if sequence.home is Home.HOST else 0
    return Work(rows, keys, 0, rows if on_host else 0, rows * on_host, streamed, drawn)


def total(entries: Iterable[Entry]) -> Work:
    rows = keys = device = host_rows = host = streamed = drawn = 0
    for entry in entries:
        sequence, end = entry.sequence, entry.end
        is_row = sequence.room_until and end - sequence.num_computed == 1
        if is_row and sequence.home is Home.DEVICE:
            rows += 1
            device += end
            drawn += end == len(sequence.tokens)
            continue
        work = work_of(sequence, end)
        rows += work.rows
        keys += work.prefill_keys
        device += work.device_tokens
        host_rows += work.host_rows
        host += work.host_tokens
        streamed += work.streamed_rows
        drawn += work.drawn
    return Work(rows, keys, device, host_rows, host, streamed, drawn)


def chunk_of(entry: Entry) -> Chunk:
    sequence, end = entry.sequence, entry.end
    start, request, ids = sequence.num_computed, sequence.request, sequence.tokens
    return Chunk(
        request.id,
        start,
        tuple(ids[start:end]),
        sequence.views(end),
        request.sampling if end == len(ids) else None,
        ids,
        sequence.num_prompt,
    )
