"""Models of the Hugging Face Hub, by id: `organisation/name` or `organisation/name@revision`.

    <cache>/models--organisation--name/snapshots/<commit>/    the library's own layout

Of a repository the description is fetched first and checked; then the weights that it names. Only
safetensors, JSON, the tokenizer and the chat template are ever asked for. Without a network, what
was fetched whole before is served again. A private repository needs the library's HF_TOKEN.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ThothError,
    Unavailable,
    Unsupported,
)
from cluster.models.config import decoder_config
from cluster.models.fields import FIELD
from cluster.models.folder import INDEX, SINGLE, read_json, weight_names

log = logging.getLogger(__name__)

DESCRIPTION = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    INDEX,
)
# How people find out what to write.
_LIMIT = "organisation/name or organisation/name@revision of a repository with safetensors"
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9._/-]+))?")
_RETRY_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class HubId:
    """`revision` is a branch, a tag or a commit."""

    repository: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"


def hub_id(source: str) -> HubId | None:
    """None for what cannot be an id of the Hub."""
    found = _HUB_ID.fullmatch(source)
    return found and HubId(found["repository"], found["revision"] or "main")


def fetch(model: HubId, cache_dir: Path, endpoint: str | None = None) -> Path:
    """The folder of the revision, whose name is the commit. `endpoint` is another Hub than the one
    the library takes, which is what HF_ENDPOINT says.

    Raises NotFound, PermissionDenied, Unavailable when nobody answers, and what `decoder_config`
    raises; Unsupported for a repository without safetensors.
    """
    download = _Download(model.repository, cache_dir, endpoint)
    path = download.files(model.revision, DESCRIPTION)
    decoder_config(read_json(path / "config.json"))
    names = weight_names(path)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        download.files(path.name, missing)
    if not all((path / name).is_file() for name in names):
        raise _without_safetensors(model, names)
    log.info("%s is commit %s, in %s", model, path.name, path)
    return path


@dataclass(frozen=True, slots=True)
class _Download:
    repository: str
    cache_dir: Path
    endpoint: str | None

    def files(self, revision: str, names: tuple[str, ...] | list[str]) -> Path:
        """The snapshot's folder with those of the named files that the repository has."""
        # Takes a good part of a second, which only those pay who name the Hub.
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        try:
            return Path(
                snapshot_download(
                    self.repository,
                    revision=revision,
                    cache_dir=self.cache_dir,
                    allow_patterns=list(names),
                    endpoint=self.endpoint,
                )
            )
        except Exception as error:  # its transport raises classes that are not the library's own
            raise _explained(self.repository, revision, error) from error


def _explained(repository: str, revision: str, error: Exception) -> ThothError:
    from huggingface_hub import errors  # noqa: PLC0415

    match error:
        case errors.GatedRepoError():
            return PermissionDenied(
                f"{repository} is for those who accepted its terms: accept them on its page and "
                "set HF_TOKEN",
                field=FIELD,
                limit="a repository this token may read",
            )
        case errors.RepositoryNotFoundError():
            return NotFound(
                f"{repository} is no folder here, and no repository that the Hub shows this "
                "HF_TOKEN, or those without one",
                field=FIELD,
                limit=_LIMIT,
            )
        case errors.RevisionNotFoundError():
            return NotFound(f"{repository} has no revision {revision!r}", field=FIELD, limit=_LIMIT)
        case errors.HFValidationError():
            return InvalidArgument(
                f"{repository} is no id of the Hub: {error}", field=FIELD, limit=_LIMIT
            )
    return Unavailable(
        f"{repository} is no folder here, and it cannot be fetched: {_said(error)}",
        retry_after_s=_RETRY_AFTER_S,
        field=FIELD,
        limit="a folder, or a network that reaches the Hub",
    )


def _said(error: Exception) -> str:
    """The first thing that went wrong, in a line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"


def _without_safetensors(model: HubId, names: tuple[str, ...]) -> Unsupported:
    return Unsupported(
        f"{model} has no {names[0]}; pickles are not fetched, and a GGUF is served from a file",
        field=FIELD,
        limit=f"a repository with {SINGLE}, or {INDEX} and its files",
    )
