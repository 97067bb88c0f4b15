"""Promise (c) for every family: our logits, through the engine in chunks and segments, are as near
to transformers' float64 as transformers' float32 is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.config import Family, decoder_config
from cluster.models.fields import FIELD
from cluster.models.folder import INDEX, load_decoder, read_json, weight_files
from tests.models.families import ARCHITECTURES, family_config, reference_logits, write_family
from tests.models.through_engine import TOLERANCE, compare, engine_logits

IDS = torch.randint(0, 512, (150,), generator=torch.Generator().manual_seed(1))
CUTS = (0, 40, 41, 97, 150)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def ours_and_theirs(folder: Path, step_tokens: int) -> tuple[float, float, int]:
    """Largest error of both against float64, and how many tokens are wrong without a tie."""
    ids = tuple(IDS.tolist())
    segments = tuple(ids[a:b] for a, b in pairwise(CUTS))
    ours = engine_logits(load_decoder(folder), segments, step_tokens)
    single = reference_logits(folder, IDS, torch.float32)
    double = reference_logits(folder, IDS, torch.float64)
    return compare(ours, single, double)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param("llama", {}, id="llama"),
        pytest.param("llama", {"attention_bias": True, "rope_parameters": LLAMA3}, id="llama 3"),
        pytest.param("llama", {"num_key_value_heads": 4, "head_dim": 32}, id="llama, wide heads"),
        pytest.param("mistral", {"tie_word_embeddings": False}, id="mistral"),
        pytest.param("mistral", {"num_key_value_heads": 1, "head_dim": 8}, id="mistral, one head"),
        pytest.param("qwen2", {"tie_word_embeddings": False}, id="qwen2"),
        pytest.param("qwen2", {"rope_parameters": YARN}, id="qwen2, yarn"),
        pytest.param("qwen3", {}, id="qwen3"),
        pytest.param("qwen3", {"attention_bias": True, "head_dim": 32}, id="qwen3, biases"),
    ],
)
def test_logits_are_as_near_to_float64_as_those_of_transformers(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    folder = write_family(tmp_path / "model", family, **changes)
    if changes.get("attention_bias"):
        silence_output_biases(folder)
    ours, theirs, num_wrong = ours_and_theirs(folder, step_tokens=48)
    assert 0 < theirs < 1e-4
    assert ours <= TOLERANCE * theirs
    assert num_wrong == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_narrow_weights_are_computed_as_well_as_transformers_does(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    folder = write_family(tmp_path / "model", family)
    exact = reference_logits(folder, IDS, torch.float64)
    ours = engine_logits(load_decoder(folder, dtype=dtype), (tuple(IDS.tolist()),), 64)
    theirs = reference_logits(folder, IDS, dtype)
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() <= TOLERANCE * (theirs - exact).abs().max()


def silence_output_biases(folder: Path) -> None:
    """transformers gives the output a bias where q, k and v have one; who trains none has zeros."""
    for file in weight_files(folder):
        tensors = load_file(file)
        silent = {n: t.zero_() if n.endswith("o_proj.bias") else t for n, t in tensors.items()}
        save_file(silent, file, metadata={"format": "pt"})


def test_an_output_bias_that_says_something_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "llama", attention_bias=True)
    with pytest.raises(Unsupported, match=r"layers\.0\.self_attn\.o_proj\.bias.* is not zero"):
        load_decoder(folder)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_what_a_family_adds_changes_the_logits(tmp_path: Path, family: str) -> None:
    """So that the comparison above would see it forgotten."""
    folder = write_family(tmp_path / "model", family)
    model = load_decoder(folder)
    whole = engine_logits(model, (tuple(IDS.tolist()),), 200)
    for layer in model.weights.layers:
        for added in (layer.qkv_bias, layer.q_norm, layer.k_norm):
            if added is not None:
                added.fill_(0.5)
    assert (engine_logits(model, (tuple(IDS.tolist()),), 200) - whole).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": 100}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1}),
        (
            "qwen3",
            {
                "use_sliding_window": True,
                "sliding_window": 100,
                "layer_types": ["sliding_attention", "full_attention"],
            },
        ),
    ],
)
def test_a_model_with_a_window_is_served_up_to_where_the_window_shows(
    tmp_path: Path, family: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_family(tmp_path / "model", family, **changes)
    with caplog.at_level("INFO"):
        model = load_decoder(folder)
    assert model.config.max_position == 100
    assert "at most 100 tokens: its attention has a window of 100 tokens" in caplog.text
    exact = reference_logits(folder, IDS, torch.float64)
    beyond = write_family(tmp_path / "beyond", family, **(changes | {"sliding_window": 2048}))
    ours = engine_logits(load_decoder(beyond), (tuple(IDS.tolist()),), 200)
    error = (ours - exact).abs().amax(dim=-1)
    assert error[:100].max() < 1e-4
    assert error[100:].max() > 1e-2


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"sliding_window": 100}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 100}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}),
    ],
)
def test_a_window_that_no_layer_uses_is_no_window(family: str, changes: dict[str, Any]) -> None:
    config = decoder_config(family_config(family) | changes)
    assert (config.max_position, config.limit_reason) == (2048, "")


def test_mistral_without_a_word_about_windows_has_the_one_transformers_gives_it() -> None:
    raw = family_config("mistral") | {"max_position_embeddings": 32768}
    del raw["sliding_window"]
    assert decoder_config(raw).max_position == 4096


def test_families_go_by_the_names_of_their_model_types() -> None:
    assert [str(family) for family in Family] == list(ARCHITECTURES)
    for family in ARCHITECTURES:
        raw = family_config(family)
        del raw["architectures"]
        assert decoder_config(raw).family == family


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("mistral", "num_key_value_heads"),
        ("qwen2", "num_key_value_heads"),
        ("qwen3", "num_key_value_heads"),
        ("qwen3", "head_dim"),
        ("llama", "max_position_embeddings"),
        ("llama", "vocab_size"),
    ],
)
def test_what_a_family_must_say_is_asked_for(family: str, missing: str) -> None:
    raw = family_config(family)
    del raw[missing]
    with pytest.raises(InvalidArgument, match=f"{missing} = None") as caught:
        decoder_config(raw)
    assert (caught.value.field, bool(caught.value.limit)) == (FIELD, True)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, Unsupported, "MixtralForCausalLM"),
        ({"architectures": ["Qwen2MoeForCausalLM"]}, Unsupported, "Qwen2MoeForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, Unsupported, "Qwen3MoeForCausalLM"),
        ({"architectures": None, "model_type": "phi3"}, Unsupported, "phi3"),
        ({"hidden_act": "gelu"}, Unsupported, "hidden_act = 'gelu'"),
        ({"mlp_bias": True}, Unsupported, "mlp_bias = True"),
        ({"attention_bias": "yes"}, InvalidArgument, "attention_bias = 'yes'"),
        ({"quantization_config": {"bits": 4}}, Unsupported, "quantization_config"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, Unsupported, "auto_map"),
        ({"layer_types": ["linear_attention"]}, Unsupported, "layer_types"),
        ({"layer_types": [{}]}, Unsupported, "layer_types"),
        ({"tie_word_embeddings": "false"}, InvalidArgument, "tie_word_embeddings = 'false'"),
    ],
)
def test_variants_that_are_not_computed_are_refused_by_name(
    changes: dict[str, Any], kind: type[Refused], said: str
) -> None:
    with pytest.raises(kind) as caught:
        decoder_config(family_config("llama") | changes)
    assert said in caught.value.message
    assert (caught.value.field, bool(caught.value.limit)) == (FIELD, True)


def test_a_folder_of_several_files_is_resolved_whatever_its_family(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "a-qwen", "qwen3")
    assert len(set(read_json(folder / INDEX)["weight_map"].values())) > 1
    assert resolve_model(str(folder), tmp_path / "cache").name == "a-qwen"
