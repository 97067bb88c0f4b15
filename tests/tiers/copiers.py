"""Every way of copying that runs without a GPU, and layers that can be held up or that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor

from cluster.engine.tiers.copies import Copier, Copies, Layer, ThreadCopier
from cluster.engine.tiers.cuda_copies import StreamCopier
from cluster.engine.tiers.passages import PinnedRows, StagedRows

CPU = torch.device("cpu")
# For a step that would wait for ever: the test fails instead.
HELD_S = 30.0


@dataclass
class Done:
    """A mark of a stream that does its work when it is ordered."""

    synchronized: int = 0

    def synchronize(self) -> None:
        self.synchronized += 1


class AtOnce:
    """A stream whose work is done when it is ordered."""

    def follow(self) -> None:
        """Everything before it is done."""

    def here(self) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self) -> Done:
        return Done()

    def hold(self, mark: Done, /) -> None:
        """What the mark stands for is done."""

    def synchronize(self) -> None:
        """All is done."""


def pageable(num_bytes: int) -> Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8)


def before_the_step() -> Copier:
    return ThreadCopier(least_bytes=2**62)


def beside_the_step() -> Copier:
    return ThreadCopier(least_bytes=0)


def by_stream() -> Copier:
    return StreamCopier(CPU, AtOnce(), PinnedRows())


def by_slots() -> Copier:
    return StreamCopier(CPU, AtOnce(), StagedRows(pageable, Done))


class LateSends:
    """What comes is there before the step begins; what leaves has been read by then, and is written
    on the host when all is awaited: as late as a stream may."""

    def __init__(self) -> None:
        self._sends: list[tuple[Tensor, Tensor, Tensor]] = []

    def begin(self, copies: Copies, /) -> None:
        outs, ins = copies.outs, copies.ins
        for pairs in copies.layers:
            for device, host in pairs:
                self._sends.append((host, outs.target, device.index_select(0, outs.source)))
                device.index_copy_(0, ins.target, host.index_select(0, ins.source))

    def wait(self, layer: int, /) -> None:
        """The device's blocks may be touched at once."""

    def finish(self) -> None:
        sends, self._sends = self._sends, []
        for host, target, rows in sends:
            host.index_copy_(0, target, rows)

    def close(self) -> None:
        """Nothing is held."""


COPIERS: tuple[Callable[[], Copier], ...] = (before_the_step, beside_the_step, by_stream, by_slots)


@dataclass
class Watched(Sequence[Layer]):
    """Layers of which one is looked at before it is copied."""

    layers: Sequence[Layer]
    number: int
    look: Callable[[], object]

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Layer]: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequence[Layer]:
        if index == self.number:
            self.look()
        return self.layers[index]


@dataclass
class WatchedCopier:
    """`look` is called by whoever copies, before it copies the layer."""

    copier: Copier
    number: int
    look: Callable[[], object]
    num_begun: int = 0

    def begin(self, copies: Copies, /) -> None:
        self.num_begun += 1
        self.copier.begin(replace(copies, layers=Watched(copies.layers, self.number, self.look)))

    def wait(self, layer: int, /) -> None:
        self.copier.wait(layer)

    def finish(self) -> None:
        self.copier.finish()

    def close(self) -> None:
        self.copier.close()


@dataclass
class Hold:
    """Lets nobody through until it is let go of."""

    event: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        if not self.event.wait(HELD_S):
            raise TimeoutError("held for too long: nobody computed meanwhile")

    def let_go(self) -> None:
        self.event.set()


class Broken(Exception):
    """What a copy fails with in these tests."""


def breaks() -> None:
    raise Broken
