"""The compiled attention: no bit of a row depends on its company, and what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from cluster.attention.native import NativeBackend
from cluster.attention.plan import AttentionPlan, plan_attention
from cluster.attention.reference import ReferenceBackend
from cluster.attention.state import State
from cluster.kernels import kernels, kernels_available
from tests.attention.steps import Laid, Rows, Step, steps

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")

SMALL = Step((4, 2, 16), torch.float32, (30,), (Rows((0,), 20, 2), Rows((), 5, 1)), seed=0)


@pytest.fixture(params=["this machine's", "baseline"], scope="module", autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    kernels().prefer_baseline(request.param == "baseline")
    yield
    kernels().prefer_baseline(False)


def backend(num_threads: int) -> NativeBackend:
    return NativeBackend(kernels().Threads(num_threads))


def assert_same_bits(a: State, b: State) -> None:
    assert torch.equal(a.o, b.o)
    assert torch.equal(a.lse, b.lse)


@settings(max_examples=40)
@given(step=steps())
def test_bits_are_the_same_in_any_company_on_any_threads(step: Step) -> None:
    one = backend(1)
    laid = Laid(step, one)
    whole = laid.attend(one)
    assert whole.o.isfinite().all()
    for num_threads in (2, 3):
        assert_same_bits(laid.attend(backend(num_threads)), whole)
    assert_same_bits(laid.shuffled(backend(2)), whole)
    for run in laid.runs:
        cut = run.num_rows // 2
        for begin, end in ((0, cut), (cut, run.num_rows)):
            if begin == end:
                continue
            rows = slice(run.first_row + begin, run.first_row + end)
            alone = laid.alone(run, begin, end, one)
            assert_same_bits(alone, State(whole.o[rows], whole.lse[rows]))


@settings(max_examples=30)
@given(step=steps())
def test_the_kernels_agree_with_the_reference(step: Step) -> None:
    laid = Laid(step, backend(2))
    ours, reference = laid.attend(backend(2)), laid.attend(ReferenceBackend())
    torch.testing.assert_close(ours.o, reference.o, atol=4e-6, rtol=1e-5)
    torch.testing.assert_close(ours.lse, reference.lse, atol=4e-6, rtol=1e-5)


def test_a_slot_holds_what_torch_would_round_to() -> None:
    ties = torch.tensor([1 + 2**-9, 1 + 3 * 2**-9, 1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 65520.0])
    small = torch.tensor([2.0**-24, 2.0**-25, 3 * 2.0**-25, 6e-5, 1e-40, -0.0, 1e38, -torch.inf])
    random = torch.randn(50) * 10.0 ** torch.randint(-8, 6, (50,))
    values = torch.cat([ties, -ties, small, -small, random])[:64].view(1, 1, 64)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        k, v = torch.zeros((2, 1, 64, 16), dtype=dtype), torch.zeros((2, 1, 16, 64), dtype=dtype)
        backend(1).append(k, v, torch.tensor([21]), values, -values)
        assert torch.equal(k[1, 0, :, 5], values[0, 0].to(dtype))
        assert torch.equal(v[1, 0, 5], -values[0, 0].to(dtype))
        assert torch.count_nonzero(k[0]) == 0


def test_nan_of_one_row_reaches_no_other() -> None:
    one = backend(1)
    laid = Laid(SMALL, one)
    whole = laid.attend(one)
    laid.q[1] = torch.nan
    struck = laid.attend(one)
    assert struck.o[1].isnan().all()
    assert struck.lse[1].isnan().all()
    assert torch.equal(struck.o[[0, 2]], whole.o[[0, 2]])


def test_one_plan_serves_layers_of_other_shapes() -> None:
    laid = Laid(SMALL, backend(2))
    attention = backend(2).prepare(plan_attention(laid.runs))
    first = attention.attend(laid.q, laid.k, laid.v)
    half = attention.attend(laid.q[:, :2].contiguous(), laid.k[:, :1], laid.v[:, :1])
    assert_same_bits(attention.attend(laid.q, laid.k, laid.v), first)
    assert_same_bits(half, State(first.o[:, :2], first.lse[:, :2]))


Damage = Callable[[AttentionPlan], AttentionPlan]


def altered(name: str, index: int, value: int) -> Damage:
    def damage(plan: AttentionPlan) -> AttentionPlan:
        array = getattr(plan, name).clone()
        array.view(-1)[index] = value
        return replace(plan, **{name: array})

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (altered("block_ids", 0, -1), "block_ids has -1"),
        (altered("block_ids", 0, 99), "block 99"),
        (altered("run_segments", 0, 7), "run_segments has 7 of 3 segments"),
        (altered("run_offsets", 1, 9), "run_offsets falls"),
        (altered("segment_offsets", -1, 3), "segment_offsets"),
        (altered("segment_tokens", 0, 33), "segment_tokens has 33 tokens in 2 blocks"),
        (altered("run_rows", 0, 1), "run_rows has row 2 twice"),
        (altered("run_rows", 0, -1), "run_rows has 2 rows from row -1"),
        (altered("run_rows", 3, 6), "6 rows in a segment of 5 tokens"),
        (altered("run_rows", 2, 5), "q has 3 rows, the plan has row 5"),
        (lambda p: replace(p, block_ids=p.block_ids.long()), "block_ids is contiguous int32"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_name(damage: Damage, said: str) -> None:
    laid = Laid(SMALL, backend(1))
    with pytest.raises(ValueError, match=said):
        backend(1).prepare(damage(plan_attention(laid.runs))).attend(laid.q, laid.k, laid.v)


def with_key(change: Callable[[Tensor], Tensor]) -> Callable[[Laid], tuple[Tensor, Tensor, Tensor]]:
    return lambda laid: (laid.q, change(laid.k), laid.v)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (lambda laid: (laid.q.double(), laid.k, laid.v), "q is contiguous float32"),
        (lambda laid: (laid.q[:, :3].contiguous(), laid.k, laid.v), "3 heads"),
        (with_key(Tensor.double), "k_cache is float32, float16 or bfloat16"),
        (with_key(Tensor.half), "v_cache has another type"),
        (with_key(lambda k: k.transpose(2, 3)), "contiguous in the last three"),
        (with_key(lambda k: k[:, :, :8].contiguous()), "v_cache is"),
        (with_key(lambda k: k[0]), "k_cache is 4 axes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    arrays: Callable[[Laid], tuple[Tensor, Tensor, Tensor]], said: str
) -> None:
    laid = Laid(SMALL, backend(1))
    attention = backend(1).prepare(plan_attention(laid.runs))
    with pytest.raises(ValueError, match=said):
        attention.attend(*arrays(laid))


def test_a_slot_that_is_not_there_is_refused_before_anything_is_written() -> None:
    laid = Laid(SMALL, backend(1))
    before = laid.k.clone()
    rows = torch.zeros((2, 2, 16))
    for slot in (-1, 16 * len(laid.k)):
        with pytest.raises(ValueError, match=f"slots has {slot}"):
            backend(1).append(laid.k, laid.v, torch.tensor([0, slot]), rows, rows)
    assert torch.equal(laid.k.nan_to_num(7.0), before.nan_to_num(7.0))
