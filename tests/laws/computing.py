"""The laws of `prefill`, `batching` and `decoding` and the engine, on a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from hypothesis import strategies as st
from torch import Tensor

from cluster.attention.reference import ReferenceBackend
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.clock import ManualClock
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward, Model
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.step import Step, lay_out
from cluster.ids import RequestId
from cluster.knowledge.cache import CacheOptions, KnowledgeCache, no_cache
from cluster.models.config import decoder_config
from cluster.models.decoder import Pass
from cluster.request import Request, Sampling, SegmentSource
from cluster.scheduling import sequence as sequences
from cluster.scheduling.draft import Entry, chunk_of
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.plan import Chunk
from tests.engines import TORCH, RecordedPass
from tests.knowledge.world import PREFILL, TRANSFER
from tests.laws.cases import Case
from tests.tiny_model import tiny_config

Tokens = tuple[int, ...]
CONFIG = decoder_config(tiny_config())
NUM_BLOCKS = 24

tokens = st.lists(st.integers(0, CONFIG.vocab_size - 1), max_size=40).map(tuple)
some_tokens = tokens.filter(bool)
prompts = st.lists(some_tokens, max_size=3).map(tuple)


@dataclass
class Watched:
    """The model, telling which tokens were computed, pass by pass, and the logits that were drawn
    from."""

    model: Model = field(default_factory=lambda: TORCH.model(CONFIG))
    chunks: list[Tokens] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    def begin(self, token_ids: Tensor, positions: Tensor, /) -> Pass:
        self.chunks.append(tuple(token_ids.tolist()))
        self.positions += positions.tolist()
        return RecordedPass(self.model.begin(token_ids, positions), self.rows)


@dataclass
class Worker:
    """One request at a time; the documents of earlier ones are kept where `keeps` says so."""

    step_tokens: int = 256
    keeps: bool = False
    watched: Watched = field(default_factory=Watched)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        pool = BlockPool(NUM_BLOCKS)
        kept = KnowledgeCache(CacheOptions(), b"model", pool, PREFILL, TRANSFER)
        limits = IterationLimits(self.step_tokens, 1, 1, CONFIG.max_position)
        scheduler = IterationScheduler(limits, kept if self.keeps else no_cache(pool))
        forward = _forward(self.watched)
        self.engine = Engine(forward, CONFIG.vocab_size, scheduler, ManualClock())

    def answer(self, *segments: Tokens, so_far: Tokens = (), num_tokens: int = 1) -> Tokens:
        """Greedy, as many tokens with those `so_far`; leading segments are documents."""
        sources = tuple(SegmentSource("c", "d") for _ in segments[1:]) if self.keeps else ()
        sampling = Sampling(max_tokens=num_tokens)
        request = Request(RequestId("r"), segments, sampling, 1e9, so_far, sources)
        self.engine.submit(request)
        self.watched.chunks.clear()
        self.watched.positions.clear()
        self.watched.rows.clear()
        drawn: list[int] = []
        while self.engine.has_work:
            drawn += [token for _, token in self.engine.step().tokens]
        return (*so_far, *drawn)


def _forward(model: Model) -> EagerForward:
    shape = KvShape(CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim, torch.float32)
    return EagerForward(model, KvCache(shape, NUM_BLOCKS), ReferenceBackend())


# prefill: a state is the context whose keys and values there are

STEP = {"step": lambda context, token: (*context, token)}


def placed(chunks: Sequence[Chunk]) -> Tokens:
    """The context after these chunks, each written to its positions."""
    at: dict[int, int] = {}
    for chunk in chunks:
        at.update(enumerate(chunk.token_ids, chunk.start))
    return tuple(at[position] for position in range(len(at)))


def cut(data: st.DataObject) -> Case:
    s, xs = data.draw(some_tokens), data.draw(some_tokens)
    n = data.draw(st.integers(1, len(xs)))
    request = Request(RequestId("r"), (s, xs), Sampling(), 1e9)

    def planned(*ends: int) -> Tokens:
        sequence = sequences.Sequence(request, 0.0)
        pool, chunks = BlockPool(NUM_BLOCKS), []
        for end in dict.fromkeys((len(s), *ends)):
            sequence.grow(end, pool.allocate(sequence.missing(end)))
            chunks.append(chunk_of(Entry(sequence, end)))
            sequence.computed(end)
        return placed(chunks)

    end = len(s) + len(xs)
    values = {"s": s, "n": n, "xs": xs}
    return Case(values, planned(len(s) + n, end), planned(end), STEP)


def chunked(data: st.DataObject) -> Case:
    prompt = data.draw(some_tokens)
    worker, whole = Worker(data.draw(st.integers(1, 20))), Worker()
    worker.answer(prompt)
    whole.answer(prompt)
    assert torch.equal(*worker.watched.rows, *whole.watched.rows), "the bits differ"
    assert worker.watched.positions == list(range(len(prompt)))
    chunks = tuple(worker.watched.chunks)
    (right,) = whole.watched.chunks
    values = {"s": (), "cs": chunks}
    return Case(values, tuple(token for chunk in chunks for token in chunk), right, STEP)


def prefix(data: st.DataObject) -> Case:
    p, r, before = data.draw(some_tokens), data.draw(some_tokens), data.draw(some_tokens)
    whole, worker = Worker(), Worker(keeps=True)
    whole.answer(p, r)
    (left,) = whole.watched.chunks
    worker.answer(p, before)
    (kept,) = worker.watched.chunks
    worker.answer(p, r)
    (computed,) = worker.watched.chunks
    assert worker.watched.positions == list(range(len(p), len(p) + len(computed)))
    assert torch.equal(*worker.watched.rows, *whole.watched.rows), "the bits differ"
    return Case({"s": (), "p": p, "r": r}, left, kept[: len(p)] + computed, STEP)


# batching: a row is a prompt, and what comes out of it the bits of its logits


@dataclass
class Batches:
    """Prompts side by side, each in blocks of its own."""

    forward: EagerForward = field(default_factory=lambda: _forward(TORCH.model(CONFIG)))

    def compute(self, *batches: Sequence[Tokens]) -> tuple[bytes, ...]:
        """All in one step, the batches side by side."""
        pool = BlockPool(NUM_BLOCKS)
        steps = [self._step(batch, pool) for batch in batches if batch]
        return _bits(self.forward.compute(steps).logits) if steps else ()

    def alone(self, prompt: Tokens) -> bytes:
        (bits,) = self.compute((prompt,))
        return bits

    def _step(self, prompts: Sequence[Tokens], pool: BlockPool) -> Step:
        chunks = []
        for number, prompt in enumerate(prompts):
            view = SegmentView(pool.allocate(blocks_for(len(prompt))), len(prompt))
            request = RequestId(f"r{number}")
            chunks.append(Chunk(request, 0, prompt, (view,), Sampling(), prompt, len(prompt)))
        return lay_out(chunks)


def _bits(logits: Tensor) -> tuple[bytes, ...]:
    return tuple(row.numpy().tobytes() for row in logits)


def batched(data: st.DataObject) -> Case:
    batches = data.draw(st.lists(prompts, max_size=3).map(tuple))
    hands = Batches()
    left = tuple(bits for batch in batches for bits in hands.compute(batch))
    right = tuple(hands.alone(prompt) for batch in batches for prompt in batch)
    return Case({"bs": batches}, left, right, {"compute": hands.alone})


def two_batches(data: st.DataObject) -> Case:
    xs, ys = data.draw(prompts), data.draw(prompts)
    hands = Batches()
    values = {"xs": xs, "ys": ys}
    meaning = {"compute": hands.alone}
    return Case(values, hands.compute(xs + ys), hands.compute(xs, ys), meaning)


# decoding


@cache
def next_token(context: Tokens) -> int:
    (token,) = Worker().answer(context)
    return token


def resumed(data: st.DataObject) -> Case:
    context = data.draw(some_tokens)
    m, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    left = Worker().answer(context, num_tokens=m + n)
    so_far = Worker().answer(context, num_tokens=m)
    right = Worker().answer(context, so_far=so_far, num_tokens=m + n)
    return Case({"m": m, "n": n, "context": context}, left, right, {"next": next_token})
