"""Stubs are what the .proto files say, and the .proto files keep their own rules."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor

from tests.house.source import ROOT

FOLDER = Path("protos", "thoth", "v1")
PROTOS = sorted(path.name for path in (ROOT / FOLDER).glob("*.proto"))


def files() -> Iterator[FileDescriptor]:
    for name in PROTOS:
        module = importlib.import_module(f"protos.thoth.v1.{name.removesuffix('.proto')}_pb2")
        yield module.DESCRIPTOR


def generate(target: Path) -> None:
    """As `make protos` does, into another folder."""
    plugins = Path(sys.executable).parent
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    sources = [str(FOLDER / name) for name in PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, *sources]
    environment = {**os.environ, "PATH": f"{plugins}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def test_the_committed_stubs_are_fresh(tmp_path: Path) -> None:
    generate(tmp_path)
    made = {path.name: path.read_text() for path in (tmp_path / FOLDER).iterdir()}
    kept = {
        path.name: path.read_text() for path in (ROOT / FOLDER).iterdir() if "_pb2" in path.name
    }
    assert made.keys() == kept.keys()
    assert [name for name, text in made.items() if text != kept[name]] == []


def test_method_names_are_unique_over_all_services() -> None:
    names = Counter(
        method.name
        for file in files()
        for service in file.services_by_name.values()
        for method in service.methods
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_method_has_a_request_and_a_response_of_its_own() -> None:
    for file in files():
        for service in file.services_by_name.values():
            assert service.name.endswith("Service")
            for method in service.methods:
                assert method.input_type.name == f"{method.name}Request"
                assert method.output_type.name == f"{method.name}Response"


def test_zero_of_every_enum_means_that_nothing_was_said() -> None:
    for file in files():
        for enum in file.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


def test_everything_is_in_the_versioned_package() -> None:
    assert {file.package for file in files()} == {"thoth.v1"}
