"""Copies between the device's blocks and the host's, layer by layer beside a step that computes.

    copier    layer 0 | layer 1 | layer 2 | ..            of each first what leaves, then what comes
    step            wait 0, layer 0 | wait 1, layer 1 | .. | finish

A step may write a block that is just leaving, and read one that is just coming: it waits for a
layer before it touches that layer's blocks, and meanwhile the next layers are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cluster.errors import InvariantBroken
from cluster.knowledge.node import Blocks

# Keys and values of one layer: the device's blocks and the host's.
Layer = Sequence[tuple[Tensor, Tensor]]

# So many bytes are copied in a millisecond, and about as long takes it to hand over the layers of a
# model to a thread and to wait for each: fewer are sooner there when they are copied at once.
LEAST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Rows:
    """Blocks that are read and, in the same order, those that are written: [blocks] int64, cpu."""

    source: Tensor
    target: Tensor

    @classmethod
    def of(cls, moves: Sequence[tuple[Blocks, Blocks]]) -> Rows:
        """Source and target blocks of all moves. Raises InvariantBroken when they do not pair."""
        if any(len(source) != len(target) for source, target in moves):
            raise InvariantBroken("a node is moved to more or fewer blocks than it has")
        sources = [block for source, _ in moves for block in source]
        targets = [block for _, target in moves for block in target]
        return cls(torch.tensor(sources, dtype=torch.long), torch.tensor(targets, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, slots=True)
class Copies:
    """What goes from the device to the host, then what comes from there. No block is written twice,
    and none is read after it was written."""

    layers: Sequence[Layer]
    outs: Rows
    ins: Rows

    @property
    def num_bytes(self) -> int:
        block_bytes = sum(device.stride(0) * device.itemsize for device, _ in self.layers[0])
        return (len(self.outs) + len(self.ins)) * block_bytes * len(self.layers)

    @torch.inference_mode()
    def copy(self, layer: int) -> None:
        """Has copied when it returns, whatever device it is."""
        pairs = self.layers[layer]
        for device, host in pairs if len(self.outs) else ():
            rows = device.index_select(0, self.outs.source.to(device.device))
            host.index_copy_(0, self.outs.target, rows.to(host.device))
        for device, host in pairs if len(self.ins) else ():
            rows = host.index_select(0, self.ins.source).to(device.device)
            device.index_copy_(0, self.ins.target.to(device.device), rows)

    def copy_all(self) -> None:
        for layer in range(len(self.layers)):
            self.copy(layer)


class Copier(Protocol):
    """Whoever makes the copies, in the order of their layers; from `begin` to `finish` one set of
    them. What fails in a copy is raised by `wait` and by `finish`."""

    def begin(self, copies: Copies, /) -> None: ...

    def wait(self, layer: int, /) -> None:
        """Returns when the layer's blocks on the device may be read and written; without copies at
        once."""
        ...

    def finish(self) -> None:
        """Returns when all is copied, or nothing more will be."""
        ...

    def close(self) -> None:
        """After the last `finish`."""
        ...


class ThreadCopier:
    """A thread beside the one that computes: torch's copies let others run. What takes less than
    `least_bytes` is copied by `begin` itself."""

    def __init__(self, least_bytes: int = LEAST_BYTES) -> None:
        self._least_bytes = least_bytes
        # Begins at the first copy.
        self._thread = ThreadPoolExecutor(1, "copier")
        self._layers: list[Future[None]] = []

    def begin(self, copies: Copies, /) -> None:
        if copies.num_bytes < self._least_bytes:
            copies.copy_all()
            return
        layers = range(len(copies.layers))
        self._layers = [self._thread.submit(copies.copy, layer) for layer in layers]

    def wait(self, layer: int, /) -> None:
        if self._layers:
            self._layers[layer].result()

    def finish(self) -> None:
        layers, self._layers = self._layers, []
        # None may still be under way when the first failure is raised.
        wait_for_all(layers)
        for layer in layers:
            layer.result()

    def close(self) -> None:
        self._thread.shutdown()
