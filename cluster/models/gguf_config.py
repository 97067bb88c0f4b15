"""The metadata of a GGUF as the `config.json` of the equivalent Hugging Face folder.

Everything a file says of its architecture is either carried over or refused by name: a scaling
nobody knows of is as wrong as a scaling computed wrongly.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.fields import FIELD


@dataclass(frozen=True, slots=True)
class Layout:
    """How llama.cpp keeps a family: under which name, and whether the rows of each q and k head are
    interleaved."""

    family: str
    architecture: str
    is_interleaved: bool


# By `general.architecture`. Mistral's files call themselves llama.
LAYOUTS = {
    layout.family: layout
    for layout in (
        Layout("llama", "LlamaForCausalLM", is_interleaved=True),
        Layout("qwen2", "Qwen2ForCausalLM", is_interleaved=False),
        Layout("qwen3", "Qwen3ForCausalLM", is_interleaved=False),
    )
}

# Keys of the architecture that are read below, or say what the tensors say again.
_KNOWN = frozenset(
    {
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "vocab_size",
        "tensor_data_layout",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scale_linear",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
    }
)
# Keys that change nothing while they have this value.
_NEUTRAL = {
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "attention.causal": True,
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """The key-value part of a GGUF."""

    path: Path
    fields: dict[str, Any]

    def require(self, key: str, kind: type) -> Any:
        """The value of `key`. Raises InvalidArgument when it is absent or no `kind`."""
        value = self.optional(key, kind, None)
        if value is None:
            raise self._invalid(key, "is absent", kind)
        return value

    def optional(self, key: str, kind: type, default: Any) -> Any:
        """The value of `key` or the default. Raises InvalidArgument when it is no `kind`."""
        value = self.fields.get(key, default)
        if value is not default and not isinstance(value, kind):
            raise self._invalid(key, f"is a {type(value).__name__}", kind)
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """The list at `key`. Raises InvalidArgument when it is none, or not all of it `kind`."""
        found: list[Any] = self.require(key, list)
        for item in found:
            if not isinstance(item, kind):
                raise self._invalid(key, f"has a {type(item).__name__}", kind)
        return found

    def _invalid(self, key: str, found: str, kind: type) -> InvalidArgument:
        return InvalidArgument(
            f"{self.path}: {key} {found}, not a {kind.__name__}",
            field=FIELD,
            limit=f"a GGUF with {key}",
        )

    @property
    def layout(self) -> Layout:
        """Raises Unsupported for an architecture that is not served."""
        architecture = self.require("general.architecture", str)
        if architecture not in LAYOUTS:
            raise Unsupported(
                f"{self.path} holds architecture {architecture!r}, which is not served from GGUF",
                field=FIELD,
                limit=f"general.architecture is {', '.join(LAYOUTS)}",
            )
        return LAYOUTS[architecture]

    def refusal(self, key: str, limit: str) -> Unsupported:
        return Unsupported(
            f"{self.path} says {key} = {self.fields.get(key)!r}; serve the model's Hugging Face "
            "folder instead",
            field=FIELD,
            limit=limit,
        )


def config_of(
    metadata: Metadata, names: Container[str], divisors: Sequence[float] | None
) -> dict[str, Any]:
    """The content of `config.json`. `names` are those of the weights, in Hugging Face's words;
    `divisors` of the rotary frequencies come as a tensor in files of Llama 3.

    Raises InvalidArgument for a missing number, Unsupported for what is not computed.
    """
    layout = metadata.layout
    _refuse_unknown(metadata, layout.family)

    def require(key: str, kind: type) -> Any:
        return metadata.require(f"{layout.family}.{key}", kind)

    def get(key: str, default: int) -> int:
        return int(metadata.optional(f"{layout.family}.{key}", int, default))

    heads, hidden = require("attention.head_count", int), require("embedding_length", int)
    head_dim = get("attention.key_length", hidden // max(heads, 1))
    for key in ("rope.dimension_count", "attention.value_length"):
        if get(key, head_dim) != head_dim:
            raise metadata.refusal(f"{layout.family}.{key}", f"{key} is the head's {head_dim}")
    context = require("context_length", int)
    return {
        "architectures": [layout.architecture],
        "model_type": layout.family,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": require("feed_forward_length", int),
        "num_hidden_layers": require("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": len(metadata.items("tokenizer.ggml.tokens", str)),
        # Within its window, attention sees everything; beyond, ours would see more.
        "max_position_embeddings": min(context, get("attention.sliding_window", 0) or context),
        "rms_norm_eps": _as_written(require("attention.layer_norm_rms_epsilon", float)),
        "rope_parameters": _rope(metadata, layout.family, context, divisors),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in names,
        "tie_word_embeddings": "lm_head.weight" not in names,
        "dtype": "float32",
        "bos_token_id": metadata.optional("tokenizer.ggml.bos_token_id", int, None),
        "eos_token_id": metadata.optional("tokenizer.ggml.eos_token_id", int, None),
    }


def _refuse_unknown(metadata: Metadata, family: str) -> None:
    for key, value in metadata.fields.items():
        name = key.removeprefix(f"{family}.")
        # Zero, false and nothing are ways to say that something is not there.
        changes_nothing = value == _NEUTRAL[name] if name in _NEUTRAL else not value
        if key == name or name in _KNOWN or changes_nothing:
            continue
        raise metadata.refusal(key, f"a GGUF of a dense {family} without {name}")
    if metadata.optional("split.count", int, 1) > 1:
        raise metadata.refusal("split.count", "a GGUF in one file")


def _rope(
    metadata: Metadata, family: str, context: int, divisors: Sequence[float] | None
) -> dict[str, Any]:
    """`rope_parameters`. A scaling without a type is linear, as llama.cpp has it."""

    def get(key: str, default: Any) -> Any:
        return metadata.optional(f"{family}.rope.{key}", type(default), default)

    factor = get("scaling.factor", get("scale_linear", 0.0))
    kind = get("scaling.type", "linear" if factor else "none")
    original = get("scaling.original_context_length", context)
    theta = {"rope_theta": get("freq_base", 10000.0)}
    if divisors is not None and kind != "none":
        raise metadata.refusal(f"{family}.rope.scaling.type", "none, where rope_freqs.weight is")
    if divisors is not None:
        return theta | {
            "rope_type": "longrope",
            "short_factor": list(divisors),
            "long_factor": list(divisors),
            "attention_factor": 1.0,
            "original_max_position_embeddings": original,
        }
    match kind:
        case "none":
            return theta | {"rope_type": "default"}
        case "linear":
            return theta | {"rope_type": "linear", "factor": factor}
        case "yarn":
            return theta | {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "beta_fast": get("scaling.yarn_beta_fast", 32.0),
                "beta_slow": get("scaling.yarn_beta_slow", 1.0),
            }
    raise metadata.refusal(
        f"{family}.rope.scaling.type", "rope.scaling.type is none, linear or yarn"
    )


def _as_written(value: float) -> float:
    """The number the author wrote, before it was stored as float32: 1e-05, not 9.99999975e-06."""
    return float(f"{value:.6g}")
