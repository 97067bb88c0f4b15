"""The store where the disk, the file or another process does not play along."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cluster.errors import Lost, Starting, Unavailable, Unsupported
from cluster.store.documents import DocumentStore
from cluster.store.schema import DATABASE_NAME, connect_reader
from tests.retrieval.making import entry


def test_a_second_process_is_kept_out(store: DocumentStore, tmp_path: Path) -> None:
    with pytest.raises(Starting, match="in use by another retriever"):
        DocumentStore(tmp_path)
    store.upsert("kb", [entry("a", "text")])


def test_every_commit_waits_for_the_disk(store: DocumentStore) -> None:
    db = store._db
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)


def filled(folder: Path) -> Path:
    store = DocumentStore(folder)
    store.create_collection("kb")
    store.upsert("kb", [entry(str(i), "word " * 200) for i in range(50)])
    store.close()
    return folder / DATABASE_NAME


def test_a_damaged_database_says_so(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 4096):
        content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(Lost, match=r"documents\.sqlite3 is damaged .* restore it from a backup"):
        DocumentStore(tmp_path)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"These are not the pages you look for.\n" * 200)
    for _ in range(2):
        with pytest.raises(Lost, match="damaged"):
            DocumentStore(tmp_path)


def test_a_later_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = filled(tmp_path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Unsupported, match=r"schema 7.* up to 1"):
        DocumentStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used"):
        DocumentStore(tmp_path / "file" / "documents")


def test_a_full_disk_is_said_and_nothing_is_half_written(store: DocumentStore) -> None:
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(Unavailable, match="full"):
        store.upsert("kb", [entry(str(i), "word " * 1000) for i in range(20)])
    assert store.totals() == (0, 0)
    store.upsert("kb", [entry("small", "text")])
    assert store.totals() == (1, 1)


def test_a_reader_cannot_write(store: DocumentStore, tmp_path: Path) -> None:
    reader = connect_reader(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM collections")
    reader.close()
