"""Ids of the Hub, against a real server on the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.errors import NotFound, PermissionDenied, ThothError, Unavailable, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.folder import load_decoder, weight_files
from cluster.models.hub import HubId, fetch, hub_id
from tests.models.families import write_family
from tests.models.small_hub import SmallHub, serving
from tests.tiny_model import write_tiny_model

MAIN, OLD = "a" * 40, "b" * 40
UNWANTED = ("pytorch_model.bin", "modeling_evil.py", "consolidated.safetensors", "README.md")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SmallHub]:
    whole = write_tiny_model(tmp_path / "whole")
    for name in UNWANTED:
        (whole / name).write_bytes(b"never asked for")
    pickled = write_tiny_model(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    odd = write_tiny_model(tmp_path / "odd")
    (odd / "config.json").write_text('{"architectures": ["MixtralForCausalLM"]}')
    repositories = {
        "org/tiny": whole,
        "org/pickled": pickled,
        "org/odd": odd,
        "org/gated": whole,
        "org/cut": write_family(tmp_path / "cut", "qwen3"),
    }
    revisions = {"main": MAIN, "v1": OLD}
    with serving(SmallHub(repositories, revisions, gated=frozenset({"org/gated"}))) as served:
        yield served


def fetched(hub: SmallHub, source: str, cache: Path) -> Path:
    found = hub_id(source)
    assert found is not None
    return fetch(found, cache, hub.endpoint)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", HubId("Qwen/Qwen2.5-0.5B-Instruct")),
        ("org/name@v1.0", HubId("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubId("org/name", "refs/pr/1")),
        (f"org/name@{MAIN}", HubId("org/name", MAIN)),
        ("name", None),
        ("./models/name", None),
        ("../models/name", None),
        ("/models/name", None),
        ("~/models/name", None),
        ("a/b/c", None),
        ("org/", None),
        ("org/name@", None),
        ("org/na me", None),
    ],
)
def test_an_id_is_an_organisation_and_a_name(source: str, expected: HubId | None) -> None:
    assert hub_id(source) == expected


def test_a_model_is_fetched_once_and_is_the_model(
    hub: SmallHub, tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="cluster.models.hub"):
        folder = fetched(hub, "org/tiny", tmp_path / "cache")
    assert folder.name == MAIN
    assert f"org/tiny@main is commit {MAIN}" in caplog.text
    ours, original = load_decoder(folder).weights, load_decoder(tiny_folder).weights
    assert torch.equal(ours.embedding, original.embedding)
    files = [path for path in hub.asked if "/resolve/" in path]
    assert fetched(hub, "org/tiny", tmp_path / "cache") == folder
    assert [path for path in hub.asked if "/resolve/" in path] == files


def test_nothing_is_asked_for_but_data(hub: SmallHub, tmp_path: Path) -> None:
    folder = fetched(hub, "org/tiny", tmp_path / "cache")
    assert not {file.name for file in folder.iterdir()} & set(UNWANTED)
    assert not [path for path in hub.asked if path.endswith(UNWANTED)]


def test_weights_of_several_files_are_all_fetched(hub: SmallHub, tmp_path: Path) -> None:
    folder = fetched(hub, "org/cut", tmp_path / "cache")
    assert len(weight_files(folder)) > 1
    assert load_decoder(folder).config.qk_norm


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: SmallHub, tmp_path: Path) -> None:
    assert fetched(hub, "org/tiny@v1", tmp_path / "cache").name == OLD
    assert fetched(hub, f"org/tiny@{OLD}", tmp_path / "cache").name == OLD


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("org/absent", NotFound, "org/absent is no folder here, and no repository"),
        ("org/tiny@v9", NotFound, "has no revision 'v9'"),
        ("org/gated", PermissionDenied, "HF_TOKEN"),
        ("org/pickled", Unsupported, "has no model.safetensors; pickles are not fetched"),
        ("org/odd", Unsupported, "MixtralForCausalLM"),
    ],
)
def test_what_the_hub_cannot_give_is_said(
    hub: SmallHub, tmp_path: Path, source: str, kind: type[ThothError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        fetched(hub, source, tmp_path / "cache")
    assert said in caught.value.message
    assert (caught.value.field, bool(caught.value.limit)) == ("model.source", True)


def test_weights_of_an_architecture_that_is_not_served_are_not_fetched(
    hub: SmallHub, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported):
        fetched(hub, "org/odd", tmp_path / "cache")
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def nobody() -> SmallHub:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return SmallHub({}, endpoint=f"http://127.0.0.1:{port}")


def test_without_a_network_the_error_comes_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"org/tiny .*cannot be fetched") as caught:
        fetched(nobody(), "org/tiny", tmp_path / "cache")
    assert time.monotonic() - began < 20
    assert caught.value.field == "model.source"
    assert caught.value.retriable


def test_without_a_network_what_was_fetched_is_served(hub: SmallHub, tmp_path: Path) -> None:
    folder = fetched(hub, "org/tiny", tmp_path / "cache")
    assert fetched(nobody(), "org/tiny", tmp_path / "cache") == folder
    assert fetched(nobody(), f"org/tiny@{MAIN}", tmp_path / "cache") == folder


@pytest.mark.long
def test_without_a_network_a_part_of_a_model_is_not_served(hub: SmallHub, tmp_path: Path) -> None:
    folder = fetched(hub, "org/tiny", tmp_path / "cache")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Unavailable, match="cannot be fetched"):
        fetched(nobody(), "org/tiny", tmp_path / "cache")


def test_a_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_model(tmp_path / "org" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/tiny", tmp_path / "cache").path == Path("org/tiny")


def test_the_hub_of_the_environment_is_the_one_that_is_asked(hub: SmallHub, tmp_path: Path) -> None:
    """As a whole, in a process of its own, as a user has it."""
    program = (
        "import sys, pathlib; from cluster.models.catalogue import resolve_model;"
        "found = resolve_model('org/tiny@v1', pathlib.Path(sys.argv[1]));"
        "print(found.name, found.path.name, len(found.fingerprint))"
    )
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | told,
    )
    assert found.stdout.split() == ["org/tiny", OLD, "64"]
