"""Entries for a store, without an embedder."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.documents.chunker import chunk_text
from cluster.retrieval.records import Document
from cluster.store.records import Entry, digest_of

EMBEDDING = b"\x00\x00\x80\x3f"


def entry(
    id: str, text: str = "", title: str = "", metadata: Mapping[str, str] | None = None
) -> Entry:
    """A document in chunks of 40 characters, each embedded as the same four bytes."""
    document = Document(id, title, text, metadata or {})
    chunks = chunk_text(text, 40)
    return Entry(document, digest_of(document, "test"), chunks, (EMBEDDING,) * len(chunks))
