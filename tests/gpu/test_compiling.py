"""The kernels compile for a GPU that is not here, and to what they were written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT

# Of compute capability 9.0, for one program.
MOST_SHARED_BYTES = 227 * 1024


def compiled(cache: Path, group: int, head_dim: int, dtype: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.gpu.compiling", str(group), str(head_dim), dtype]
    settings = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    settings["TRITON_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=settings
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {each.pop("kernel"): each for each in found}


def test_16_bit_kernels_load_wide_and_use_the_matrix_units(tmp_path: Path) -> None:
    found = compiled(tmp_path, 4, 128, "bf16")
    assert len(found) == 5
    for name in ("attend_units of one", "attend_units of several", "attend_rows"):
        kernel = found[name]
        assert kernel["copies_of_16_bytes"] > 0, name
        assert kernel["matrix_products"] > 0, name
        # Two programs on a multiprocessor, so that one loads while the other computes.
        assert kernel["shared_bytes"] <= MOST_SHARED_BYTES // 2, name


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("group", "head_dim"), [(3, 64), (1, 80), (7, 128), (8, 256), (64, 64)])
def test_every_shape_compiles_within_shared_memory(
    tmp_path: Path, group: int, head_dim: int, dtype: str
) -> None:
    for name, kernel in compiled(tmp_path, group, head_dim, dtype).items():
        assert kernel["shared_bytes"] <= MOST_SHARED_BYTES, name
        exact = dtype == "fp32" or not name.startswith("attend")
        assert (kernel["matrix_products"] == 0) == exact, name
