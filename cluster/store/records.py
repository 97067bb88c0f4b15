"""What goes into the store and what it tells of changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from cluster.retrieval.fusion import ChunkKey
from cluster.retrieval.records import Chunk, Document, UpsertResult


@dataclass(frozen=True, slots=True)
class Entry:
    """A document made ready: its chunks, and for each its embedding as bytes."""

    document: Document
    digest: bytes
    chunks: tuple[Chunk, ...]
    embeddings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Upserted:
    """What a batch did. `added_ids` are new chunks, in the order of the entries that changed."""

    results: tuple[UpsertResult, ...]
    sequence: int
    added_ids: tuple[int, ...]
    removed_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """Chunk ids that are gone with their documents."""

    num_documents: int
    sequence: int
    removed_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Documents without their texts; `next` is empty on the last page."""

    documents: tuple[Document, ...]
    next: str


class ChangeKind(StrEnum):
    UPSERT = "upsert"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the document log."""

    sequence: int
    kind: ChangeKind
    collection: str
    document_id: str


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk with its place and its document's title, as a search finds it."""

    key: ChunkKey
    document_version: int
    title: str
    start: int
    end: int
    text: str


def digest_of(document: Document, recipe: str) -> bytes:
    """What makes two documents the same: content, and the recipe it is cut and embedded by."""
    content = [recipe, document.title, document.text, sorted(document.metadata.items())]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).digest()
