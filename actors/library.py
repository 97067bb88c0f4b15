"""Documents that can be found: a store, an embedder and an index, kept in step.

    upsert:  check -> chunk and embed what changed -> commit to the store -> index -> answer
    search:  words |
                   +-> fuse by rank -> chunks with their places
             sense |

The store is the truth and the index its shadow: a crash between commit and index costs a rebuild
at the next start, never a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.config import RetrieverConfig
from cluster.documents.chunker import chunk_text
from cluster.errors import InvariantBroken, Lost
from cluster.index.embedder import StaticEmbedder, pack, unpack
from cluster.index.vectors import VectorIndex
from cluster.retrieval.fusion import ChunkKey, fuse
from cluster.retrieval.limits import DocumentLimits, check_batch
from cluster.retrieval.records import Chunk, Document, ScoredChunk
from cluster.store.documents import DocumentStore
from cluster.store.records import Deleted, Entry, StoredChunk, Upserted, digest_of
from cluster.store.search import SearchReader, Snapshot


class Library:
    """The writing side; everything is called from the thread that opened it."""

    def __init__(self, folder: Path, config: RetrieverConfig) -> None:
        """Opens or makes the store and fills the index from it.

        Raises as `DocumentStore` does, and Lost when the embeddings are not this embedder's.
        """
        self.folder = folder
        self.store = DocumentStore(folder)
        try:
            self.embedder = StaticEmbedder.load()
            self.index = VectorIndex(self.embedder.dimension)
            self._fill_index()
        except BaseException:
            self.store.close()
            raise
        self._limits = DocumentLimits(config.max_document_bytes, config.max_batch_documents)
        self._chunk_chars = config.chunk_chars
        self._recipe = f"{self.embedder.name}; chunks of {config.chunk_chars}"

    def close(self) -> None:
        self.store.close()

    def upsert(self, collection: str, documents: Sequence[Document]) -> Upserted:
        """The whole batch or nothing: durable and searchable when this returns.

        Raises InvalidArgument, TooLarge, NotFound for the collection, and as the store does.
        """
        check_batch(documents, self._limits)
        entries = self._entries(collection, documents)
        upserted = self.store.upsert(collection, entries)
        changed = zip(entries, upserted.results, strict=True)
        embeddings = [
            blob for entry, result in changed if result.changed for blob in entry.embeddings
        ]
        with _in_step():
            self.index.remove(collection, upserted.removed_ids)
            self.index.add(collection, upserted.added_ids, unpack(embeddings))
        return upserted

    def delete_documents(self, collection: str, ids: Sequence[str]) -> Deleted:
        """Ids that are not there are passed over. Raises NotFound, and as the store does."""
        deleted = self.store.delete_documents(collection, ids)
        with _in_step():
            self.index.remove(collection, deleted.removed_ids)
        return deleted

    def delete_collection(self, name: str) -> Deleted:
        """Raises NotFound, and as the store does."""
        deleted = self.store.delete_collection(name)
        self.index.drop(name)
        return deleted

    def _entries(self, collection: str, documents: Sequence[Document]) -> list[Entry]:
        """A document that is stored already needs no chunks: the store will keep what it has."""
        digests = [digest_of(document, self._recipe) for document in documents]
        stored = self.store.digests(collection, [document.id for document in documents])
        return [
            Entry(document, digest, (), ())
            if stored.get(document.id) == digest
            else self._entry(document, digest)
            for document, digest in zip(documents, digests, strict=True)
        ]

    def _entry(self, document: Document, digest: bytes) -> Entry:
        chunks = chunk_text(document.text, self._chunk_chars)
        vectors = self.embedder.embed([_to_embed(document, chunk) for chunk in chunks])
        return Entry(document, digest, chunks, tuple(pack(vectors)))

    def _fill_index(self) -> None:
        for collection, ids, embeddings in self.store.embeddings():
            try:
                vectors = unpack(embeddings)
            except ValueError as error:
                raise Lost(
                    f"{self.folder} holds embeddings that are not of {self.embedder.name}: "
                    "ingest the documents again into an empty folder"
                ) from error
            self.index.add(collection, ids, vectors)


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for; checked already."""

    collections: tuple[str, ...]
    query: str
    top_k: int
    filters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """The best chunks, best first, as of one moment of the document log."""

    chunks: tuple[ScoredChunk, ...]
    sequence: int


class Searcher:
    """The searching side of a library, on a thread and a connection of its own."""

    def __init__(self, library: Library, candidates: int) -> None:
        self._reader = SearchReader(library.folder)
        self._embedder = library.embedder
        self._index = library.index
        self._candidates = candidates

    def close(self) -> None:
        self._reader.close()

    def search(self, question: Question) -> Found:
        """Raises NotFound for a collection, Lost and Unavailable.

        Scores of one kind are compared over all collections, so that a collection that has little
        to say does not get as many places as one that has much.
        """
        vector = self._embedder.embed([question.query])[0]
        limit = max(self._candidates, question.top_k)
        words: list[_Hit] = []
        sense: list[_Hit] = []
        with self._reader.snapshot() as snapshot:
            for name in sorted(set(question.collections)):
                allowed = snapshot.allowed(name, question.filters)
                by_words = snapshot.by_words(name, question.query, limit, question.filters)
                by_sense = self._index.search(name, vector, limit, allowed)
                words += _hits(snapshot, name, by_words)
                sense += _hits(snapshot, name, by_sense)
            sequence = snapshot.sequence
        stored = {chunk.key: chunk for chunk, _ in words + sense}
        fused = fuse([_ranking(words, limit), _ranking(sense, limit)])[: question.top_k]
        return Found(tuple(_scored(stored[key], score) for key, score in fused), sequence)


_Hit = tuple[StoredChunk, float]


def _hits(snapshot: Snapshot, collection: str, scored: Sequence[tuple[int, float]]) -> list[_Hit]:
    """The index may be a moment ahead of the snapshot: what is not there yet is left out."""
    chunks = snapshot.chunks(collection, [id for id, _ in scored])
    return [(chunks[id], score) for id, score in scored if id in chunks]


def _ranking(hits: Sequence[_Hit], limit: int) -> list[ChunkKey]:
    best_first = sorted(hits, key=lambda hit: (-hit[1], hit[0].key))
    return [chunk.key for chunk, _ in best_first[:limit]]


def _scored(chunk: StoredChunk, score: float) -> ScoredChunk:
    return ScoredChunk(
        collection=chunk.key.collection,
        document_id=chunk.key.document_id,
        document_version=chunk.document_version,
        title=chunk.title or chunk.key.document_id,
        chunk=chunk.key.ordinal,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        score=score,
    )


def _to_embed(document: Document, chunk: Chunk) -> str:
    return f"{document.title}\n{chunk.text}"


@contextmanager
def _in_step() -> Iterator[None]:
    """What fails after the commit leaves the index behind the store: only a restart mends that."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        raise InvariantBroken(f"the index fell behind the store: {error}") from error
