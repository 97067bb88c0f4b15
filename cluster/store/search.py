"""The searching side of the store: words, filters and chunks, all as of one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster.retrieval.fusion import ChunkKey
from cluster.store import rows
from cluster.store.match import match_any
from cluster.store.records import StoredChunk
from cluster.store.schema import DATABASE_NAME, connect_reader, typed_errors, words_table

# A word in the title says more about a chunk than one in its text.
_TITLE_WEIGHT = 2.0


class SearchReader:
    """A second connection to the database, used by one thread beside the writer's."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DATABASE_NAME
        self._db = connect_reader(folder)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Everything asked of it is answered as of one commit. Raises Lost or Unavailable."""
        with typed_errors(self._path):
            self._db.execute("BEGIN")
            try:
                yield Snapshot(self._db)
            finally:
                self._db.execute("ROLLBACK")


class Snapshot:
    """The store as of one commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.sequence = rows.last_sequence(db)

    def by_words(
        self, collection: str, query: str, limit: int, filters: Mapping[str, str]
    ) -> list[tuple[int, float]]:
        """Chunk ids with any of the query's words, and their BM25 scores, best (largest) first.

        Title and text are weighted fields of BM25. Raises NotFound for the collection.
        """
        row = rows.find_collection(self._db, collection)
        match = match_any(query)
        if not match:
            return []
        words = words_table(row.key)
        narrowed, values = _narrowed(row, filters)
        found = self._db.execute(
            f"SELECT rowid, -bm25({words}, {_TITLE_WEIGHT}, 1.0) AS score FROM {words} "
            f"WHERE {words} MATCH ? {narrowed} ORDER BY score DESC, rowid LIMIT ?",
            (match, *values, limit),
        )
        return [(id, score) for id, score in found]

    def allowed(self, collection: str, filters: Mapping[str, str]) -> list[int] | None:
        """Ids of the chunks whose document has all these metadata; None when there is no filter.

        Raises NotFound for the collection.
        """
        row = rows.find_collection(self._db, collection)
        if not filters:
            return None
        chosen, values = _chosen(row, filters)
        return [id for (id,) in self._db.execute(chosen, values)]

    def chunks(self, collection: str, ids: Iterable[int]) -> dict[int, StoredChunk]:
        """Those of the ids that exist at this moment. Raises NotFound for the collection."""
        row = rows.find_collection(self._db, collection)
        statement = (
            "SELECT d.id, c.ordinal, d.version, d.title, c.start, c.end, w.text FROM chunks c "
            "JOIN documents d ON d.key = c.document "
            f"JOIN {words_table(row.key)} w ON w.rowid = c.id "
            "WHERE c.id = ? AND d.collection = ?"
        )
        found: dict[int, StoredChunk] = {}
        for id in ids:
            stored = self._db.execute(statement, (id, row.key)).fetchone()
            if stored is not None:
                document_id, ordinal, *rest = stored
                found[id] = StoredChunk(ChunkKey(collection, document_id, ordinal), *rest)
        return found


_Values = tuple[str | int, ...]


def _narrowed(collection: rows.CollectionRow, filters: Mapping[str, str]) -> tuple[str, _Values]:
    """A condition for the word index, and its values."""
    if not filters:
        return "", ()
    chosen, values = _chosen(collection, filters)
    return f"AND rowid IN ({chosen})", values


def _chosen(collection: rows.CollectionRow, filters: Mapping[str, str]) -> tuple[str, _Values]:
    """A query for the chunk ids of the documents that have all these metadata, and its values."""
    condition = (
        "AND EXISTS (SELECT 1 FROM metadata m "
        "WHERE m.document = d.key AND m.name = ? AND m.value = ?)"
    )
    query = (
        "SELECT c.id FROM documents d JOIN chunks c ON c.document = d.key "
        f"WHERE d.collection = ? {' '.join([condition] * len(filters))}"
    )
    return query, (collection.key, *(text for pair in filters.items() for text in pair))
