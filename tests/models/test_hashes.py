"""Hashes that are remembered, and when they are not."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cluster.models import hashes
from cluster.models.hashes import RememberedHashes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as settled a moment after it was written."""
    monkeypatch.setattr(hashes, "_SETTLED_S", 0.05)
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    time.sleep(0.1)
    return path


@pytest.fixture
def remembered(tmp_path: Path) -> RememberedHashes:
    return RememberedHashes(tmp_path / "notes")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def never(*args: object) -> None:
    raise AssertionError("read again")


def test_a_file_that_has_not_changed_is_not_read_again(
    file: Path, remembered: RememberedHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remembered.sha256(file) == digest(b"one")
    monkeypatch.setattr(hashlib, "file_digest", never)
    assert remembered.sha256(file) == digest(b"one")
    assert RememberedHashes(remembered.folder).sha256(file) == digest(b"one")


def test_other_content_of_the_same_size_and_time_is_noticed(
    file: Path, remembered: RememberedHashes
) -> None:
    written = file.stat().st_mtime_ns
    assert remembered.sha256(file) == digest(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(written, written))
    assert file.stat().st_mtime_ns == written
    assert remembered.sha256(file) == digest(b"two")


def test_another_file_at_the_same_path_is_noticed(
    file: Path, remembered: RememberedHashes, tmp_path: Path
) -> None:
    remembered.sha256(file)
    (tmp_path / "other").write_bytes(b"two")
    (tmp_path / "other").replace(file)
    assert remembered.sha256(file) == digest(b"two")


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    remembered = RememberedHashes(tmp_path / "notes")
    (tmp_path / "weights").write_bytes(b"one")
    assert remembered.sha256(tmp_path / "weights") == digest(b"one")
    assert not remembered.folder.exists()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"{}", b"\xff", b'{"sha256": "0", "file": {}}'])
def test_a_note_that_cannot_be_understood_is_written_again(
    file: Path, remembered: RememberedHashes, note: bytes
) -> None:
    remembered.sha256(file)
    (found,) = remembered.folder.iterdir()
    good = found.read_bytes()
    found.write_bytes(note)
    assert remembered.sha256(file) == digest(b"one")
    assert found.read_bytes() == good


def test_a_folder_that_cannot_be_written_only_costs_time(file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a file where the folder would be")
    remembered = RememberedHashes(tmp_path / "notes")
    assert remembered.sha256(file) == remembered.sha256(file) == digest(b"one")


def test_a_link_is_the_file_it_leads_to(
    file: Path, remembered: RememberedHashes, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(file)
    remembered.sha256(file)
    assert remembered.sha256(tmp_path / "link") == digest(b"one")
    assert len(list(remembered.folder.iterdir())) == 1
