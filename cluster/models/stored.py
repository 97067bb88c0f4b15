"""Weights that are still in their safetensors files: looked at without being read, read one by one.

A tensor that is read is the caller's own memory, in the type asked for. So a model of bfloat16 is
loaded as float32 without ever being in memory twice, and what happens to the files afterwards
does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.config import DecoderConfig
from cluster.models.decoder import tensor_shapes
from cluster.models.fields import FIELD

_FLOATS = ("F64", "F32", "F16", "BF16")
# Frequencies that old conversions stored; they follow from config.json.
_REDUNDANT = "rotary_emb.inv_freq"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_OUTPUT_BIAS = "self_attn.o_proj.bias"


class StoredTensors(Mapping[str, Tensor]):
    """Tensors by name, each read, moved and converted when it is asked for."""

    def __init__(self, files: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        """`files` is the open safetensors file of every name."""
        self._files = files
        self._device = device
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        stored: Tensor = self._files[name].get_tensor(name)
        return stored.to(self._device, self._dtype, copy=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        """As the format calls its types: F32, BF16, I8."""
        return str(self._files[name].get_slice(name).get_dtype())


@contextmanager
def opened(
    files: Iterable[Path],
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[StoredTensors]:
    """The tensors of all files. Raises InvalidArgument for a file that is cut short or damaged."""
    with ExitStack() as stack:
        by_name: dict[str, Any] = {}
        for file in files:
            try:
                stored = stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise InvalidArgument(
                    f"{file} cannot be read: {error}",
                    field=FIELD,
                    limit="a whole safetensors file",
                ) from error
            by_name |= dict.fromkeys(stored.keys(), stored)
        yield StoredTensors(by_name, device or torch.device("cpu"), dtype)


def check_tensors(path: Path, config: DecoderConfig, stored: StoredTensors) -> None:
    """That the files of the folder `path` hold this model, by names, shapes and types alone.

    Raises InvalidArgument for a tensor that is missing or has another shape, Unsupported for one
    that the forward pass would not use or that holds no floats.
    """
    shapes = tensor_shapes(config)
    for name, shape in shapes.items():
        _check_tensor(path, name, shape, stored)
    for name in sorted(stored.keys() - shapes.keys()):
        if not (name.endswith(_REDUNDANT) or _to_be_compared(name, config)):
            raise Unsupported(
                f"the weights in {path} have {name}, which is not computed here",
                field=FIELD,
                limit=f"tensors of a dense {config.family}, as its config.json describes it",
            )


def _check_tensor(path: Path, name: str, shape: tuple[int, ...], stored: StoredTensors) -> None:
    if name not in stored:
        raise InvalidArgument(
            f"the weights in {path} lack {name}", field=FIELD, limit=f"{name} {list(shape)}"
        )
    if stored.shape(name) != shape:
        raise InvalidArgument(
            f"{name} in {path} is {list(stored.shape(name))}, config.json makes it {list(shape)}",
            field=FIELD,
            limit=f"{name} {list(shape)}",
        )
    if stored.kind(name) not in _FLOATS:
        raise Unsupported(
            f"{name} in {path} is stored as {stored.kind(name)}",
            field=FIELD,
            limit=f"weights as {', '.join(_FLOATS)}",
        )


def _to_be_compared(name: str, config: DecoderConfig) -> bool:
    """Whether it is a tensor that may be there if it changes nothing."""
    return (name == _HEAD and config.tie_word_embeddings) or (
        name.endswith(_OUTPUT_BIAS) and config.qkv_bias
    )


def check_unused(path: Path, config: DecoderConfig, stored: StoredTensors) -> None:
    """That what `check_tensors` let pass changes nothing: reads those tensors.

    Raises Unsupported for a bias of the attention's output that is not zero, InvalidArgument for an
    output matrix that is not the embedding although config.json ties them.
    """
    for name in sorted(stored):
        if name.endswith(_OUTPUT_BIAS) and bool(stored[name].any()):
            raise Unsupported(
                f"{name} in {path} is not zero",
                field=FIELD,
                limit="attention whose biases are those of q, k and v",
            )
    tied = config.tie_word_embeddings and _HEAD in stored
    if tied and not torch.equal(stored[_HEAD], stored[_EMBEDDING]):
        raise InvalidArgument(
            f"config.json in {path} says tie_word_embeddings, and {_HEAD} is not {_EMBEDDING}",
            field=FIELD,
            limit="tie_word_embeddings is false, or one matrix",
        )
