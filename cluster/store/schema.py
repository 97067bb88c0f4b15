"""The tables, and how a database is opened so that what is committed stays.

    collections ─┬─< documents ─┬─< chunks ─── words_<collection key>   (FTS5, rowid = chunk id)
                 │              └─< metadata
    log          one row per change of a document; its sequence number is the document's version

A document's version is the sequence number of the log entry that made it. Sequence numbers and
chunk ids are never given twice (AUTOINCREMENT), so neither are versions, whatever was deleted in
between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import Lost, Unavailable, Unsupported

SCHEMA_VERSION = 1
DATABASE_NAME = "documents.sqlite3"

_TABLES = """
CREATE TABLE collections (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE documents (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections (key),
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (collection, id)
);
CREATE TABLE metadata (
    document INTEGER NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (document, name)
) WITHOUT ROWID;
CREATE INDEX metadata_by_value ON metadata (name, value);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    embedding BLOB NOT NULL,
    UNIQUE (document, ordinal)
);
CREATE TABLE log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('upsert', 'delete')),
    collection TEXT NOT NULL,
    document TEXT NOT NULL
);
"""


def connect_writer(folder: Path) -> sqlite3.Connection:
    """The connection that changes things. Makes the database, or checks the one that is there.

    A commit returns when the write-ahead log is on the disk. Raises Lost for a damaged database,
    Unsupported for one of a later version, Unavailable when the folder cannot be written.
    """
    path = folder / DATABASE_NAME
    with typed_errors(path):
        connection = _connect(path)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(folder: Path) -> sqlite3.Connection:
    """A connection that only looks, beside the writer's. The database is there already."""
    path = folder / DATABASE_NAME
    with typed_errors(path):
        connection = _connect(path)
        connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """sqlite3's errors as ours. A statement that is wrong stays what it is: a bug."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(error)) from error
        if code in _NOT_NOW:
            message = f"the document store {path} cannot be used now: {error}"
            raise Unavailable(message, retry_after_s=5.0) from error
        raise


_NOT_NOW = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }
)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, on the disk when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk ends the transaction by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def words_table(collection_key: int) -> str:
    """Each collection has its own word index, so that a word's weight is its weight there."""
    return f"words_{collection_key:d}"


def create_words_table(connection: sqlite3.Connection, collection_key: int) -> None:
    connection.execute(
        f"CREATE VIRTUAL TABLE {words_table(collection_key)} USING fts5("
        "title, text, tokenize = 'porter unicode61 remove_diacritics 2')"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # No implicit transactions: `transaction` is the only place that begins one.
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Unsupported(
            f"{path} has schema {version}, this version of Thoth knows up to {SCHEMA_VERSION}",
            limit=f"schema {SCHEMA_VERSION}",
        )
    if version == 0:
        with transaction(connection):
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict.splitlines()[-1])


def _damaged(path: Path, why: str) -> Lost:
    return Lost(
        f"the document store {path} is damaged ({why}): restore it from a backup, "
        "or move it away and ingest the documents again"
    )
