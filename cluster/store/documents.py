"""The writing side of the store. What a method has returned is on the disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from cluster.errors import NotFound, Starting, Unavailable
from cluster.retrieval.records import Collection, Document, UpsertResult
from cluster.store import rows
from cluster.store.records import Change, ChangeKind, Deleted, Entry, Page, Upserted
from cluster.store.schema import (
    DATABASE_NAME,
    connect_writer,
    create_words_table,
    transaction,
    typed_errors,
    words_table,
)

LOCK_NAME = "lock"
# A page ends early when metadata would make its message too large.
_PAGE_BYTES = 4 * 2**20
_LOAD_ROWS = 4096


class DocumentStore:
    """Collections of documents with their chunks; one per folder, for the thread that opened it.

    Every method may raise Lost when the database is damaged and Unavailable when it cannot be
    written.
    """

    def __init__(self, folder: Path) -> None:
        """Raises Starting while another process holds the folder, Unsupported for later data."""
        self._path = folder / DATABASE_NAME
        with ExitStack() as opened:
            opened.callback(os.close, _lock(folder))
            self._db = connect_writer(folder)
            opened.callback(self._db.close)
            self._closing = opened.pop_all()

    def close(self) -> None:
        """Gives the folder back; a second time does nothing."""
        self._closing.close()

    # Collections

    def create_collection(self, name: str) -> tuple[Collection, bool]:
        """The collection, and whether it is new."""
        with self._changing():
            row = self._db.execute(
                "INSERT INTO collections (name) VALUES (?) ON CONFLICT DO NOTHING RETURNING key",
                (name,),
            ).fetchone()
            if row is not None:
                create_words_table(self._db, row[0])
        return self.collection(name), row is not None

    def collection(self, name: str) -> Collection:
        """Raises NotFound."""
        with self._looking():
            return rows.count_collection(self._db, rows.find_collection(self._db, name))

    def collections(self) -> tuple[Collection, ...]:
        """All, by name."""
        with self._looking():
            found = self._db.execute("SELECT key, name FROM collections ORDER BY name").fetchall()
            return tuple(rows.count_collection(self._db, rows.CollectionRow(*row)) for row in found)

    def delete_collection(self, name: str) -> Deleted:
        """With all its documents, each of which is logged. Raises NotFound."""
        with self._changing():
            collection = rows.find_collection(self._db, name)
            deleted = self._remove_all(collection)
            self._db.execute(f"DROP TABLE {words_table(collection.key)}")
            self._db.execute("DELETE FROM collections WHERE key = ?", (collection.key,))
            return deleted

    # Documents

    def digests(self, collection: str, ids: Sequence[str]) -> dict[str, bytes]:
        """The digests of those documents that are stored. Raises NotFound for the collection."""
        with self._looking():
            row = rows.find_collection(self._db, collection)
            found = {id: rows.find_document(self._db, row, id) for id in ids}
            return {id: document.digest for id, document in found.items() if document is not None}

    def upsert(self, collection: str, entries: Sequence[Entry]) -> Upserted:
        """The whole batch or nothing. Raises NotFound for the collection."""
        added: list[int] = []
        removed: list[int] = []
        results: list[UpsertResult] = []
        with self._changing():
            row = rows.find_collection(self._db, collection)
            for entry in entries:
                id, num_chunks = entry.document.id, len(entry.chunks)
                stored = rows.find_document(self._db, row, id)
                if stored is not None and stored.digest == entry.digest:
                    num_chunks = len(rows.chunk_ids(self._db, stored.key))
                    results.append(UpsertResult(id, stored.version, num_chunks, changed=False))
                    continue
                if stored is not None:
                    removed += rows.remove_document(self._db, row, stored.key)
                version = rows.log_change(self._db, ChangeKind.UPSERT, collection, id)
                added += rows.insert_document(self._db, row, entry, version)
                results.append(UpsertResult(id, version, num_chunks, changed=True))
            sequence = rows.last_sequence(self._db)
        return Upserted(tuple(results), sequence, tuple(added), tuple(removed))

    def document(self, collection: str, id: str) -> Document:
        """Raises NotFound for the collection or the document."""
        with self._looking():
            found = self._db.execute(
                "SELECT id, title, text, metadata, version FROM documents "
                "WHERE collection = ? AND id = ?",
                (rows.find_collection(self._db, collection).key, id),
            ).fetchone()
        if found is None:
            message = f"there is no document {id!a} in the collection {collection}"
            raise NotFound(message, field="id", limit="an existing document")
        return rows.to_document(found)

    def list_documents(self, collection: str, limit: int, after: str) -> Page:
        """By id in the order of UTF-8 bytes, without texts. Raises NotFound for the collection."""
        with self._looking():
            found = self._db.execute(
                "SELECT id, title, '', metadata, version FROM documents "
                "WHERE collection = ? AND id > ? ORDER BY id LIMIT ?",
                (rows.find_collection(self._db, collection).key, after, limit + 1),
            ).fetchall()
        num_bytes = 0
        page: list[Document] = []
        for row in found[:limit]:
            num_bytes += sum(len(text.encode()) for text in row[:4])
            if page and num_bytes > _PAGE_BYTES:
                break
            page.append(rows.to_document(row))
        return Page(tuple(page), page[-1].id if len(page) < len(found) else "")

    def delete_documents(self, collection: str, ids: Sequence[str]) -> Deleted:
        """Ids that are not there are passed over. Raises NotFound for the collection."""
        removed: list[int] = []
        num_documents = 0
        with self._changing():
            row = rows.find_collection(self._db, collection)
            for id in ids:
                stored = rows.find_document(self._db, row, id)
                if stored is not None:
                    removed += rows.remove_document(self._db, row, stored.key)
                    rows.log_change(self._db, ChangeKind.DELETE, collection, id)
                    num_documents += 1
            return Deleted(num_documents, rows.last_sequence(self._db), tuple(removed))

    # What an index or a follower needs

    def sequence(self) -> int:
        """The number of the last change that was ever made; 0 before the first."""
        with self._looking():
            return rows.last_sequence(self._db)

    def totals(self) -> tuple[int, int]:
        """(documents, chunks) over all collections."""
        with self._looking():
            (num_documents,) = self._db.execute("SELECT count(*) FROM documents").fetchone()
            (num_chunks,) = self._db.execute("SELECT count(*) FROM chunks").fetchone()
            return num_documents, num_chunks

    def changes(self, after: int, limit: int) -> tuple[Change, ...]:
        """The log behind sequence number `after`, oldest first."""
        with self._looking():
            found = self._db.execute(
                "SELECT sequence, kind, collection, document FROM log "
                "WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
        return tuple(Change(row[0], ChangeKind(row[1]), row[2], row[3]) for row in found)

    def embeddings(self) -> Iterator[tuple[str, list[int], list[bytes]]]:
        """(collection, chunk ids, embeddings) of everything, in pieces of bounded size."""
        with self._looking():
            cursor = self._db.execute(
                "SELECT l.name, c.id, c.embedding FROM collections l "
                "JOIN documents d ON d.collection = l.key JOIN chunks c ON c.document = d.key "
                "ORDER BY c.id"
            )
            while piece := cursor.fetchmany(_LOAD_ROWS):
                for name in sorted({row[0] for row in piece}):
                    mine = [row for row in piece if row[0] == name]
                    yield name, [row[1] for row in mine], [row[2] for row in mine]

    def _remove_all(self, collection: rows.CollectionRow) -> Deleted:
        removed: list[int] = []
        found = self._db.execute(
            "SELECT key, id FROM documents WHERE collection = ? ORDER BY id", (collection.key,)
        ).fetchall()
        for key, id in found:
            removed += rows.chunk_ids(self._db, key)
            rows.log_change(self._db, ChangeKind.DELETE, collection.name, id)
        self._db.execute("DELETE FROM documents WHERE collection = ?", (collection.key,))
        return Deleted(len(found), rows.last_sequence(self._db), tuple(removed))

    def _looking(self) -> AbstractContextManager[None]:
        return typed_errors(self._path)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with typed_errors(self._path), transaction(self._db):
            yield


def _lock(folder: Path) -> int:
    """Taken for as long as the process lives: two writers' indexes would go different ways."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"the document folder {folder} cannot be used: {error.strerror}"
        raise Unavailable(message, retry_after_s=5.0) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        message = f"the document folder {folder} is in use by another retriever"
        raise Starting(message, retry_after_s=2.0) from None
    return file
