"""What the kernels are told to read, against a loop that says it plainly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.attention.cuda.layout import SHORT_ROWS, UnitLayout, lay_out_units, long_runs
from cluster.attention.cuda.plan_buffer import PlanBuffer, Room
from cluster.attention.plan import Run, plan_attention
from cluster.attention.state import TILE_TOKENS
from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId

# row, segment's first block, keys seen, tile
Work = tuple[int, int, int, int]


def segments_of(*lengths: int) -> list[SegmentView]:
    found, first = [], 0
    for num_tokens in lengths:
        blocks = range(first, first + blocks_for(num_tokens))
        found.append(SegmentView(tuple(map(BlockId, blocks)), num_tokens))
        first = blocks.stop
    return found


@st.composite
def steps(draw: st.DrawFn) -> list[Run]:
    """Runs of one row or many, over documents that some of them share."""
    lengths = st.integers(1, 3 * TILE_TOKENS)
    documents = draw(st.lists(lengths, min_size=1, max_size=4))
    contexts = draw(
        st.lists(st.lists(st.integers(0, len(documents) - 1), max_size=3, unique=True), max_size=8)
    )
    own = [draw(lengths) for _ in contexts]
    segments = segments_of(*documents, *own)
    runs, row = [], draw(st.integers(0, 2))
    for i, context in enumerate(contexts):
        last = segments[len(documents) + i]
        num_rows = draw(st.integers(1, min(last.num_tokens, SHORT_ROWS + 2)))
        runs.append(Run(row, num_rows, (*(segments[d] for d in context), last)))
        row += num_rows + draw(st.integers(0, 1))
    return runs


def plainly(runs: list[Run]) -> list[list[Work]]:
    """Each short row's tiles, in the order of its context."""
    rows = []
    for run in runs:
        for i in range(run.num_rows if run.num_rows <= SHORT_ROWS else 0):
            work: list[Work] = []
            for segment in run.segments:
                hidden = run.num_rows - 1 - i if segment is run.segments[-1] else 0
                limit = segment.num_tokens - hidden
                tiles = range(-(-limit // TILE_TOKENS))
                work += [(run.first_row + i, segment.blocks[0], limit, tile) for tile in tiles]
            rows.append(work)
    return rows


def by_state(layout: UnitLayout) -> dict[int, Work]:
    """What the kernel of units writes, by the number of the state."""
    found: dict[int, Work] = {}
    for unit in range(len(layout.unit_tile)):
        tile = int(layout.unit_tile[unit])
        first = int(layout.unit_first[unit])
        block = int(layout.block_ids[layout.unit_block[unit]]) - tile * TILE_TOKENS // 16
        for pair in range(first, first + int(layout.unit_pairs[unit])):
            limit = int(layout.pair_limit[pair])
            if limit > tile * TILE_TOKENS:
                state = int(layout.pair_state[pair]) + tile
                assert state not in found
                found[state] = (int(layout.pair_row[pair]), block, limit, tile)
    return found


@given(steps(), st.integers(1, 5))
def test_every_row_meets_its_tiles_once_and_in_order(runs: list[Run], most_pairs: int) -> None:
    layout = lay_out_units(plan_attention(runs), most_pairs)
    written = by_state(layout)
    assert len(written) == len(layout.closes)
    expected = plainly(runs)
    for work in expected:
        row = work[0][0]
        first, count = int(layout.row_first[row]), int(layout.row_states[row])
        assert [written[first + i] for i in range(count)] == work
        ends = [a[1] != b[1] for a, b in zip(work, [*work[1:], (0, -1, 0, 0)], strict=True)]
        assert layout.closes[first : first + count].tolist() == ends
    assert int(layout.row_states.sum()) == sum(map(len, expected))


@given(steps(), st.integers(1, 5))
def test_units_of_one_pair_come_first_and_none_has_too_many(
    runs: list[Run], most_pairs: int
) -> None:
    layout = lay_out_units(plan_attention(runs), most_pairs)
    pairs = layout.unit_pairs.tolist()
    assert all(count == 1 for count in pairs[: layout.num_single])
    assert all(1 < count <= most_pairs for count in pairs[layout.num_single :])
    assert len(pairs) == layout.num_single + layout.num_shared


@given(steps())
def test_a_run_is_short_or_long(runs: list[Run]) -> None:
    plan = plan_attention(runs)
    long = [i for i, run in enumerate(runs) if run.num_rows > SHORT_ROWS]
    assert long_runs(plan).tolist() == long


def test_a_shared_tile_is_read_once_for_as_many_rows_as_fit() -> None:
    document, *own = segments_of(300, *[1] * 7)
    layout = lay_out_units(
        plan_attention([Run(i, 1, (document, each)) for i, each in enumerate(own)]), most_pairs=4
    )
    assert layout.num_single == 7
    assert layout.unit_pairs[7:].tolist() == [4, 4, 3, 3]
    assert layout.unit_tile[7:].tolist() == [0, 1, 0, 1]


def test_a_buffer_forgets_the_rows_of_a_larger_plan() -> None:
    first, second = segments_of(300, 20)
    both = lay_out_units(plan_attention([Run(0, 1, (first,)), Run(1, 1, (second,))]), 4)
    one = lay_out_units(plan_attention([Run(0, 1, (second,))]), 4)
    buffer = PlanBuffer(Room.needed_by(both), torch.device("cpu"))
    buffer.fill(both)
    addresses = buffer.plan.row_states.data_ptr()
    assert buffer.plan.row_states.tolist() == [2, 1]
    buffer.fill(one)
    assert buffer.plan.row_states.tolist() == [1, 0]
    assert buffer.plan.bounds.tolist() == [0, 1, 1]
    assert buffer.plan.block_ids[:2].tolist() == list(second.blocks)
    assert buffer.plan.row_states.data_ptr() == addresses


def test_a_plan_beyond_the_room_is_refused() -> None:
    (segment,) = segments_of(300)
    layout = lay_out_units(plan_attention([Run(0, 1, (segment,))]), 4)
    room = Room(rows=1, pairs=1, units=1, states=1, blocks=100)
    with pytest.raises(ValueError, match="does not fit"):
        PlanBuffer(room, torch.device("cpu")).fill(layout)
