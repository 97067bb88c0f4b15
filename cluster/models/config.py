"""What a decoder is, read from a Hugging Face `config.json` and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cluster.errors import InvalidArgument, Unsupported

FIELD = "model.source"

# No size of a model comes near; a damaged one must not be allocated.
_LARGEST = 2**24


class Family(StrEnum):
    """Whose `config.json` and weight names these are."""

    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN2 = "qwen2"
    QWEN3 = "qwen3"


@dataclass(frozen=True, slots=True)
class LinearRope:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Long wavelengths stretched by `factor`, short ones kept, a ramp between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


RopeScaling = LinearRope | Llama3Rope | None


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of a decoder, and which of the families' few differences it has.

    `max_position` is the longest context it is served with, in tokens. `qkv_bias`: q, k and v have
    biases. `qk_norm`: each head of q and k is normalised before it is turned.
    """

    family: Family
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling
    tie_word_embeddings: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InvalidArgument(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key-value heads evenly",
                field=FIELD,
                limit="num_attention_heads is a multiple of num_key_value_heads",
            )
        if self.head_dim % 2:
            raise InvalidArgument(
                f"head_dim is {self.head_dim}; rotary embedding turns pairs of elements",
                field=FIELD,
                limit="head_dim is even",
            )


def decoder_config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Reads the content of `config.json`.

    Raises Unsupported for another architecture or a variant of Llama that the forward pass does
    not compute, InvalidArgument for a missing or senseless number.
    """
    _require_llama(raw)
    hidden_size, num_heads = _count(raw, "hidden_size"), _count(raw, "num_attention_heads")
    return DecoderConfig(
        family=Family.LLAMA,
        hidden_size=hidden_size,
        intermediate_size=_count(raw, "intermediate_size"),
        num_layers=_count(raw, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_count(raw, "num_key_value_heads", num_heads),
        head_dim=_count(raw, "head_dim", max(1, hidden_size // num_heads)),
        vocab_size=_count(raw, "vocab_size"),
        max_position=_count(raw, "max_position_embeddings"),
        rms_norm_eps=_positive(raw, "rms_norm_eps", 1e-6),
        rope_theta=_positive(_rope(raw), "rope_theta", _positive(raw, "rope_theta", 10000.0)),
        rope_scaling=_rope_scaling(raw),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )


def _require_llama(raw: Mapping[str, Any]) -> None:
    architectures = raw.get("architectures") or [raw.get("model_type")]
    if architectures not in (["LlamaForCausalLM"], ["llama"]):
        raise Unsupported(
            f"the model's architecture is {architectures}, not LlamaForCausalLM",
            field=FIELD,
            limit="architecture LlamaForCausalLM",
        )
    for name, expected in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("quantization_config", None),
        ("auto_map", None),
    ):
        found = raw.get(name, expected)
        if found != expected:
            raise Unsupported(
                f"config.json says {name} = {found!r}; only {expected!r} is computed here",
                field=FIELD,
                limit=f"{name} is {expected!r}",
            )


def _rope(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary part: `rope_parameters` since transformers 5, `rope_scaling` before."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise InvalidArgument(
            f"config.json says rope_scaling = {rope!r}", field=FIELD, limit="a JSON object"
        )
    return rope


def _rope_scaling(raw: Mapping[str, Any]) -> RopeScaling:
    rope = _rope(raw)
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return None
        case "linear":
            return LinearRope(_positive(rope, "factor"))
        case "llama3":
            return Llama3Rope(
                factor=_positive(rope, "factor"),
                low_freq_factor=_positive(rope, "low_freq_factor"),
                high_freq_factor=_positive(rope, "high_freq_factor"),
                original_max_position=_count(rope, "original_max_position_embeddings"),
            )
        case other:
            raise Unsupported(
                f"config.json says rope_type = {other!r}",
                field=FIELD,
                limit="rope_type is default, linear or llama3",
            )


def _count(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    found = raw.get(name)
    value = default if found is None else found
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise InvalidArgument(
            f"config.json says {name} = {value!r}",
            field=FIELD,
            limit=f"{name} is 1 to {_LARGEST}",
        )
    return value


def _positive(raw: Mapping[str, Any], name: str, default: float | None = None) -> float:
    found = raw.get(name)
    value = default if found is None else found
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise InvalidArgument(
            f"config.json says {name} = {value!r}", field=FIELD, limit=f"{name} is above 0"
        )
    return float(value)
