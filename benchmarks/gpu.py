"""The CUDA device: decode attention against its bandwidth, models against transformers, exactness.

Needs a GPU, torch, Triton and transformers, and no other part of the project than the engine's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.result import CannotRun, Outcome, Row, Verdict
from cluster.engine.device import open_device
from cluster.errors import Unsupported

SEED = 0
# Of the bandwidth measured in the same run, over long contexts in 16 bits.
LEAST_SHARE = 0.8
TOLERANCE = 4.0
COPIED_BYTES = 2**32


def run(scale: Scale, console: Console) -> Outcome:
    """One row a case. Raises CannotRun without a CUDA device."""
    try:
        device = open_device("cuda")
    except Unsupported as error:
        raise CannotRun(f"{error.message}; wanted: {error.limit}") from error
    rows: list[Row] = []
    console.print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    for each in _rows(scale, device):
        rows.append(each)
        console.print(
            f"{each['part']}: {each['case']}: {each['measured']:.4g} {each['unit']}, "
            f"{each['ratio']:.3f} of {each['against']}",
            soft_wrap=True,
        )
    return Outcome(rows=rows, verdicts=verdicts(rows), seed=SEED)


def _rows(scale: Scale, device: torch.device) -> Iterator[Row]:
    # Imported here: without a GPU, Triton need not be installed to be told so.
    from benchmarks.gpu_kernels import (  # noqa: PLC0415
        DecodeCase,
        bandwidth,
        decode_rows,
        prefill_rows,
        row,
    )
    from benchmarks.gpu_models import (  # noqa: PLC0415
        LLAMA_3_8B,
        QWEN_2_5_7B,
        SMOLLM2_135M,
        exact_rows,
        speed_rows,
    )
    from cluster.attention.cuda.shape import HeadShape  # noqa: PLC0415

    full = scale is Scale.FULL
    float32, float16, bfloat16 = torch.float32, torch.float16, torch.bfloat16
    found = bandwidth(device, COPIED_BYTES)
    yield row("bandwidth", "copy", found.copy / 1e9, "GB/s", "read", found.read / 1e9)
    cases = [DecodeCase(1, 131072), DecodeCase(64, 4096), DecodeCase(64, 256, 16384)]
    if full:
        cases += [DecodeCase(8, 16384), DecodeCase(256, 1024), DecodeCase(16, 512)]
    shapes = [HeadShape(32, 8, 128, bfloat16)]
    if full:
        shapes += [HeadShape(32, 8, 128, dtype) for dtype in (float16, float32)]
        shapes += [HeadShape(28, 4, 128, bfloat16), HeadShape(32, 32, 96, bfloat16)]
        shapes += [HeadShape(9, 3, 64, bfloat16), HeadShape(16, 8, 256, bfloat16)]
    for shape in shapes:
        for case in cases:
            yield from decode_rows(shape, case, device, found.best)
        yield from prefill_rows(shape, 2048, 6144, device)
    dtypes = (float32, float16, bfloat16)
    yield from exact_rows("SmolLM2-135M shape", SMOLLM2_135M, 1000, dtypes, device)
    shallow = {**LLAMA_3_8B, "num_hidden_layers": 4}
    yield from exact_rows("4 layers of Llama-3-8B shape", shallow, 1000, dtypes, device)
    batches = (1, 16, 64) if full else (1, 16)
    yield from speed_rows("Llama-3-8B shape", LLAMA_3_8B, batches, 4096, device)
    if full:
        yield from speed_rows("Qwen2.5-7B shape", QWEN_2_5_7B, batches, 4096, device)


def verdicts(rows: list[Row]) -> tuple[Verdict, ...]:
    """What the rows say about the aims."""
    exact = [r for r in rows if r["part"] == "logit error" and str(r["case"]).endswith("float32")]
    worst = max(float(r["ratio"]) for r in exact)
    long = [
        r
        for r in rows
        if r["part"] == "decode attention"
        and "float32" not in str(r["case"])
        and any(str(r["case"]).endswith(size) for size in ("1 x 131072", "8 x 16384", "64 x 4096"))
    ]
    least = min(long, key=lambda r: float(r["ratio"]))
    models = [r for r in rows if r["part"] in ("decode", "prefill")]
    slowest = min(models, key=lambda r: float(r["ratio"]))
    return (
        Verdict(
            f"|logit - float64| at most {TOLERANCE:g} times transformers' float32 error",
            f"at most {worst:.2f} times",
            worst <= TOLERANCE,
        ),
        Verdict(
            f"decode attention over long contexts reads {LEAST_SHARE:.0%} of the bandwidth",
            f"at least {float(least['ratio']):.1%} ({least['case']})",
            float(least["ratio"]) >= LEAST_SHARE,
        ),
        Verdict(
            "no slower than transformers on the same device",
            f"at least {float(slowest['ratio']):.2f} times ({slowest['part']}, {slowest['case']})",
            float(slowest["ratio"]) >= 1.0,
        ),
    )
