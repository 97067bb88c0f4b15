"""A plan as work for the Triton kernels, laid out with numpy once a step.

Rows of short runs are folded tile by tile, each tile by another program, so that few rows over long
contexts still fill a device:

    pair   a row and a segment it sees
    unit   a tile of 256 keys and the pairs that see it, read once for all of them
    state  what one pair found in one tile; a row's states are merged in the order of its context

Rows of long runs fill the device by their number; a program takes a block of them and folds all it
sees. Which runs are long is a matter of speed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.attention.plan import AttentionPlan
from cluster.attention.state import TILE_TOKENS
from cluster.blocks.pool import BLOCK_TOKENS

Int32s = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

# A run of more rows is long.
SHORT_ROWS = 16


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """What the kernels of short runs read, all int32.

    bounds      [3]       units of one pair are 0 to bounds[1], those of several bounds[1] to [2]
    unit_block  [units]   where the tile's blocks begin in block_ids
    unit_tile   [units]   number of the tile in its segment
    unit_first  [units]   first pair
    unit_pairs  [units]   number of pairs, which follow one another
    pair_row    [pairs]
    pair_limit  [pairs]   keys of the segment that the row sees
    pair_state  [pairs]   state of the segment's first tile; the others follow
    closes      [states]  1 at the last tile of a segment
    row_first   [rows]    first state of a row
    row_states  [rows]    number of its states, 0 for a row of a long run or of none
    block_ids   [...]
    """

    bounds: Int32s
    unit_block: Int32s
    unit_tile: Int32s
    unit_first: Int32s
    unit_pairs: Int32s
    pair_row: Int32s
    pair_limit: Int32s
    pair_state: Int32s
    closes: Int32s
    row_first: Int32s
    row_states: Int32s
    block_ids: Int32s

    @property
    def num_single(self) -> int:
        """Units of one pair."""
        return int(self.bounds[1])

    @property
    def num_shared(self) -> int:
        """Units of several pairs."""
        return int(self.bounds[2] - self.bounds[1])


def long_runs(plan: AttentionPlan) -> Ints:
    """Numbers of the runs that have more than `SHORT_ROWS` rows."""
    return np.flatnonzero(_numpy(plan.run_rows)[:, 1] > SHORT_ROWS)


def lay_out_units(plan: AttentionPlan, most_pairs: int) -> UnitLayout:
    """The plan's short runs, with at most `most_pairs` rows to a unit."""
    row, segment, limit = _pairs(plan)
    num_tiles = -(-limit // TILE_TOKENS)
    first_state = _starts(num_tiles)
    by_segment = np.argsort(segment, kind="stable")
    first, count, tiles = _groups(segment[by_segment], num_tiles[by_segment], most_pairs)
    # Units of one pair come first: they take a kernel of their own.
    order = np.argsort(count > 1, kind="stable")
    first, count, tiles = first[order], count[order], tiles[order]
    group = np.repeat(np.arange(len(first)), tiles)
    tile = _counts_up(tiles)
    start = _numpy(plan.segment_offsets)[segment[by_segment][first[group]]]
    closes = np.zeros(int(num_tiles.sum()), np.int32)
    closes[first_state + num_tiles - 1] = 1
    row_first, row_states = _rows(row, num_tiles)
    num_single = int((count[group] == 1).sum())
    return UnitLayout(
        bounds=_int32(np.array([0, num_single, len(group)])),
        unit_block=_int32(start + tile * (TILE_TOKENS // BLOCK_TOKENS)),
        unit_tile=_int32(tile),
        unit_first=_int32(first[group]),
        unit_pairs=_int32(count[group]),
        pair_row=_int32(row[by_segment]),
        pair_limit=_int32(limit[by_segment]),
        pair_state=_int32(first_state[by_segment]),
        closes=closes,
        row_first=row_first,
        row_states=row_states,
        block_ids=_int32(_numpy(plan.block_ids)),
    )


def _pairs(plan: AttentionPlan) -> tuple[Ints, Ints, Ints]:
    """Row, segment and number of keys seen, in the order of rows and of their contexts."""
    first_row, num_rows = _numpy(plan.run_rows).T
    offsets, numbers = _numpy(plan.run_offsets), _numpy(plan.run_segments)
    short = np.flatnonzero(num_rows <= SHORT_ROWS)
    run = np.repeat(short, num_rows[short])
    place = _counts_up(num_rows[short])
    row = first_row[run] + place
    num_segments = np.diff(offsets)[run]
    of_row = np.repeat(np.arange(len(row)), num_segments)
    nth = _counts_up(num_segments)
    segment = numbers[offsets[run[of_row]] + nth]
    is_own = nth == num_segments[of_row] - 1
    rows_after = np.where(is_own, num_rows[run[of_row]] - 1 - place[of_row], 0)
    return row[of_row], segment, _numpy(plan.segment_tokens)[segment] - rows_after


def _groups(segment: Ints, num_tiles: Ints, most_pairs: int) -> tuple[Ints, Ints, Ints]:
    """Cuts the pairs of each segment, which are sorted by it, into groups: first pair, number of
    pairs, and tiles that at least one of them sees."""
    if not len(segment):
        return (np.zeros(0, np.int64),) * 3
    is_new = np.diff(segment, prepend=-1) != 0
    nth = np.arange(len(segment)) - np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
    first = np.flatnonzero(nth % most_pairs == 0)
    count = np.diff(first, append=len(segment))
    return first, count, np.maximum.reduceat(num_tiles, first)


def _rows(row: Ints, num_tiles: Ints) -> tuple[Int32s, Int32s]:
    """First state and number of states of each row; a row's pairs follow one another."""
    states = np.zeros(int(row.max()) + 1 if len(row) else 0, np.int64)
    np.add.at(states, row, num_tiles)
    first = np.zeros_like(states)
    is_new = np.diff(row, prepend=-1) != 0
    first[row[is_new]] = _starts(num_tiles)[is_new]
    return _int32(first), _int32(states)


def _starts(counts: Ints) -> Ints:
    """Where parts of these lengths begin when laid end to end."""
    return np.cumsum(counts) - counts


def _counts_up(counts: Ints) -> Ints:
    """0 to n - 1 for each n, end to end."""
    return np.arange(int(counts.sum())) - np.repeat(_starts(counts), counts)


def _numpy(tensor: object) -> Ints:
    return np.asarray(tensor, dtype=np.int64)


def _int32(values: Ints) -> Int32s:
    return values.astype(np.int32)
