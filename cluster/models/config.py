"""What a decoder is, read from a Hugging Face `config.json` and checked.

The families are one decoder with few differences, and this page is where they stand:

| | Llama | Mistral | Qwen2 | Qwen3 |
| --- | --- | --- | --- | --- |
| biases on q, k and v | if attention_bias | no | yes | if attention_bias |
| heads of q and k normalised | no | no | no | yes |
| attention window | no | sliding_window | if use_sliding_window, on late layers | as Qwen2 |

Attention here sees every key. A model with a window is therefore served up to that many tokens,
for which the two are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.fields import FIELD, Fields, unsupported
from cluster.models.rope_scaling import RopeScaling, read_rope


class Family(StrEnum):
    """Whose `config.json` this is. The value is its `model_type`."""

    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN2 = "qwen2"
    QWEN3 = "qwen3"


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of a decoder, and which of the families' few differences it has.

    `max_position` is the longest context it is served with, in tokens, and `limit_reason` says why
    that is less than the model was made for, where it is. `qkv_bias`: q, k and v have biases.
    `qk_norm`: each head of q and k is normalised before it is turned.
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
    limit_reason: str = ""

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


@dataclass(frozen=True, slots=True)
class Traits:
    """One column of the table. `window` is how many keys a row sees at most, or None for all."""

    architecture: str
    has_bias: Callable[[Fields], bool]
    window: Callable[[Fields], int | None]
    qk_norm: bool = False


def _if_asked(config: Fields) -> bool:
    return config.flag("attention_bias", False)


def _window(config: Fields) -> int | None:
    """Null is no window; transformers takes silence for 4096."""
    if "sliding_window" in config.raw and not config.has("sliding_window"):
        return None
    return config.count("sliding_window", 4096)


def _window_if_used(config: Fields) -> int | None:
    """`layer_types` says it layer by layer; before it, `max_window_layers` counted the others."""
    if not config.flag("use_sliding_window", False):
        return None
    if config.has("layer_types"):
        slides = "sliding_attention" in config.raw["layer_types"]
    else:
        slides = config.count("max_window_layers", 28, 0) < config.count("num_hidden_layers")
    return _window(config) if slides else None


FAMILIES: Mapping[Family, Traits] = MappingProxyType(
    {
        Family.LLAMA: Traits("LlamaForCausalLM", _if_asked, lambda _: None),
        Family.MISTRAL: Traits("MistralForCausalLM", lambda _: False, _window),
        Family.QWEN2: Traits("Qwen2ForCausalLM", lambda _: True, _window_if_used),
        Family.QWEN3: Traits("Qwen3ForCausalLM", _if_asked, _window_if_used, qk_norm=True),
    }
)
_LAYER_TYPES = ("full_attention", "sliding_attention")


def decoder_config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Reads the content of `config.json`.

    Raises Unsupported for another architecture or a variant that the forward pass does not compute,
    InvalidArgument for a missing or senseless number.
    """
    config = Fields(raw)
    family = _family(raw)
    traits = FAMILIES[family]
    _refuse_variants(config)
    hidden_size, num_heads = config.count("hidden_size"), config.count("num_attention_heads")
    # Of the other families' defaults none is worth guessing: their files say these.
    kv_heads = num_heads if family is Family.LLAMA or "num_key_value_heads" in raw else None
    head_dim = None if family is Family.QWEN3 else max(1, hidden_size // num_heads)
    head_dim = config.count("head_dim", head_dim)
    rope = read_rope(config, head_dim)
    window = traits.window(config)
    max_position, limit_reason = rope.max_position, rope.limit_reason
    if window is not None and window < max_position:
        max_position = window
        limit_reason = f"its attention has a window of {window} tokens, and ours sees all"
    return DecoderConfig(
        family=family,
        hidden_size=hidden_size,
        intermediate_size=config.count("intermediate_size"),
        num_layers=config.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.count("num_key_value_heads", kv_heads),
        head_dim=head_dim,
        vocab_size=config.count("vocab_size"),
        max_position=max_position,
        rms_norm_eps=config.positive("rms_norm_eps", 1e-6),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        tie_word_embeddings=config.flag("tie_word_embeddings", False),
        qkv_bias=traits.has_bias(config),
        qk_norm=traits.qk_norm,
        limit_reason=limit_reason,
    )


def _family(raw: Mapping[str, Any]) -> Family:
    found = raw.get("architectures") or [raw.get("model_type")]
    for family, traits in FAMILIES.items():
        if found in ([traits.architecture], [str(family)]):
            return family
    served = ", ".join(traits.architecture for traits in FAMILIES.values())
    raise Unsupported(
        f"the model's architecture is {found}, which is not served",
        field=FIELD,
        limit=f"architecture {served}",
    )


def _refuse_variants(config: Fields) -> None:
    config.require("hidden_act", "silu")
    config.require("mlp_bias", False)
    for name in ("quantization_config", "auto_map"):
        if config.has(name):
            raise unsupported(name, config.raw[name], f"a config.json without {name}")
    types = config.raw.get("layer_types")
    if types is not None and not all(kind in _LAYER_TYPES for kind in types):
        raise unsupported("layer_types", types, f"layer_types are {' or '.join(_LAYER_TYPES)}")
