"""A laid out plan on the device: one buffer, sent in one copy, cut into sections.

    [bounds | unit_block | ... | block_ids]     int32, each section at a multiple of 4 numbers

Made for one plan, the sections are as long as it needs. Made for a CUDA graph they have room for
any plan up to `Room`, so that every plan is read at the same addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cluster.attention.cuda.layout import Int32s, UnitLayout

# 16 bytes: as much as one load can take.
_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Room:
    """How much of everything fits; a state takes `heads * (head_dim + 1)` floats."""

    rows: int
    pairs: int
    units: int
    states: int
    blocks: int

    @classmethod
    def needed_by(cls, layout: UnitLayout) -> Room:
        return cls(
            rows=len(layout.row_first),
            pairs=len(layout.pair_row),
            units=len(layout.unit_tile),
            states=len(layout.closes),
            blocks=len(layout.block_ids),
        )

    def holds(self, other: Room) -> bool:
        return all(getattr(self, f.name) >= getattr(other, f.name) for f in fields(self))

    def sections(self) -> dict[str, int]:
        """Length of each section, in the order of `UnitLayout`."""
        lengths = {"bounds": 3}
        lengths |= dict.fromkeys(
            ("unit_block", "unit_tile", "unit_first", "unit_pairs"), self.units
        )
        lengths |= dict.fromkeys(("pair_row", "pair_limit", "pair_state"), self.pairs)
        lengths |= {"closes": self.states}
        lengths |= dict.fromkeys(("row_first", "row_states"), self.rows)
        return lengths | {"block_ids": self.blocks}


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The sections of `UnitLayout` as views of the device's buffer."""

    bounds: Tensor
    unit_block: Tensor
    unit_tile: Tensor
    unit_first: Tensor
    unit_pairs: Tensor
    pair_row: Tensor
    pair_limit: Tensor
    pair_state: Tensor
    closes: Tensor
    row_first: Tensor
    row_states: Tensor
    block_ids: Tensor


class PlanBuffer:
    """The buffer, and its image in host memory, pinned where the device is a GPU.

    The copy runs in the order of the device's stream: `fill` may be called again once something
    that was launched after it has been waited for, as the tokens of a step are.
    """

    def __init__(self, room: Room, device: torch.device) -> None:
        self.room = room
        self.device = device
        self._lengths = room.sections()
        self._starts: dict[str, int] = {}
        end = 0
        for name, length in self._lengths.items():
            self._starts[name] = end
            end += -(-length // _ALIGNMENT) * _ALIGNMENT
        self._host = torch.zeros(end, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._sections = torch.zeros(end, dtype=torch.int32, device=device)
        self.plan = DevicePlan(**{name: self._section(name) for name in self._lengths})

    def fill(self, layout: UnitLayout) -> None:
        """What is left of a section keeps what it held and is not read. Raises ValueError for more
        than there is room for."""
        if not self.room.holds(Room.needed_by(layout)):
            raise ValueError(f"{Room.needed_by(layout)} does not fit {self.room}")
        host = self._host.numpy()
        for name, start in self._starts.items():
            values: Int32s = getattr(layout, name)
            host[start : start + len(values)] = values
        # Rows of an earlier, larger plan have no states in this one.
        rows = self._starts["row_states"] + len(layout.row_states)
        host[rows : self._starts["row_states"] + self.room.rows] = np.int32(0)
        self._sections.copy_(self._host, non_blocking=True)

    def _section(self, name: str) -> Tensor:
        start = self._starts[name]
        return self._sections[start : start + self._lengths[name]]
