"""GGUF files of the llama architecture, as Hugging Face tensors and config.

llama.cpp turns neighbours where Hugging Face turns halves, so a GGUF has the rows of every q and k
head interleaved::

    Hugging Face   a0 a1 .. an  b0 b1 .. bn        (ai is turned with bi)
    GGUF           a0 b0 a1 b1 .. an bn
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.config import DecoderConfig
from cluster.models.fields import FIELD

# What reading a damaged file through numpy views can raise.
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, OSError, RecursionError)

_GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """The key-value part of a GGUF."""

    path: Path
    fields: dict[str, Any]

    def require(self, key: str, kind: type) -> Any:
        """The value of `key`. Raises InvalidArgument when it is absent or no `kind`."""
        value = self.fields.get(key)
        if not isinstance(value, kind):
            found = "is absent" if value is None else f"is a {type(value).__name__}"
            raise InvalidArgument(
                f"{self.path}: {key} {found}, not a {kind.__name__}",
                field=FIELD,
                limit=f"a GGUF with {key}",
            )
        return value


class _BoundedReader(GGUFReader):  # type: ignore[misc]
    """The library reads nothing past the end of the file, forever if a count is damaged."""

    def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any) -> Any:
        found = super()._get(offset, dtype, count, *args, **kwargs)
        if len(found) != count:
            raise ValueError(f"{count} values expected at byte {offset}, {len(found)} are there")
        return found


class GgufFile:
    """An open GGUF. Raises NotFound or InvalidArgument when the file is missing, truncated or
    damaged, Unsupported when it is whole and holds another architecture."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = _BoundedReader(path)
            fields = {name: field.contents() for name, field in self._reader.fields.items()}
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        self.metadata = Metadata(path, fields)
        self._stored = {_hugging_face_name(path, t.name): t for t in self._llama_tensors()}

    def _llama_tensors(self) -> list[Any]:
        architecture = self.metadata.require("general.architecture", str)
        if architecture != "llama":
            raise Unsupported(
                f"{self.path} holds architecture {architecture!r}; only llama is served",
                field=FIELD,
                limit="general.architecture is llama",
            )
        return list(self._reader.tensors)

    def config(self) -> dict[str, Any]:
        """The content of the equivalent `config.json`."""
        require = self.metadata.require
        fields = self.metadata.fields
        heads = require("llama.attention.head_count", int)
        hidden = require("llama.embedding_length", int)
        head_dim = fields.get("llama.attention.key_length", hidden // max(heads, 1))
        self._refuse_scaled_rope(head_dim)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": require("llama.feed_forward_length", int),
            "num_hidden_layers": require("llama.block_count", int),
            "num_attention_heads": heads,
            "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
            "head_dim": head_dim,
            "vocab_size": len(require("tokenizer.ggml.tokens", list)),
            "max_position_embeddings": require("llama.context_length", int),
            "rms_norm_eps": _as_written(require("llama.attention.layer_norm_rms_epsilon", float)),
            "rope_theta": fields.get("llama.rope.freq_base", 10000.0),
            "tie_word_embeddings": "lm_head.weight" not in self._stored,
            "torch_dtype": "float32",
            "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        }

    def _refuse_scaled_rope(self, head_dim: int) -> None:
        scaling = self.metadata.fields.get("llama.rope.scaling.type", "none")
        turned = self.metadata.fields.get("llama.rope.dimension_count", head_dim)
        if scaling != "none" or turned != head_dim:
            raise Unsupported(
                f"{self.path} has rotary scaling {scaling!r} over {turned} of {head_dim} elements "
                "of a head; serve the model's Hugging Face folder instead",
                field=FIELD,
                limit="a GGUF whose rotary embedding is not scaled and turns whole heads",
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight by its Hugging Face name, [out, in]."""
        return {name: tuple(t.shape.tolist()[::-1]) for name, t in self._stored.items()}

    def tensors(self, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
        """Every weight, dequantised to float32. `shapes` must be those of `config`."""
        for name, stored in self._stored.items():
            weight = self._dequantised(stored)
            if name.endswith("q_proj.weight"):
                weight = halves_from_neighbours(weight, config.num_heads)
            elif name.endswith("k_proj.weight"):
                weight = halves_from_neighbours(weight, config.num_kv_heads)
            yield name, weight

    def _dequantised(self, stored: Any) -> Tensor:
        try:
            return torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        except NotImplementedError as error:
            raise Unsupported(
                f"{self.path}: {stored.name} is stored as {stored.tensor_type.name}: {error}",
                field=FIELD,
                limit="a quantisation that the gguf library can undo",
            ) from error
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error


def halves_from_neighbours(weight: Tensor, heads: int) -> Tensor:
    """Undoes the interleaving that the module draws; weight is [heads * head_dim, in]."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _as_written(value: float) -> float:
    """The number the author wrote, before it was stored as float32: 1e-05, not 9.99999975e-06."""
    return float(f"{value:.6g}")


def _hugging_face_name(path: Path, name: str) -> str:
    if name in _GLOBAL_NAMES:
        return _GLOBAL_NAMES[name]
    match name.split("."):
        case ["blk", index, part, "weight"] if part in _LAYER_NAMES and index.isdecimal():
            return f"model.layers.{index}.{_LAYER_NAMES[part]}.weight"
    raise Unsupported(
        f"{path} has a tensor {name!r}, which a plain Llama has not",
        field=FIELD,
        limit="tensors of a dense Llama without biases or frequency tables",
    )


def _damaged(path: Path, error: BaseException) -> InvalidArgument:
    return InvalidArgument(
        f"{path} is not a whole GGUF file ({path.stat().st_size} bytes): {error}",
        field=FIELD,
        limit="a complete, undamaged GGUF file",
    )
