"""GGUF files as Hugging Face tensors and config.

llama.cpp turns neighbours where Hugging Face turns halves, so a GGUF of the llama architecture has
the rows of every q and k head interleaved. Those of Qwen turn halves too, and have not::

    Hugging Face   a0 a1 .. an  b0 b1 .. bn        (ai is turned with bi)
    GGUF, llama    a0 b0 a1 b1 .. an bn
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.config import DecoderConfig
from cluster.models.fields import FIELD
from cluster.models.gguf_config import Metadata, config_of

# What reading a damaged file through numpy views can raise.
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, OSError, RecursionError)

_GLOBAL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# What each rotary frequency is divided by: how Llama 3's scaling is stored.
_DIVISORS = "rope_freqs.weight"


class _BoundedReader(GGUFReader):  # type: ignore[misc]
    """The library reads nothing past the end of the file, forever if a count is damaged."""

    def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any) -> Any:
        found = super()._get(offset, dtype, count, *args, **kwargs)
        if len(found) != count:
            raise ValueError(f"{count} values expected at byte {offset}, {len(found)} are there")
        return found


class GgufFile:
    """An open GGUF. Raises NotFound or InvalidArgument when the file is missing, truncated or
    damaged, Unsupported when it is whole and holds what is not served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = _BoundedReader(path)
            fields = {name: field.contents() for name, field in self._reader.fields.items()}
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        self.metadata = Metadata(path, fields)
        self.layout = self.metadata.layout
        stored = {t.name: t for t in self._reader.tensors}
        self._divisors = stored.pop(_DIVISORS, None) if self.layout.is_interleaved else None
        self._stored = {self._hugging_face_name(name): t for name, t in stored.items()}

    def config(self) -> dict[str, Any]:
        """The content of the equivalent `config.json`."""
        divisors = None
        if self._divisors is not None:
            divisors = self._weight(self._divisors).double().flatten().tolist()
        return config_of(self.metadata, self._stored, divisors)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight by its Hugging Face name, [out, in]."""
        return {name: tuple(t.shape.tolist()[::-1]) for name, t in self._stored.items()}

    def tensors(self, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
        """Every weight, one at a time: float16 and bfloat16 as they are, the others as float32.
        `shapes` must be those of `config`."""
        for name, stored in self._stored.items():
            weight = self._weight(stored)
            if self.layout.is_interleaved and ".q_proj." in name:
                weight = halves_from_neighbours(weight, config.num_heads)
            elif self.layout.is_interleaved and ".k_proj." in name:
                weight = halves_from_neighbours(weight, config.num_kv_heads)
            yield name, weight

    def _weight(self, stored: Any) -> Tensor:
        try:
            if stored.tensor_type == GGMLQuantizationType.F16:
                return torch.from_numpy(stored.data.copy())
            if stored.tensor_type == GGMLQuantizationType.BF16:
                bits = torch.from_numpy(stored.data.copy())
                return bits.view(torch.bfloat16)
            return torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        except NotImplementedError as error:
            raise Unsupported(
                f"{self.path}: {stored.name} is stored as {stored.tensor_type.name}: {error}",
                field=FIELD,
                limit="a quantisation that the gguf library can undo",
            ) from error
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error

    def _hugging_face_name(self, name: str) -> str:
        match name.split("."):
            case [part, "weight"] if part in _GLOBAL_NAMES:
                return f"{_GLOBAL_NAMES[part]}.weight"
            case ["blk", index, part, "weight" | "bias" as kind] if (
                part in _LAYER_NAMES and index.isdecimal()
            ):
                return f"model.layers.{index}.{_LAYER_NAMES[part]}.{kind}"
        raise Unsupported(
            f"{self.path} has a tensor {name!r}, which is not computed here",
            field=FIELD,
            limit=f"tensors of a dense {self.layout.family}",
        )


def halves_from_neighbours(weight: Tensor, heads: int) -> Tensor:
    """Undoes the interleaving that the module draws; weight is [heads * head_dim, in] or a bias
    [heads * head_dim]."""
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _damaged(path: Path, error: BaseException) -> InvalidArgument:
    return InvalidArgument(
        f"{path} is not a whole GGUF file ({path.stat().st_size} bytes): {error}",
        field=FIELD,
        limit="a complete, undamaged GGUF file",
    )
