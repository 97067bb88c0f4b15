"""What `python -m benchmarks gpu` runs on a device, at sizes for the interpreter."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_kernels
from benchmarks.__main__ import main
from benchmarks.gpu import verdicts
from benchmarks.gpu_kernels import DecodeCase, bandwidth, decode_rows, prefill_rows, row
from benchmarks.gpu_models import SMOLLM2_135M, Raw, exact_rows, speed_rows
from cluster.attention.cuda.shape import HeadShape
from tests.gpu.paged import INTERPRETED

TINY: Raw = {
    **SMOLLM2_135M,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 60,
}


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    if device.type == "cpu":
        monkeypatch.setattr("cluster.attention.cuda.backend.tiles_for", lambda _: INTERPRETED)
    monkeypatch.setattr(gpu_kernels, "LEAST_S", 0.0)
    monkeypatch.setattr(gpu_kernels, "ROUNDS", 1)


def test_kernels_are_timed_against_bandwidth_and_torch(device: torch.device) -> None:
    shape = HeadShape(2, 1, 16)
    found = bandwidth(device, 2**20)
    assert found.best > 0
    (decode,) = decode_rows(shape, DecodeCase(2, 16, shared=16), device, found.best)
    assert decode["case"] == "2/1 heads of 16, float32, 2 x 16 + 16 shared"
    (prefill,) = prefill_rows(shape, 20, 16, device)
    assert decode.keys() == prefill.keys()


def test_models_are_timed_against_transformers(device: torch.device) -> None:
    rows = list(speed_rows("tiny", TINY, (2,), 18, device))
    assert [r["part"] for r in rows] == ["prefill", "decode"]


def test_float32_logits_are_as_exact_as_those_of_transformers(device: torch.device) -> None:
    dtypes = (torch.float32, torch.bfloat16)
    single, half = exact_rows("tiny", TINY, 20, dtypes, device)
    assert float(single["ratio"]) <= 4.0 < float(half["ratio"])


def test_verdicts_name_the_worst_cases() -> None:
    rows = [
        row("logit error", "m, keys and values float32", 3e-6, "largest", "t", 1e-6),
        row("decode attention", "h, bfloat16, 64 x 4096", 70.0, "GB/s", "bandwidth", 100.0),
        row("decode attention", "h, bfloat16, 1 x 131072", 90.0, "GB/s", "bandwidth", 100.0),
        row("decode attention", "h, bfloat16, 16 x 512", 10.0, "GB/s", "bandwidth", 100.0),
        row("decode", "m, 1 x 4096", 120.0, "tokens/s", "transformers", 100.0),
    ]
    exact, share, speed = verdicts(rows)
    assert (exact.met, share.met, speed.met) == (True, False, True)
    assert "64 x 4096" in share.measured


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_benchmark_says_what_it_wants(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["gpu"]) == 2
    assert "gpu is skipped: device cuda is asked for" in capsys.readouterr().out
