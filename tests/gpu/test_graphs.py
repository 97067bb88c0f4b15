"""Recorded decode steps: what is copied, padded, recorded and left to eager computation.

On the cpu a recording is run anew each time; the tests marked `gpu` record in earnest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.cuda.fixed_plan import Extent, FixedPlan, Kind, room_for
from cluster.attention.cuda.shape import HeadShape
from cluster.attention.plan import AttentionPlan, plan_attention
from cluster.attention.reference import ReferenceBackend
from cluster.attention.state import State
from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.engine.cuda_graphs import (
    CudaRecorder,
    DecodeGraphs,
    FixedPlans,
    Recorder,
    sizes_up_to,
)
from cluster.engine.forward import EagerForward, GraphedForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.step import Step, lay_out
from cluster.ids import BlockId, RequestId
from cluster.models.config import decoder_config
from cluster.models.decoder import Decoder, assemble, random_tensors
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk
from tests.gpu.paged import backend
from tests.tiny_model import tiny_config

NUM_BLOCKS = 40
SCRATCH = NUM_BLOCKS * 16


@dataclass
class Rerun:
    """Runs the work again where a graph would be replayed, into the same output."""

    work: Callable[[], Tensor]
    output: Tensor
    replays: int = 0

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self.work())


@dataclass
class Rerecorder:
    recordings: list[Rerun]

    def record(self, work: Callable[[], Tensor]) -> Rerun:
        self.recordings.append(Rerun(work, work().clone()))
        return self.recordings[-1]


class ReferencePlans:
    """The reference's attention over the plan that was taken in last: quick, where the interpreter
    is not. Takes segments up to `most_tokens`."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.attended = ReferenceBackend().prepare(plan_attention([]))

    def offer(self, plan: AttentionPlan) -> Kind | None:
        if plan.segment_tokens.max() > self.most_tokens:
            return None
        self.attended = ReferenceBackend().prepare(plan)
        return Kind(has_single=True, has_shared=len(plan.segment_tokens) < len(plan.run_segments))

    def attention(self, kind: Kind) -> ReferencePlans:
        return self

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        return self.attended.attend(q, k_cache, v_cache)

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        ReferenceBackend().append(k_cache, v_cache, slots, k, v)


class Bench:
    """A tiny model twice: eagerly, and by graphs over a cache of its own. `kernels` says whether
    by the Triton kernels."""

    def __init__(
        self, device: torch.device, recorder: Recorder, kernels: bool, room_tokens: int = 600
    ) -> None:
        config = decoder_config(tiny_config())
        tensors = {name: t.to(device) for name, t in random_tensors(config, 3).items()}
        self.model = Decoder(config, assemble(config, tensors), row_multiple=1)
        shape = HeadShape(config.num_heads, config.num_kv_heads, config.head_dim)
        triton = backend(shape, device)
        attention: AttentionBackend = triton if kernels else ReferenceBackend()
        kv = KvShape(config.num_layers, config.num_kv_heads, config.head_dim)
        # One block more than any request may hold: the scratch block.
        self.caches = [KvCache(kv, NUM_BLOCKS + 1, device) for _ in range(2)]
        self.eager = EagerForward(self.model, self.caches[0], attention)
        room = room_for(shape, Extent(4, room_tokens, NUM_BLOCKS))
        plans: FixedPlans[Kind] = (
            FixedPlan(triton, room) if kernels else ReferencePlans(room_tokens)
        )
        self.graphs: DecodeGraphs[Kind] = DecodeGraphs(
            self.model, self.caches[1], plans, recorder, sizes_up_to(4), SCRATCH
        )
        second = EagerForward(self.model, self.caches[1], attention)
        self.graphed = GraphedForward(self.graphs, second)

    def both(self, step: Step) -> tuple[Tensor, Tensor]:
        return self.eager.logits(step).cpu(), self.graphed.logits(step).cpu()


def view(first_block: int, num_tokens: int) -> SegmentView:
    blocks = range(first_block, first_block + blocks_for(num_tokens))
    return SegmentView(tuple(map(BlockId, blocks)), num_tokens)


def chunk(name: str, start: int, ids: Sequence[int], *segments: SegmentView) -> Chunk:
    return Chunk(RequestId(name), start, tuple(ids), segments, Sampling())


def decode(*lengths: int) -> Step:
    """A row each at the end of a context of its own, ten blocks apart."""
    return lay_out([chunk(str(i), n - 1, [5 + i], view(10 * i, n)) for i, n in enumerate(lengths)])


def prompts(*lengths: int) -> Step:
    return lay_out(
        [
            chunk(str(i), 0, [(7 * t + i) % 50 for t in range(n)], view(10 * i, n))
            for i, n in enumerate(lengths)
        ]
    )


@pytest.fixture
def recorder(device: torch.device) -> Recorder:
    return CudaRecorder() if device.type == "cuda" else Rerecorder([])


@pytest.fixture
def bench(device: torch.device, recorder: Recorder) -> Bench:
    """By the kernels where there is a GPU."""
    return Bench(device, recorder, kernels=device.type == "cuda")


