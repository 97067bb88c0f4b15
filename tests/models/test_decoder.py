"""The forward pass against transformers, and its bits against themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from cluster.models.config import decoder_config
from cluster.models.decoder import Decoder, random_decoder, random_tensors
from cluster.models.folder import load_decoder
from tests.models.dense import attend_causally, attend_to_self
from tests.tiny_model import tiny_config

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0}

ROWS = 96
IDS = torch.randint(0, 512, (ROWS,), generator=torch.Generator().manual_seed(1))


def write_variant(folder: Path, **changes: Any) -> Path:
    config = tiny_config() | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(decoder_config(config), seed=3), folder / "model.safetensors")
    return folder


def logits_of(model: Decoder) -> Tensor:
    rows = torch.arange(ROWS)
    return model.forward(IDS, rows, attend_causally, rows)


def reference_logits(folder: Path, dtype: torch.dtype) -> Tensor:
    reference = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).to(dtype)
    with torch.no_grad():
        logits: Tensor = reference(IDS[None]).logits[0]
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="tied"),
        pytest.param({"tie_word_embeddings": False}, id="untied"),
        pytest.param({"num_key_value_heads": 4}, id="a key-value head per head"),
        pytest.param({"head_dim": 32}, id="heads wider than hidden_size / heads"),
        pytest.param({"rope_scaling": LLAMA3_ROPE}, id="llama3 rope"),
        pytest.param({"rope_scaling": LINEAR_ROPE}, id="linear rope"),
        pytest.param(
            {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 500000.0}}, id="rope_parameters"
        ),
    ],
)
def test_logits_are_as_near_to_float64_as_those_of_transformers(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_variant(tmp_path, **changes)
    exact = reference_logits(folder, torch.float64)
    theirs = (reference_logits(folder, torch.float32) - exact).abs().max()
    ours = (logits_of(load_decoder(folder)) - exact).abs().max()
    assert 0 < theirs < 1e-4
    assert ours <= 4 * theirs


def test_rope_scaling_changes_the_logits(tmp_path: Path) -> None:
    """So that the comparison above would see it forgotten."""
    plain = logits_of(load_decoder(write_variant(tmp_path)))
    scaled = logits_of(load_decoder(write_variant(tmp_path, rope_scaling=LLAMA3_ROPE)))
    assert (plain - scaled).abs().max() > 1e-2


@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=70),
    threads=st.sampled_from([1, 2]),
)
@settings(max_examples=60)
def test_the_bits_of_a_row_do_not_depend_on_its_batch(rows: list[int], threads: int) -> None:
    model = random_decoder(decoder_config(tiny_config()), seed=0)
    everyone = torch.arange(ROWS)
    together = model.forward(IDS, everyone, attend_to_self, everyone)
    chosen = torch.tensor(rows)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        apart = model.forward(IDS[chosen], chosen, attend_to_self, torch.arange(len(rows)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(apart, together[chosen])


def test_only_the_output_rows_get_logits() -> None:
    model = random_decoder(decoder_config(tiny_config()), seed=0)
    rows = torch.arange(ROWS)
    everything = model.forward(IDS, rows, attend_causally, rows)
    some = model.forward(IDS, rows, attend_causally, torch.tensor([95, 3]))
    assert torch.equal(some, everything[[95, 3]])
    assert model.forward(IDS, rows, attend_causally, torch.tensor([], dtype=torch.int64)).shape == (
        0,
        512,
    )


def test_the_same_seed_is_the_same_model() -> None:
    config = decoder_config(tiny_config())
    assert torch.equal(logits_of(random_decoder(config, 5)), logits_of(random_decoder(config, 5)))
    assert not torch.equal(
        logits_of(random_decoder(config, 5)), logits_of(random_decoder(config, 6))
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_computed_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    for folder in (narrow, wide):
        folder.mkdir()
        write_variant(folder)
    tensors = {n: t.to(dtype) for n, t in load_file(narrow / "model.safetensors").items()}
    save_file(tensors, narrow / "model.safetensors")
    save_file({n: t.float() for n, t in tensors.items()}, wide / "model.safetensors")
    assert torch.equal(logits_of(load_decoder(narrow)), logits_of(load_decoder(wide)))
