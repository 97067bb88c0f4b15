"""Documents, chunks and citations on the wire."""

from __future__ import annotations

from cluster.retrieval.records import Citation, Collection, Document, ScoredChunk, UpsertResult
from protos.thoth.v1 import documents_pb2, gateway_pb2, retriever_pb2


def document_to_pb(document: Document) -> documents_pb2.Document:
    return documents_pb2.Document(
        id=document.id,
        title=document.title,
        text=document.text,
        metadata=dict(document.metadata),
        version=document.version,
    )


def document_from_pb(message: documents_pb2.Document) -> Document:
    return Document(
        id=message.id,
        title=message.title,
        text=message.text,
        metadata=dict(message.metadata),
        version=message.version,
    )


def collection_to_pb(collection: Collection) -> documents_pb2.Collection:
    return documents_pb2.Collection(
        name=collection.name,
        num_documents=collection.num_documents,
        num_chunks=collection.num_chunks,
    )


def collection_from_pb(message: documents_pb2.Collection) -> Collection:
    return Collection(message.name, message.num_documents, message.num_chunks)


def upsert_result_to_pb(result: UpsertResult) -> documents_pb2.UpsertResult:
    return documents_pb2.UpsertResult(
        id=result.id,
        version=result.version,
        num_chunks=result.num_chunks,
        changed=result.changed,
    )


def upsert_result_from_pb(message: documents_pb2.UpsertResult) -> UpsertResult:
    return UpsertResult(message.id, message.version, message.num_chunks, message.changed)


def chunk_to_pb(chunk: ScoredChunk) -> retriever_pb2.ScoredChunk:
    return retriever_pb2.ScoredChunk(
        collection=chunk.collection,
        document_id=chunk.document_id,
        document_version=chunk.document_version,
        title=chunk.title,
        chunk=chunk.chunk,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        score=chunk.score,
    )


def chunk_from_pb(message: retriever_pb2.ScoredChunk) -> ScoredChunk:
    return ScoredChunk(
        collection=message.collection,
        document_id=message.document_id,
        document_version=message.document_version,
        title=message.title,
        chunk=message.chunk,
        start=message.start,
        end=message.end,
        text=message.text,
        score=message.score,
    )


def citation_to_pb(citation: Citation) -> gateway_pb2.Citation:
    return gateway_pb2.Citation(index=citation.index, chunk=chunk_to_pb(citation.chunk))


def citation_from_pb(message: gateway_pb2.Citation) -> Citation:
    return Citation(index=message.index, chunk=chunk_from_pb(message.chunk))
