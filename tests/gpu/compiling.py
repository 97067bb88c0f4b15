"""Compiles the kernels for a GPU that need not be there.

    python -m tests.gpu.compiling 4 128 bf16

The group of heads, head_dim and the dtype of the cache in; a line of JSON for each kernel out. A
process of its own, because an interpreter that runs kernels compiles none.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cluster.attention.cuda.append import append_rows
from cluster.attention.cuda.decode import attend_units, merge_states
from cluster.attention.cuda.prefill import attend_rows
from cluster.attention.cuda.shape import HeadShape, Tiles, tiles_for

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FLOATS = {"q", "o", "lse", "state_o", "state_lse"}
KV_HEADS = 2


def main(group: int, head_dim: int, dtype: str) -> None:
    shape = HeadShape(group * KV_HEADS, KV_HEADS, head_dim, DTYPES[dtype])
    tiles = tiles_for(shape)
    for name, kernel, constants, stages in _kernels(shape, tiles):
        warps = tiles.warps if "attend" in name else 1
        print(json.dumps({"kernel": name, **_compiled(kernel, constants, dtype, (warps, stages))}))


def _kernels(shape: HeadShape, tiles: Tiles) -> list[tuple[str, Any, dict[str, Any], int]]:
    dims = {"D": shape.head_dim, "DP": shape.padded_dim}
    fold = {**dims, "KV_HEADS": KV_HEADS, "GROUP": shape.group, "N": tiles.keys, "EMULATED": False}
    units = {**fold, "TILE": 256, "PARTS": 2}
    rows = shape.queries(tiles.rows(shape))
    single, shared = shape.queries(1), rows
    merge = {**dims, "HEADS": shape.num_heads, "AHEAD": tiles.states_ahead}
    decode, prefill = tiles.decode_stages, tiles.prefill_stages
    return [
        ("attend_units of one", attend_units, {**units, "M": single, "SHARED": 0}, decode),
        ("attend_units of several", attend_units, {**units, "M": shared, "SHARED": 1}, decode),
        ("attend_rows", attend_rows, {**fold, "M": rows, "PARTS": 1}, prefill),
        ("merge_states", merge_states, merge, 1),
        ("append_rows", append_rows, dims, 1),
    ]


def _compiled(
    kernel: Any, constants: dict[str, Any], dtype: str, warps_and_stages: tuple[int, int]
) -> dict[str, Any]:
    """Shared memory in bytes, and which instructions there are in the PTX."""
    signature = {name: _type(kernel, name, constants, dtype) for name in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or name.endswith("stride")
    }
    warps, stages = warps_and_stages
    built = compile_kernel(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    ptx = built.asm["ptx"]
    return {
        "shared_bytes": built.metadata.shared,
        "copies_of_16_bytes": ptx.count("cp.async.cg.shared.global"),
        "matrix_products": ptx.count("mma.sync") + ptx.count("wgmma.mma_async"),
    }


def _type(kernel: Any, name: str, constants: dict[str, Any], dtype: str) -> str:
    if name in constants:
        return "constexpr"
    if name == "scale":
        return "fp32"
    if name == "num_rows" or name.endswith("stride"):
        return "i32"
    if name == "slots":
        return "*i64"
    if name in FLOATS or (kernel is append_rows and name in ("k", "v")):
        return "*fp32"
    return f"*{dtype}" if name in ("k", "v", "k_cache", "v_cache") else "*i32"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
