"""A GGUF, converted once into a Hugging Face folder of safetensors.

    <cache>/.<name>.draft-<random>/    written here, by one process at a time
    <cache>/<name>/                    renamed here, whole

The name is the file's SHA-256 and the version of the conversion.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from cluster.errors import InvalidArgument
from cluster.models.config import DecoderConfig, decoder_config
from cluster.models.decoder import tensor_shapes
from cluster.models.fields import FIELD
from cluster.models.folder import INDEX, SINGLE
from cluster.models.ggml_tokenizer import (
    generation_config_of,
    tokenizer_config_of,
    tokenizer_of,
)
from cluster.models.gguf import GgufFile

# Grows whenever the same GGUF would be written as other files.
VERSION = 2
# Weights of one file.
SHARD_BYTES = 2**31


def converted(gguf: Path, sha256: str, cache_dir: Path) -> Path:
    """The folder for this file, made now unless it is there; of processes that race one makes it.

    Raises InvalidArgument or Unsupported for a file that is damaged or holds something else.
    """
    target = cache_dir / f"{sha256}-{VERSION}"
    if target.is_dir():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _alone(cache_dir):
        if not target.is_dir():
            _convert(gguf, target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    for left_behind in target.parent.glob(f".{target.name}.draft-*"):
        # By a process that was killed: whoever lives would hold the lock.
        shutil.rmtree(left_behind)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.draft-", dir=target.parent))
    try:
        write_folder(GgufFile(gguf), draft)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock of a process that dies is free."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write_folder(gguf: GgufFile, folder: Path) -> None:
    """Writes config.json, tokenizer.json, tokenizer_config.json, generation_config.json and the
    weights, of which one file at a time is in memory."""
    raw = gguf.config()
    config = decoder_config(raw)
    _check_shapes(gguf, tensor_shapes(config))
    _write_json(folder / "config.json", raw)
    _write_json(folder / "generation_config.json", generation_config_of(gguf.metadata))
    _write_json(folder / "tokenizer_config.json", tokenizer_config_of(gguf.metadata))
    tokenizer_of(gguf.metadata).save(str(folder / "tokenizer.json"))
    _write_weights(folder, _finite(gguf, config))


def _write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """One file, or several and their index."""
    files: dict[str, str] = {}
    for number, shard in enumerate(_shards(tensors), 1):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(shard, file)
    names = sorted(set(files.values()))
    if len(names) == 1:
        (folder / names[0]).rename(folder / SINGLE)
    else:
        _write_json(folder / INDEX, {"metadata": {}, "weight_map": files})


def _shards(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _check_shapes(gguf: GgufFile, expected: Mapping[str, tuple[int, ...]]) -> None:
    found = gguf.shapes()
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise InvalidArgument(
                f"{gguf.path}: {name} is {found.get(name, 'missing')}, and "
                f"{expected.get(name, 'unknown')} by the file's own metadata",
                field=FIELD,
                limit="tensors that agree with the metadata",
            )


def _finite(gguf: GgufFile, config: DecoderConfig) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in gguf.tensors(config):
        if not torch.isfinite(tensor).all():
            raise InvalidArgument(
                f"{gguf.path}: {name} is not finite everywhere", field=FIELD, limit="finite weights"
            )
        yield name, tensor.contiguous()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
