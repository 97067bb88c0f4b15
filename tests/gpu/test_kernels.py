"""The Triton kernels against float64, on a GPU or in the interpreter."""

from __future__ import annotations

import pytest
import torch

from cluster.attention.cuda.shape import HeadShape
from cluster.attention.plan import Run
from cluster.attention.reference import ReferenceBackend
from cluster.errors import InvariantBroken, Unsupported
from tests.gpu.paged import LONG, SHORT, Pool, backend, close

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = [FLOAT32, FLOAT16, BFLOAT16]
# Groups of 1, 2, 3, 7, 8 and 32 heads, every width, every dtype.
SHAPES = [
    HeadShape(2, 2, 64, FLOAT16),
    HeadShape(2, 1, 80, BFLOAT16),
    HeadShape(3, 1, 96, FLOAT32),
    HeadShape(7, 1, 128, BFLOAT16),
    HeadShape(8, 1, 256, FLOAT16),
    HeadShape(32, 1, 64, FLOAT32),
    HeadShape(2, 1, 16, FLOAT32),
]


def one_by_one(pool: Pool, *lengths: int) -> list[Run]:
    """A row for each length, over a segment of its own."""
    return [Run(row, 1, (pool.add(n),)) for row, n in enumerate(lengths)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_of_skewed_rows_equals_the_truth(shape: HeadShape, device: torch.device) -> None:
    pool = Pool(shape, 64, device)
    runs = one_by_one(pool, 1, 270, 15, 16, 17)
    q = pool.queries(5)
    close(pool.attend(backend(shape, device), q, runs), pool.truth(q, runs), SHORT[shape.dtype])


def test_a_long_context_is_folded_over_all_its_tiles(device: torch.device) -> None:
    shape = HeadShape(2, 1, 32, BFLOAT16)
    pool = Pool(shape, 300, device)
    runs = one_by_one(pool, 4095, 1, 256, 257)
    q = pool.queries(4)
    triton = backend(shape, device, keys=128)
    close(pool.attend(triton, q, runs), pool.truth(q, runs), SHORT[BFLOAT16])


def test_rows_that_share_segments_read_them_together(device: torch.device) -> None:
    shape = HeadShape(3, 1, 32)
    pool = Pool(shape, 128, device)
    first, second = pool.add(300), pool.add(20)
    # More rows than one program takes, some with both, in either order.
    contexts = [(first,)] * 9 + [(first, second)] * 3 + [(second, first)] * 2
    runs = [Run(i, 1, (*shared, pool.add(1 + i))) for i, shared in enumerate(contexts)]
    q = pool.queries(len(runs))
    triton = backend(shape, device, queries=16)
    assert triton.tiles.rows(shape) < len(runs)
    close(pool.attend(triton, q, runs), pool.truth(q, runs), SHORT[FLOAT32])


def test_rows_of_a_short_run_see_no_further_than_themselves(device: torch.device) -> None:
    shape = HeadShape(2, 1, 32)
    pool = Pool(shape, 64, device)
    shared = pool.add(40)
    # The own segment ends just beyond a tile, which only its last two rows see.
    runs = [Run(0, 5, (shared, pool.add(258))), Run(5, 16, (pool.add(16),)), Run(21, 1, (shared,))]
    q = pool.queries(22)
    close(pool.attend(backend(shape, device), q, runs), pool.truth(q, runs), SHORT[FLOAT32])


@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_prefill_over_several_segments_equals_the_truth(
    shape: HeadShape, device: torch.device
) -> None:
    pool = Pool(shape, 64, device)
    shared = pool.add(130)
    runs = [
        Run(0, 17, (shared, pool.add(33), pool.add(150))),
        Run(17, 1, (shared, pool.add(3))),
        Run(18, 20, (pool.add(20),)),
    ]
    q = pool.queries(38)
    close(pool.attend(backend(shape, device), q, runs), pool.truth(q, runs), LONG[shape.dtype])


def test_rows_in_no_run_get_the_unit(device: torch.device) -> None:
    shape = HeadShape(4, 2, 64)
    pool = Pool(shape, 16, device)
    runs = [Run(1, 1, (pool.add(20),)), Run(4, 17, (pool.add(17),))]
    found = pool.attend(backend(shape, device), pool.queries(23), runs)
    alone = [0, 2, 3, 21, 22]
    assert torch.equal(found.o[alone], torch.zeros(5, 4, 64))
    assert torch.equal(found.lse[alone], torch.full((5, 4), -torch.inf))


def test_the_same_step_gives_the_same_bits(device: torch.device) -> None:
    shape = HeadShape(4, 2, 64, BFLOAT16)
    pool = Pool(shape, 64, device)
    runs = [*one_by_one(pool, 300, 40), Run(2, 18, (pool.add(30),))]
    q, triton = pool.queries(20), backend(shape, device)
    first, second = pool.attend(triton, q, runs), pool.attend(triton, q, runs)
    assert torch.equal(first.o, second.o)
    assert torch.equal(first.lse, second.lse)


def test_a_row_has_the_same_bits_whoever_decodes_beside_it(device: torch.device) -> None:
    shape = HeadShape(2, 1, 32, FLOAT16)
    pool = Pool(shape, 128, device)
    document, runs = pool.add(270), one_by_one(pool, 530, 7, 300)
    shared = [Run(i, 1, (document, pool.add(9))) for i in range(3)]
    q, triton = pool.queries(3), backend(shape, device)
    for members in (runs, shared):
        together = pool.attend(triton, q, members)
        for run in members:
            # Beside another reader, so that a shared segment is shared still.
            rows = [run.first_row, (run.first_row + 1) % 3]
            pair = [Run(i, 1, members[row].segments) for i, row in enumerate(rows)]
            apart = pool.attend(triton, q[rows], pair)
            assert torch.equal(apart.o[0], together.o[run.first_row])
            assert torch.equal(apart.lse[0], together.lse[run.first_row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", [FLOAT32, BFLOAT16])
def test_append_writes_what_the_reference_writes(
    dtype: torch.dtype, given: torch.dtype, device: torch.device
) -> None:
    pool = Pool(HeadShape(4, 2, 80, dtype), 6, device)
    slots = torch.tensor([0, 17, 16, 95, 40])
    # Rows of a wider matrix, as a model cuts them from its queries, keys and values.
    qkv = torch.randn((5, 8, 80), generator=pool.random).to(given)
    k, v = qkv[:, 4:6], qkv[:, 6:]
    expected = pool.k.clone(), pool.v.clone()
    ReferenceBackend().append(*expected, slots, k, v)
    found = pool.k.to(device), pool.v.to(device)
    there = (x.to(device) for x in (slots, k, v))
    backend(pool.shape, device).append(*found, *there)
    # The interpreter cuts bfloat16 off where a device rounds it.
    rtol = 2.0**-7 if dtype == BFLOAT16 and device.type == "cpu" else 0.0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=0, rtol=rtol, equal_nan=True)


def test_blocks_may_stand_apart(device: torch.device) -> None:
    shape = HeadShape(4, 2, 64)
    pool = Pool(shape, 16, device)
    runs = one_by_one(pool, 100)
    q = pool.queries(1)
    apart = [torch.full((16, 2, *x.shape[1:]), torch.nan, device=device) for x in (pool.k, pool.v)]
    for wide, narrow in zip(apart, (pool.k, pool.v), strict=True):
        wide[:, 1] = narrow.to(device)
    pool.k, pool.v = apart[0][:, 1], apart[1][:, 1]
    close(pool.attend(backend(shape, device), q, runs), pool.truth(q, runs), SHORT[FLOAT32])


@pytest.mark.parametrize("heads", [(4, 2, 264), (4, 2, 72), (65, 1, 64), (5, 2, 64)])
def test_what_the_kernels_do_not_compute_is_refused_by_name(heads: tuple[int, int, int]) -> None:
    with pytest.raises(Unsupported) as refused:
        HeadShape(*heads)
    assert refused.value.field == "model.source"
    assert refused.value.limit


def test_a_dtype_that_the_kernels_do_not_read_is_refused() -> None:
    with pytest.raises(Unsupported) as refused:
        HeadShape(4, 2, 64, torch.float64)
    assert refused.value.field == "gpu_worker.kv_dtype"


def test_a_cache_of_another_shape_is_noticed(device: torch.device) -> None:
    pool = Pool(HeadShape(4, 2, 64), 4, device)
    runs = one_by_one(pool, 3)
    for other in (HeadShape(4, 4, 64), HeadShape(4, 2, 80), HeadShape(4, 2, 64, FLOAT16)):
        with pytest.raises(InvariantBroken, match="a cache of"):
            pool.attend(backend(other, device), pool.queries(1), runs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(32, 8, 128), (28, 4, 128), (32, 32, 96), (16, 1, 256)]
)
def test_every_length_of_real_heads_on_the_device(
    heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> None:
    shape = HeadShape(heads, kv_heads, head_dim, dtype)
    pool = Pool(shape, 1024, device)
    document = pool.add(1000)
    runs = one_by_one(pool, 1, 15, 16, 17, 4095, 255, 256, 257)
    runs += [Run(8 + i, 1, (document, pool.add(5 * i + 1))) for i in range(40)]
    q = pool.queries(48)
    triton = backend(shape, device)
    close(pool.attend(triton, q, runs), pool.truth(q, runs), SHORT[dtype])
    chunk = [Run(0, 200, (document, pool.add(333))), Run(200, 100, (pool.add(2000),))]
    q = pool.queries(300)
    close(pool.attend(triton, q, chunk), pool.truth(q, chunk), LONG[dtype])


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_longest_context_on_the_device(dtype: torch.dtype, device: torch.device) -> None:
    shape = HeadShape(8, 2, 128, dtype)
    pool = Pool(shape, 131072 // 16 + 40, device)
    runs = one_by_one(pool, 131072, 1, 300)
    q = pool.queries(3)
    close(pool.attend(backend(shape, device), q, runs), pool.truth(q, runs), SHORT[dtype])
