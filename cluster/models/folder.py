"""A Hugging Face folder: config.json, safetensors, tokenizer.json. Data only: a pickle can run code
when it is opened, so a folder that holds one is refused, and code it points to is never loaded."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.errors import InvalidArgument, NotFound, Unsupported
from cluster.models.config import decoder_config
from cluster.models.decoder import DETERMINISTIC_ROWS, Decoder, assemble
from cluster.models.fields import FIELD
from cluster.models.hashes import RememberedHashes
from cluster.models.stored import check_tensors, check_unused, opened

log = logging.getLogger(__name__)

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that was found fit. `fingerprint` is 64 hexadecimal digits over config and weights;
    of a converted GGUF it is the file's SHA-256."""

    path: Path
    name: str
    fingerprint: str


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InvalidArgument when the file is missing, is not JSON or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidArgument(
            f"{path} does not exist", field=FIELD, limit=f"a folder with {path.name}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"{path} cannot be read as JSON: {error}", field=FIELD, limit="UTF-8 JSON"
        ) from error
    if not isinstance(content, dict):
        raise InvalidArgument(
            f"{path} holds a {type(content).__name__}", field=FIELD, limit="a JSON object"
        )
    return content


def check_folder(path: Path, name: str, hashes: RememberedHashes) -> ModelFolder:
    """Refuses what cannot be served before anything heavy is read.

    Raises NotFound, InvalidArgument or Unsupported, each naming the file at fault.
    """
    if not path.is_dir():
        raise NotFound(f"{path} is no folder", field=FIELD, limit="an existing model folder")
    _refuse_pickles(path)
    config = decoder_config(read_json(path / "config.json"))
    if not (path / "tokenizer.json").is_file():
        raise InvalidArgument(
            f"{path / 'tokenizer.json'} does not exist",
            field=FIELD,
            limit="a folder with tokenizer.json (the fast tokenizer's format)",
        )
    with opened(weight_files(path)) as tensors:
        check_tensors(path, config, tensors)
    return ModelFolder(path, name, fingerprint(path, hashes))


def _refuse_pickles(path: Path) -> None:
    found = sorted(f for pattern in PICKLES for f in path.glob(pattern))
    if found:
        raise Unsupported(
            f"{found[0]} may be a pickle, and opening a pickle can run any code; convert the "
            "weights to safetensors and remove it",
            field=FIELD,
            limit="weights in safetensors or GGUF only",
        )


def weight_names(path: Path) -> tuple[str, ...]:
    """What the safetensors files are called, in order, whether they are there or not."""
    if not (path / INDEX).is_file():
        return (SINGLE,)
    names = _shards(read_json(path / INDEX).get("weight_map"))
    if not names:
        raise InvalidArgument(
            f"{path / INDEX} has no weight_map of file names", field=FIELD, limit="a weight_map"
        )
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise _not_a_file(path / name)
    return tuple(names)


def weight_files(path: Path) -> tuple[Path, ...]:
    """The safetensors files in name order, all present and inside the folder."""
    files = tuple(path / name for name in weight_names(path))
    for file in files:
        if not file.is_file():
            raise _not_a_file(file)
    return files


def _not_a_file(file: Path) -> InvalidArgument:
    return InvalidArgument(
        f"{file} is not a file of the model folder",
        field=FIELD,
        limit=f"a folder with {SINGLE}, or {INDEX} and its files",
    )


def _shards(weight_map: object) -> list[str]:
    """File names by tensor name, as the distinct file names."""
    if not isinstance(weight_map, Mapping):
        return []
    return sorted({str(name) for name in weight_map.values()})


def fingerprint(path: Path, hashes: RememberedHashes) -> str:
    """SHA-256 over config.json, tokenizer.json and the weight files: names, lengths and bytes."""
    digest = hashlib.sha256()
    for file in (path / "config.json", path / "tokenizer.json", *weight_files(path)):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(hashes.sha256(file)))
    return digest.hexdigest()


def load_decoder(
    path: Path,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    row_multiple: int = DETERMINISTIC_ROWS,
) -> Decoder:
    """Reads a folder's weights, as `dtype`, onto `device` (the cpu when None), layer by layer.

    Raises InvalidArgument or Unsupported for tensors that are not those of config.json.
    """
    config = decoder_config(read_json(path / "config.json"))
    with opened(weight_files(path), device, dtype) as tensors:
        check_tensors(path, config, tensors)
        check_unused(path, config, tensors)
        weights = assemble(config, tensors)
    if config.limit_reason:
        log.info("%s: at most %d tokens: %s", path.name, config.max_position, config.limit_reason)
    return Decoder(config, weights, row_multiple)
