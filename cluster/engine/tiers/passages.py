"""Ways between rows on a device and rows of the host that return before the bytes are there.

    PinnedRows   device  <- a copy a block ->  host                 the host's memory is pinned
    StagedRows   device  <- one copy ->  slot  <- rows ->  host     elsewhere: pinned slots in turn

On the cpu device both do the same at once, and are tested there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor

# One is filled or emptied while the others are on their way.
NUM_SLOTS = 4


class Mark(Protocol):
    """A place in a stream's orders."""

    def synchronize(self) -> None:
        """Returns when all before it is done."""
        ...


class Passage(Protocol):
    """Called where orders go to one stream; `finish` when that stream has done all of them."""

    def bring(self, host: Tensor, source: Tensor, device: torch.device, /) -> Tensor:
        """The host's rows [rows, ...] on the device, for what is ordered after it."""
        ...

    def send(self, rows: Tensor, host: Tensor, target: Tensor, /) -> None:
        """The device's rows [rows, ...] to these of the host."""
        ...

    def finish(self) -> None:
        """All that was sent is there."""
        ...


class PinnedRows:
    """The device reads and writes the host's memory itself."""

    def bring(self, host: Tensor, source: Tensor, device: torch.device, /) -> Tensor:
        rows = torch.empty((len(source), *host.shape[1:]), dtype=host.dtype, device=device)
        for row, block in zip(rows, source.tolist(), strict=True):
            row.copy_(host[block], non_blocking=True)
        return rows

    def send(self, rows: Tensor, host: Tensor, target: Tensor, /) -> None:
        for row, block in zip(rows, target.tolist(), strict=True):
            host[block].copy_(row, non_blocking=True)

    def finish(self) -> None:
        """The stream has done it."""


@dataclass(slots=True)
class _Slot:
    """Memory that a copy reads or writes until `mark`; `emptied` is called when it has written."""

    memory: Tensor
    mark: Mark | None = None
    emptied: Callable[[], object] | None = None

    def settle(self) -> None:
        mark, emptied = self.mark, self.emptied
        self.mark = self.emptied = None
        if mark is not None:
            mark.synchronize()
        if emptied is not None:
            emptied()


class StagedRows:
    """`allocate` gives so many bytes, uint8, that a device reads and writes beside the processor;
    `mark` marks the stream that orders go to."""

    def __init__(self, allocate: Callable[[int], Tensor], mark: Callable[[], Mark]) -> None:
        self._allocate = allocate
        self._mark = mark
        self._slots = [_Slot(torch.empty(0, dtype=torch.uint8)) for _ in range(NUM_SLOTS)]
        self._turns = cycle(self._slots)

    def bring(self, host: Tensor, source: Tensor, device: torch.device, /) -> Tensor:
        slot, staged = self._next(host, len(source))
        torch.index_select(host, 0, source, out=staged)
        # A copy also where it could be the slot itself, which is written again.
        rows = torch.empty_like(staged, device=device).copy_(staged, non_blocking=True)
        slot.mark = self._mark()
        return rows

    def send(self, rows: Tensor, host: Tensor, target: Tensor, /) -> None:
        slot, staged = self._next(host, len(target))
        staged.copy_(rows, non_blocking=True)
        slot.mark = self._mark()
        slot.emptied = lambda: host.index_copy_(0, target, staged)

    def finish(self) -> None:
        for slot in self._slots:
            slot.settle()

    def _next(self, host: Tensor, count: int) -> tuple[_Slot, Tensor]:
        """A slot that nobody uses, and so many of the host's rows in it."""
        slot = next(self._turns)
        slot.settle()
        shape = (count, *host.shape[1:])
        num_bytes = torch.Size(shape).numel() * host.itemsize
        if slot.memory.nbytes < num_bytes:
            slot.memory = self._allocate(num_bytes)
        return slot, slot.memory[:num_bytes].view(host.dtype).view(shape)
