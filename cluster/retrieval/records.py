"""Documents, the chunks they are cut into, and what a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name. `version` is given by the store and grows with every change of the
    content."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: `text == document.text[start:end]`, spans in code points."""

    ordinal: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk that was found, with its place. `score` is of reciprocal rank fusion: larger is
    better."""

    collection: str
    document_id: str
    document_version: int
    title: str
    chunk: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that was put before the model, numbered from 1 in the order of the prompt."""

    index: int
    chunk: ScoredChunk


@dataclass(frozen=True, slots=True)
class Collection:
    name: str
    num_documents: int
    num_chunks: int


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """`changed` is False when the stored document was already the same."""

    id: str
    version: int
    num_chunks: int
    changed: bool
