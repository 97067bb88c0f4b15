"""Rotary embedding against transformers' own, bit by bit, at every position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.models.config import decoder_config
from cluster.models.rope import Rotary
from tests.models.families import ARCHITECTURES, family_config

REFERENCES = {
    "llama": LlamaRotaryEmbedding,
    "mistral": MistralRotaryEmbedding,
    "qwen2": Qwen2RotaryEmbedding,
    "qwen3": Qwen3RotaryEmbedding,
}

LLAMA_3_1 = {
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "head_dim": 128,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
LLAMA_3_2_IN_NEW_WORDS = {
    "max_position_embeddings": 131072,
    "head_dim": 64,
    "rope_parameters": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
        "rope_theta": 500000.0,
    },
}
QWEN2_5_LONG = {
    "rope_theta": 1000000.0,
    "max_position_embeddings": 32768,
    "head_dim": 128,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 3 for i in range(8)],
    "long_factor": [1.0 + i / 3 for i in range(8)],
    "original_max_position_embeddings": 512,
}


def yarn(**more: Any) -> dict[str, Any]:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    return {"rope_scaling": scaling | more}


def test_every_family_turns_by_the_same_angles() -> None:
    assert REFERENCES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("family", REFERENCES)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="default"),
        pytest.param({"rope_theta": 1000000}, id="another base, a whole number"),
        pytest.param(
            {"rope_scaling": None, "rope_parameters": {"rope_theta": 5e5}}, id="new words"
        ),
        pytest.param({"rope_scaling": {"type": "linear", "factor": 2.5}}, id="linear"),
        pytest.param({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, id="dynamic"),
        pytest.param(LLAMA_3_1, id="Llama 3.1"),
        pytest.param(LLAMA_3_2_IN_NEW_WORDS, id="Llama 3.2"),
        pytest.param(QWEN2_5_LONG, id="Qwen2.5 with YaRN"),
        pytest.param(yarn(attention_factor=0.7, beta_fast=16, beta_slow=2), id="yarn, all said"),
        pytest.param(yarn(mscale=1.0, mscale_all_dim=0.5), id="yarn, two scales"),
        pytest.param(yarn(mscale=0.7), id="yarn, one scale, which counts for nothing"),
        pytest.param(yarn(truncate=False), id="yarn, ramp as it falls"),
        pytest.param(yarn(beta_fast=1.5, beta_slow=1.4), id="yarn, steep"),
        pytest.param({"rope_scaling": LONGROPE}, id="longrope"),
        pytest.param({"rope_scaling": LONGROPE | {"attention_factor": 1.0}}, id="longrope, plain"),
    ],
)
def test_cosines_and_sines_are_those_of_transformers(family: str, changes: dict[str, Any]) -> None:
    raw = family_config(family) | changes
    ours = Rotary(decoder_config(raw), torch.device("cpu"))
    theirs = REFERENCES[family](AutoConfig.for_model(**raw))
    positions = torch.arange(len(ours.cos))
    assert len(positions) >= raw["max_position_embeddings"]
    cos, sin = theirs(torch.zeros(1), positions[None])
    half = ours.cos.shape[1]
    assert torch.equal(ours.cos, cos[0, :, :half])
    assert torch.equal(ours.sin, sin[0, :, half:])


def test_yarn_reaches_as_far_as_its_factor_says() -> None:
    assert decoder_config(family_config("qwen2") | QWEN2_5_LONG).max_position == 131072


def test_dynamic_scaling_is_served_up_to_where_it_would_begin() -> None:
    config = decoder_config(
        family_config("llama") | {"rope_scaling": {"type": "dynamic", "factor": 4.0}}
    )
    assert config.max_position == family_config("llama")["max_position_embeddings"]
    assert "dynamic" in config.limit_reason


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"rope_scaling": {"rope_type": "su", "factor": 2.0}}, Unsupported, "rope_type = 'su'"),
        ({"rope_scaling": {"type": ["yarn"]}}, Unsupported, "rope_type = ['yarn']"),
        ({"rope_scaling": {"type": "default", "mrope_section": [2]}}, Unsupported, "mrope_section"),
        (yarn(attn_factor=2.0), Unsupported, "attn_factor = 2.0"),
        (yarn(factor=1e9), InvalidArgument, "factor = 1000000000.0"),
        (yarn(truncate="no"), InvalidArgument, "truncate = 'no'"),
        ({"rope_scaling": {"type": "yarn"}}, InvalidArgument, "factor = None"),
        ({"rope_scaling": {"type": "linear"}}, InvalidArgument, "factor = None"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, InvalidArgument, "freq_factor"),
        ({"rope_scaling": "linear"}, InvalidArgument, "rope_scaling = 'linear'"),
        ({"partial_rotary_factor": 0.5}, Unsupported, "partial_rotary_factor = 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, Unsupported, "= 0.25"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            Unsupported,
            "full_attention",
        ),
        ({"rope_scaling": LONGROPE | {"long_factor": [2.0] * 8}}, Unsupported, "'longrope'"),
        ({"rope_scaling": LONGROPE | {"long_factor": [2.0] * 7}}, InvalidArgument, "long_factor"),
    ],
)
def test_scaling_that_is_not_computed_is_refused_by_name(
    changes: dict[str, Any], kind: type[Refused], said: str
) -> None:
    with pytest.raises(kind) as caught:
        decoder_config(family_config("llama") | changes)
    assert said in caught.value.message
    assert caught.value.field == "model.source"
    assert caught.value.limit
