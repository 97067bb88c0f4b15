"""Entries for a store, without an embedder, and what is found of them."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.documents.chunker import chunk_text
from cluster.retrieval.records import Document
from cluster.store.records import Entry, digest_of
from cluster.store.search import SearchReader

EMBEDDING = b"\x00\x00\x80\x3f"


def entry(
    id: str, text: str = "", title: str = "", metadata: Mapping[str, str] | None = None
) -> Entry:
    """A document in chunks of 40 characters, each embedded as the same four bytes."""
    document = Document(id, title, text, metadata or {})
    chunks = chunk_text(text, 40)
    return Entry(document, digest_of(document, "test"), chunks, (EMBEDDING,) * len(chunks))


def words(reader: SearchReader, query: str, filters: dict[str, str] | None = None) -> list[str]:
    """Documents of `kb` that have any of the words, best first."""
    with reader.snapshot() as snapshot:
        scored = snapshot.by_words("kb", query, 10, filters or {})
        chunks = snapshot.chunks("kb", [id for id, _ in scored])
        return [chunks[id].key.document_id for id, _ in scored]
