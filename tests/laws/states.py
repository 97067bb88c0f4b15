"""Attention, as its laws see it: keys by number, and states of one query over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.native import NativeBackend
from cluster.attention.plan import Run, plan_attention
from cluster.attention.port import LocalPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.split import Fold, split_attention
from cluster.attention.spread import SpreadAttention
from cluster.attention.state import State, merge
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available
from tests.laws.cases import Case
from tests.laws.models import Meaning

Keys = tuple[int, ...]
HEADS, HEAD_DIM = 2, 16
NUM_BLOCKS = 32


def backends() -> list[AttentionBackend]:
    native = [NativeBackend(kernels().Threads(1))] if kernels_available() else []
    return [ReferenceBackend(), *native]


@dataclass
class Attention:
    """One query over keys whose vectors are drawn by their numbers; blocks are taken anywhere."""

    seed: int
    backend: AttentionBackend
    k_cache: Tensor = field(init=False)
    v_cache: Tensor = field(init=False)
    free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(self.seed)
        self.q = torch.randn((1, HEADS, HEAD_DIM), generator=random)
        self.k, self.v = torch.randn((2, 100, 1, HEAD_DIM), generator=random)
        self.k_cache = torch.full((NUM_BLOCKS, 1, HEAD_DIM, BLOCK_TOKENS), torch.nan)
        self.v_cache = torch.full((NUM_BLOCKS, 1, BLOCK_TOKENS, HEAD_DIM), torch.nan)
        self.free = torch.randperm(NUM_BLOCKS, generator=random).tolist()

    def segment(self, keys: Keys, home: Home = Home.DEVICE) -> SegmentView:
        count = blocks_for(len(keys))
        blocks, self.free = self.free[:count], self.free[count:]
        where = torch.tensor(blocks)[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS)
        slots, numbers = where.flatten()[: len(keys)], list(keys)
        self.backend.append(self.k_cache, self.v_cache, slots, self.k[numbers], self.v[numbers])
        return SegmentView(tuple(map(BlockId, blocks)), len(keys), home)

    def attend(self, *segments: Keys) -> State:
        """Over the segments, folded from left to right."""
        views = tuple(self.segment(keys) for keys in segments if keys)
        if not views:
            return self.unit()
        plan = plan_attention([Run(0, 1, views)])
        state = self.backend.prepare(plan).attend(self.q, self.k_cache, self.v_cache)
        return State(state.o[0], state.lse[0])

    def attend_key_by_key(self, keys: Keys) -> State:
        """Each key is a part, and the parts are folded."""
        states = [self.attend((key,)) for key in keys] or [self.unit()]
        parts = State(torch.stack([s.o for s in states]), torch.stack([s.lse for s in states]))
        numbers = torch.arange(len(states), dtype=torch.int32)
        offsets = torch.tensor([0, len(states)], dtype=torch.int32)
        rows = State(torch.zeros((1, HEADS, HEAD_DIM)), torch.full((1, HEADS), -torch.inf))
        self.backend.fold(Fold(numbers[:1], offsets, numbers), parts, rows)
        return State(rows.o[0], rows.lse[0])

    def attend_in_two_memories(self, on_host: Sequence[Keys], on_device: Sequence[Keys]) -> Tensor:
        """The output, [heads, head_dim]; the host folds its segments, the device goes on."""
        views = [self.segment(keys, Home.HOST) for keys in on_host if keys]
        views += [self.segment(keys) for keys in on_device if keys]
        port = LocalPort(self.backend, [self.k_cache], [self.v_cache])
        plan = split_attention([Run(0, 1, tuple(views))])
        with SpreadAttention(plan, self.backend, {Home.HOST: port}) as attention:
            return attention.attend(0, self.q, self.k_cache, self.v_cache)[0].clone()

    def unit(self) -> State:
        return State(torch.zeros((HEADS, HEAD_DIM)), torch.full((HEADS,), -torch.inf))

    def score(self, key: int) -> State:
        """Over one key: its value, and its scaled product with the query. In float64."""
        scores = (self.q[0].double() @ self.k[key, 0].double()) * HEAD_DIM**-0.5
        return State(self.v[key].double().expand(HEADS, -1), scores)

    @property
    def meaning(self) -> Meaning:
        return {"unit": self.unit, "score": self.score, "merge": merge}


def close(one: State, other: State) -> bool:
    """Up to the rounding of float32."""
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-5) for a, b in pairs)


def draw_attention(data: st.DataObject) -> Attention:
    return Attention(data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from(backends())))


def draw_keys(data: st.DataObject, most: int) -> Keys:
    return tuple(data.draw(st.lists(st.integers(0, 99), max_size=most)))


def draw_pages(data: st.DataObject, most: int) -> tuple[Keys, ...]:
    return tuple(draw_keys(data, 20) for _ in range(data.draw(st.integers(0, most))))


def _case(attention: Attention, values: dict[str, Any], left: State, right: State) -> Case:
    return Case(values, left, right, attention.meaning, close)


def split(data: st.DataObject) -> Case:
    attention = draw_attention(data)
    xs, ys = draw_keys(data, 40), draw_keys(data, 40)
    right = merge(attention.attend(xs), attention.attend(ys))
    return _case(attention, {"xs": xs, "ys": ys}, attention.attend(xs + ys), right)


def streaming(data: st.DataObject) -> Case:
    attention = draw_attention(data)
    xs = draw_keys(data, 12)
    return _case(attention, {"xs": xs}, attention.attend_key_by_key(xs), attention.attend(xs))


def paged(data: st.DataObject) -> Case:
    attention = draw_attention(data)
    pages = draw_pages(data, 4)
    right = attention.attend(tuple(key for page in pages for key in page))
    return _case(attention, {"ps": pages}, attention.attend(*pages), right)


def folded_on(data: st.DataObject) -> Case:
    attention = draw_attention(data)
    first = (data.draw(st.integers(0, 99)), *draw_keys(data, 20))
    ps, qs = draw_pages(data, 3), draw_pages(data, 3)
    whole = attention.attend(first, *ps, *qs)
    o = attention.attend_in_two_memories((first, *ps), qs)
    assert torch.equal(whole.o, o), "the bits differ"
    values = {"a": attention.attend(first), "ps": ps, "qs": qs}
    return _case(attention, values, whole, State(o, whole.lse))
