"""Decode steps recorded once and replayed: the GPU is told what to do in one call, not thousands.

A step of few rows is padded to the next of a few sizes; its inputs and its plan are copied to where
the recorded kernels read them.

    step  ->  size, kind of plan  ->  graph         recorded at its first use
    rows beyond the step's        ->  token 0 at position 0 into the scratch slot, attending nothing

What does not fit is computed eagerly: `logits` answers None and `counts` says how often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cluster.attention.backend import Attention
from cluster.attention.plan import AttentionPlan
from cluster.engine.forward import Gate, Model, OpenGate
from cluster.engine.kv_cache import KvCache
from cluster.engine.step import Step
from cluster.models.decoder import run_pass

# Runs before a recording, in which kernels are compiled and libraries take their memory.
WARM_UPS = 2
_OPEN = OpenGate()

Kind = TypeVar("Kind", bound=Hashable)


class Recording(Protocol):
    """Work that can be done again on what its inputs then hold."""

    @property
    def output(self) -> Tensor:
        """The same tensor every time; it holds what the last `replay` of any recording left."""
        ...

    def replay(self) -> None: ...


class Recorder(Protocol):
    """What records: CUDA, or in tests something that runs it anew each time."""

    def record(self, work: Callable[[], Tensor]) -> Recording:
        """`work` may run several times; it must do the same on the same inputs."""
        ...


class FixedPlans(Protocol[Kind]):
    """Attention that reads every plan at the same addresses."""

    def offer(self, plan: AttentionPlan, /) -> Kind | None:
        """Takes the plan in, and says what kind it is; None when there is no room for it."""
        ...

    def attention(self, kind: Kind, /) -> Attention: ...

    def append(
        self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor, /
    ) -> None: ...


def sizes_up_to(most_rows: int) -> tuple[int, ...]:
    """Powers of two, and `most_rows` itself."""
    powers = [1 << i for i in range(most_rows.bit_length())]
    return tuple(sorted({*powers, most_rows} - {p for p in powers if p > most_rows}))


@dataclass(slots=True)
class GraphCounts:
    """Steps replayed, recorded (and replayed), and left to eager computation because of their rows,
    their plan, or what they attend or write in another memory."""

    replayed: int = 0
    recorded: int = 0
    too_many_rows: int = 0
    too_large_plan: int = 0
    in_other_memory: int = 0


class Inputs:
    """What a step is computed from, at fixed addresses: token ids, positions and slots."""

    def __init__(self, most_rows: int, scratch_slot: int, device: torch.device) -> None:
        self._padding = torch.tensor([0, 0, scratch_slot])
        pinned = device.type == "cuda"
        self._host = torch.zeros((3, most_rows), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros((3, most_rows), dtype=torch.int64, device=device)

    def fill(self, step: Step) -> None:
        """The step's rows, and padding in all others."""
        rows = len(step.token_ids)
        self._host[:] = self._padding[:, None]
        for line, values in enumerate((step.token_ids, step.positions, step.slots)):
            self._host[line, :rows] = values
        self._device.copy_(self._host, non_blocking=True)

    def first(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, positions and slots of the first `size` rows."""
        token_ids, positions, slots = self._device[:, :size]
        return token_ids, positions, slots


class DecodeGraphs(Generic[Kind]):
    """Graphs of one model over one cache. `scratch_slot` lies in a block that no request holds."""

    def __init__(
        self,
        model: Model,
        cache: KvCache,
        plans: FixedPlans[Kind],
        recorder: Recorder,
        sizes: Sequence[int],
        scratch_slot: int,
    ) -> None:
        self.counts = GraphCounts()
        self._model = model
        self._cache = cache
        self._plans = plans
        self._recorder = recorder
        self._sizes = sorted(sizes)
        self._device = cache.k[0].device
        self._inputs = Inputs(self._sizes[-1], scratch_slot, self._device)
        self._graphs: dict[tuple[int, Kind], Recording] = {}

    @torch.inference_mode()
    def logits(self, step: Step, gate: Gate = _OPEN) -> Tensor | None:
        """Logits [outputs, vocab] of the step's output rows, a copy; None: compute it eagerly."""
        rows = len(step.token_ids)
        if rows > self._sizes[-1]:
            self.counts.too_many_rows += 1
            return None
        if step.attention.fold is not None or step.host is not None:
            self.counts.in_other_memory += 1
            return None
        kind = self._plans.offer(step.attention.whole)
        if kind is None:
            self.counts.too_large_plan += 1
            return None
        for layer in range(len(self._cache.k)):
            gate.wait(layer)
        self._inputs.fill(step)
        graph = self._graph(self._sizes[bisect_left(self._sizes, rows)], kind)
        graph.replay()
        self.counts.replayed += 1
        return graph.output[step.output_rows.to(self._device)]

    def _graph(self, size: int, kind: Kind) -> Recording:
        found = self._graphs.get((size, kind))
        if found is None:
            found = self._recorder.record(lambda: self._forward(size, kind))
            self._graphs[size, kind] = found
            self.counts.recorded += 1
        return found

    def _forward(self, size: int, kind: Kind) -> Tensor:
        token_ids, positions, slots = self._inputs.first(size)
        attention = self._plans.attention(kind)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
            k_cache, v_cache = self._cache.k[layer], self._cache.v[layer]
            self._plans.append(k_cache, v_cache, slots, k, v)
            return attention.attend(q, k_cache, v_cache).o

        output_rows = torch.arange(size, device=self._device)
        return run_pass(self._model.begin(token_ids, positions), attend, output_rows)


@dataclass(frozen=True, slots=True)
class CudaRecording:
    graph: torch.cuda.CUDAGraph
    output: Tensor

    def replay(self) -> None:
        self.graph.replay()


class CudaRecorder:
    """`torch.cuda.CUDAGraph`. All recordings share their memory, so only one is of use at a time:
    what one left is overwritten by the next."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> CudaRecording:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = work()
        return CudaRecording(graph, output)
