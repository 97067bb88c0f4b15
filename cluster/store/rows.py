"""Single documents as rows of several tables; every function is a step of a transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

from cluster.errors import NotFound
from cluster.retrieval.records import Collection, Document
from cluster.store.records import ChangeKind, Entry
from cluster.store.schema import words_table


class CollectionRow(NamedTuple):
    key: int
    name: str


class DocumentRow(NamedTuple):
    """What one must know of a stored document to keep or replace it."""

    key: int
    version: int
    digest: bytes


def find_collection(db: sqlite3.Connection, name: str) -> CollectionRow:
    """Raises NotFound."""
    row = db.execute("SELECT key, name FROM collections WHERE name = ?", (name,)).fetchone()
    if row is None:
        message = f"there is no collection {name!a}"
        raise NotFound(message, field="collection", limit="an existing collection")
    return CollectionRow(*row)


def count_collection(db: sqlite3.Connection, collection: CollectionRow) -> Collection:
    num_documents, num_chunks = db.execute(
        "SELECT count(DISTINCT d.key), count(c.id) FROM documents d "
        "LEFT JOIN chunks c ON c.document = d.key WHERE d.collection = ?",
        (collection.key,),
    ).fetchone()
    return Collection(collection.name, num_documents, num_chunks)


def find_document(db: sqlite3.Connection, collection: CollectionRow, id: str) -> DocumentRow | None:
    row = db.execute(
        "SELECT key, version, digest FROM documents WHERE collection = ? AND id = ?",
        (collection.key, id),
    ).fetchone()
    return None if row is None else DocumentRow(*row)


def chunk_ids(db: sqlite3.Connection, document_key: int) -> list[int]:
    rows = db.execute("SELECT id FROM chunks WHERE document = ? ORDER BY id", (document_key,))
    return [id for (id,) in rows]


def insert_document(
    db: sqlite3.Connection, collection: CollectionRow, entry: Entry, version: int
) -> list[int]:
    """Returns the ids of the chunks, in their order."""
    document = entry.document
    metadata = dict(sorted(document.metadata.items()))
    key = _inserted(
        db,
        "INSERT INTO documents (collection, id, version, title, text, metadata, digest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        collection.key,
        document.id,
        version,
        document.title,
        document.text,
        json.dumps(metadata, ensure_ascii=False),
        entry.digest,
    )
    db.executemany(
        "INSERT INTO metadata (document, name, value) VALUES (?, ?, ?)",
        [(key, name, value) for name, value in metadata.items()],
    )
    ids = [
        _inserted(
            db,
            "INSERT INTO chunks (document, ordinal, start, end, embedding) VALUES (?, ?, ?, ?, ?)",
            key,
            chunk.ordinal,
            chunk.start,
            chunk.end,
            embedding,
        )
        for chunk, embedding in zip(entry.chunks, entry.embeddings, strict=True)
    ]
    db.executemany(
        f"INSERT INTO {words_table(collection.key)} (rowid, title, text) VALUES (?, ?, ?)",
        [(id, document.title, chunk.text) for id, chunk in zip(ids, entry.chunks, strict=True)],
    )
    return ids


def remove_document(
    db: sqlite3.Connection, collection: CollectionRow, document_key: int
) -> list[int]:
    """Returns the ids of the chunks that went with it."""
    removed = chunk_ids(db, document_key)
    db.executemany(
        f"DELETE FROM {words_table(collection.key)} WHERE rowid = ?", [(id,) for id in removed]
    )
    db.execute("DELETE FROM documents WHERE key = ?", (document_key,))
    return removed


def log_change(db: sqlite3.Connection, kind: ChangeKind, collection: str, id: str) -> int:
    """Returns the sequence number of the change."""
    statement = "INSERT INTO log (kind, collection, document) VALUES (?, ?, ?)"
    return _inserted(db, statement, kind, collection, id)


def last_sequence(db: sqlite3.Connection) -> int:
    """The number of the last change that was ever made; 0 before the first."""
    (sequence,) = db.execute("SELECT coalesce(max(sequence), 0) FROM log").fetchone()
    return int(sequence)


def to_document(row: tuple[str, str, str, str, int]) -> Document:
    """From the columns id, title, text, metadata, version."""
    id, title, text, metadata, version = row
    return Document(id, title, text, json.loads(metadata), version)


def _inserted(db: sqlite3.Connection, statement: str, *values: object) -> int:
    return int(db.execute(f"{statement} RETURNING rowid", values).fetchone()[0])