def test_sizes_are_powers_of_two_and_the_most_rows() -> None:
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(4) == (1, 2, 4)
    assert sizes_up_to(48) == (1, 2, 4, 8, 16, 32, 48)


def test_graphs_give_what_eager_computation_gives(bench: Bench) -> None:
    for step in (prompts(20, 18), decode(21, 19), decode(22), decode(21, 20, 1), decode(22, 21)):
        eager, graphed = bench.both(step)
        torch.testing.assert_close(graphed, eager, atol=1e-5, rtol=1e-5)
    counts = bench.graphs.counts
    assert (counts.replayed, counts.recorded) == (4, 3)
    # The prompts: more rows than the largest graph.
    assert (counts.too_many_rows, counts.too_large_plan) == (1, 0)
    for ours, theirs in zip(*(c.k + c.v for c in bench.caches), strict=True):
        torch.testing.assert_close(ours[:NUM_BLOCKS], theirs[:NUM_BLOCKS], atol=1e-5, rtol=1e-5)


@dataclass
class Unwritten:
    """A gate at which all of a cache's keys are still zero."""

    cache: KvCache
    waited_for: list[int]

    def wait(self, layer: int, /) -> None:
        self.waited_for.append(layer)
        assert not any(bool(keys.any()) for keys in self.cache.k)


def test_a_recorded_step_waits_for_all_layers_before_it_writes_one(bench: Bench) -> None:
    cache = bench.caches[1]
    gate = Unwritten(cache, [])
    assert bench.graphs.logits(prompts(20, 18), gate) is None
    assert gate.waited_for == []
    bench.graphs.logits(decode(1), gate)
    assert gate.waited_for == list(range(len(cache.k)))
    assert bool(cache.k[0].any())


def test_padding_rows_write_to_the_scratch_block_alone(bench: Bench) -> None:
    cache = bench.caches[1]
    for layer in (*cache.k, *cache.v):
        layer.fill_(7.0)
    bench.graphs.logits(decode(1, 1, 1))
    for layer in cache.k:
        written = (layer != 7.0).any(dim=(1, 2)).nonzero().tolist()
        assert written == [[0, 0], [10, 0], [20, 0], [NUM_BLOCKS, 0]]


def test_a_shared_document_is_another_kind_of_graph(bench: Bench) -> None:
    bench.both(prompts(17))
    document, chunks = view(0, 17), []
    for i in range(2):
        chunks.append(chunk(str(i), 17, [9 + i], document, view(10 * (i + 1), 1)))
    eager, graphed = bench.both(lay_out(chunks))
    torch.testing.assert_close(graphed, eager, atol=1e-5, rtol=1e-5)
    bench.both(decode(18, 1))
    assert bench.graphs.counts.recorded == 2


@pytest.mark.parametrize("home", [Home.HOST, Home.STREAMED], ids=str)
def test_what_lies_on_the_host_is_not_taken_in(bench: Bench, home: Home) -> None:
    """Whether a step attends there or writes there."""
    own, document = view(0, 17), view(10, 17)
    attends = lay_out([chunk("0", 17, [9], document._replace(home=Home.HOST), view(0, 1))])
    writes = lay_out([chunk("0", 16, [9], own._replace(home=home))])
    for step in (attends, writes):
        assert bench.graphs.logits(step) is None
    counts = bench.graphs.counts
    assert (counts.in_other_memory, counts.replayed) == (2, 0)


def test_recorded_kernels_read_every_plan_anew(device: torch.device, recorder: Recorder) -> None:
    bench = Bench(device, recorder, kernels=True)
    for step in (decode(1), decode(2)):
        eager, graphed = bench.both(step)
        torch.testing.assert_close(graphed, eager, atol=1e-5, rtol=1e-5)
    assert (bench.graphs.counts.replayed, bench.graphs.counts.recorded) == (2, 1)


def test_a_plan_that_does_not_fit_is_computed_eagerly(
    device: torch.device, recorder: Recorder
) -> None:
    bench = Bench(device, recorder, kernels=device.type == "cuda", room_tokens=16)
    bench.both(prompts(17, 17))
    shared = [chunk(str(i), 17, [3], view(0, 17), view(10 + i, 1)) for i in range(4)]
    eager, graphed = bench.both(lay_out(shared))
    torch.testing.assert_close(graphed, eager, atol=1e-5, rtol=1e-5)
    assert bench.graphs.counts.too_large_plan == 1


def test_a_long_run_is_not_taken_in(device: torch.device) -> None:
    shape = HeadShape(2, 1, 32)
    plans = FixedPlan(backend(shape, device), room_for(shape, Extent(64, 600, 64)))
    assert plans.offer(prompts(17).attention.whole) is None
    assert plans.offer(prompts(16).attention.whole) == Kind(has_single=False, has_shared=True)
    assert plans.offer(plan_attention([])) == Kind(has_single=False, has_shared=False)


def test_room_is_bounded_by_memory() -> None:
    shape = HeadShape(32, 8, 128)
    extent = Extent(rows=256, context_tokens=131072, blocks=1000)
    room = room_for(shape, extent, memory_bytes=2**20)
    assert room.states * 32 * 129 * 4 <= 2**20
    assert room_for(shape, Extent(2, 600, 1000)).states == 2 * 3
