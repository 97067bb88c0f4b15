"""Copies between a CUDA device and the host, on a stream beside the one that computes.

    copies' stream   read what leaves | write what comes | mark | send what leaves    layer by layer
    step's stream    ..                                    wait for the mark, touch the layer

A thread gives the orders, for rows of memory that is not pinned are gathered by a processor. A step
that comes to a layer waits until its orders are given, and goes on giving its own: for the bytes
its stream waits.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from contextlib import AbstractContextManager, suppress
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cluster.engine.tiers.copies import Copies
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.passages import Mark, Passage, PinnedRows, StagedRows

log = logging.getLogger(__name__)

Marked = TypeVar("Marked", bound=Mark)


class Stream(Protocol[Marked]):
    """Beside the one that a step's work goes to: CUDA's, or in tests one whose work is done when it
    is ordered."""

    def follow(self) -> None:
        """What is ordered here from now on comes after all that the step's stream has to do."""
        ...

    def here(self) -> AbstractContextManager[object]:
        """Inside, what this thread orders goes here."""
        ...

    def mark(self) -> Marked: ...

    def hold(self, mark: Marked, /) -> None:
        """What is ordered in the step's stream from now on comes after the mark."""
        ...

    def synchronize(self) -> None:
        """Returns when all that was ordered here is done."""
        ...


class StreamCopier(Generic[Marked]):
    """A `Copier`."""

    def __init__(self, device: torch.device, stream: Stream[Marked], passage: Passage) -> None:
        self._device = device
        self._stream = stream
        self._passage = passage
        self._thread = ThreadPoolExecutor(1, "copier")
        self._layers: list[Future[Marked]] = []

    def begin(self, copies: Copies, /) -> None:
        # Held by the futures until all is done: the other stream reads them.
        source, target = copies.outs.source.to(self._device), copies.ins.target.to(self._device)
        self._stream.follow()
        self._layers = [
            self._thread.submit(self._copy, copies, layer, source, target)
            for layer in range(len(copies.layers))
        ]

    def wait(self, layer: int, /) -> None:
        if self._layers:
            self._stream.hold(self._layers[layer].result())

    @torch.inference_mode()
    def finish(self) -> None:
        layers, self._layers = self._layers, []
        wait_for_all(layers)
        self._stream.synchronize()
        self._passage.finish()
        for layer in layers:
            layer.result()

    def close(self) -> None:
        self._thread.shutdown()

    @torch.inference_mode()
    def _copy(self, copies: Copies, layer: int, source: Tensor, target: Tensor) -> Marked:
        pairs = copies.layers[layer]
        with self._stream.here():
            leaving = [device.index_select(0, source) for device, _ in pairs if len(source)]
            for device, host in pairs if len(target) else ():
                rows = self._passage.bring(host, copies.ins.source, self._device)
                device.index_copy_(0, target, rows)
            mark = self._stream.mark()
            for rows, (_, host) in zip(leaving, pairs, strict=False):
                self._passage.send(rows, host, copies.outs.target)
        return mark


class CudaStream:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def here(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def hold(self, mark: torch.cuda.Event, /) -> None:
        torch.cuda.current_stream(self._device).wait_event(mark)

    def synchronize(self) -> None:
        self._stream.synchronize()


class CudaCopier(StreamCopier[torch.cuda.Event]):
    """The arena is pinned where the driver does that, until `close`."""

    def __init__(self, device: torch.device, arena: HostArena) -> None:
        stream = CudaStream(device)
        self._pinned = _pinned(arena.everything(), device)
        super().__init__(device, stream, PinnedRows() if self._pinned else _staged(stream))

    def close(self) -> None:
        super().close()
        if self._pinned:
            _driver().cudaHostUnregister(self._pinned)
            self._pinned = 0


def _pinned(memory: Tensor, device: torch.device) -> int:
    """Where the memory begins, which is pinned now; 0 when the driver does not."""
    address = memory.data_ptr()
    error = _driver().cudaHostRegister(address, memory.nbytes, 0)
    if int(error) == 0:
        return address
    log.warning("the host's memory is not pinned, CUDA error %d: copies are staged", int(error))
    # The refusal would else be told to whoever asks the driver next.
    with suppress(RuntimeError):
        torch.zeros(1, device=device).cpu()
    return 0


def _driver() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _staged(stream: CudaStream) -> StagedRows:
    def allocate(num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    return StagedRows(allocate, stream.mark)
