"""flash-attn by its interface: a stand-in in torch that keeps to what the real one says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cluster.attention.cuda.flash import find_flash_attention
from cluster.attention.cuda.shape import HeadShape
from cluster.attention.plan import Run
from tests.gpu.paged import LONG, Pool, backend, close


class StandIn:
    """Takes 16-bit tensors alone; counts its calls."""

    def __init__(self) -> None:
        self.causal: list[bool] = []

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        softmax_scale: float,
        causal: bool,
        return_attn_probs: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert return_attn_probs
        assert {x.dtype for x in (q, k, v)} <= {torch.float16, torch.bfloat16}
        self.causal.append(causal)
        group = q.shape[2] // k.shape[2]
        keys, values = (x.float().repeat_interleave(group, 2) for x in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), keys) * softmax_scale
        if causal:
            hidden = torch.ones(scores.shape[2:]).triu(k.shape[1] - q.shape[1] + 1).bool()
            scores = scores.masked_fill(hidden.to(q.device), -torch.inf)
        o = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values)
        return o.to(q.dtype), scores.logsumexp(-1), None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_long_runs_go_to_flash_attention_and_short_ones_do_not(
    dtype: torch.dtype, device: torch.device
) -> None:
    shape = HeadShape(4, 2, 32, dtype)
    pool = Pool(shape, 64, device)
    runs = [
        Run(0, 20, (pool.add(50), pool.add(300), pool.add(33))),
        Run(20, 1, (pool.add(40),)),
        Run(21, 17, (pool.add(17),)),
    ]
    q, flash = pool.queries(39), StandIn()
    found = pool.attend(backend(shape, device, flash), q, runs)
    close(found, pool.truth(q, runs), LONG[dtype])
    assert flash.causal == [False, False, True, True]


def test_float32_is_not_given_to_flash_attention(device: torch.device) -> None:
    shape = HeadShape(2, 1, 32)
    pool = Pool(shape, 8, device)
    runs = [Run(0, 20, (pool.add(20),))]
    q, flash = pool.queries(20), StandIn()
    found = pool.attend(backend(shape, device, flash), q, runs)
    close(found, pool.truth(q, runs), LONG[torch.float32])
    assert flash.causal == []


def test_without_flash_attention_there_is_none() -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    assert find_flash_attention(missing) is None
    assert find_flash_attention(lambda _: SimpleNamespace()) is None
    stand_in = StandIn()
    module = SimpleNamespace(flash_attn_func=stand_in)
    assert find_flash_attention(lambda _: module) is stand_in
