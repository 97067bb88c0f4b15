"""The public services as a client speaks them: a call is bytes and a way to read the reply.

No stub is needed, so the same `Call` goes over a sync and over an async channel. What a caller can
get wrong in a field is refused here, by the field's name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import ThothError
from cluster.request import Message
from cluster.retrieval.records import Collection, Document
from cluster.wire.answers import (
    Answer,
    AskOptions,
    Choice,
    ChoiceFinished,
    Delta,
    DocumentPage,
    Finished,
    Retrieved,
    ServedModel,
    Started,
    StreamEvent,
    Upserted,
)
from cluster.wire.asking import chat_call_to_pb
from cluster.wire.documents import (
    chunk_from_pb,
    citation_from_pb,
    collection_from_pb,
    document_from_pb,
    upsert_result_from_pb,
)
from cluster.wire.generation import finish_reason_from_pb, timings_from_pb, usage_from_pb
from cluster.wire.logprobs import logprob_from_pb
from cluster.wire.requests import Call, extend, make_call, put, put_pairs
from cluster.wire.status import from_detail
from protos.thoth.v1 import documents_pb2, gateway_pb2

_GATEWAY = "/thoth.v1.GatewayService/"
_DOCUMENTS = "/thoth.v1.DocumentsService/"


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document as it will travel, and how much room it takes there."""

    message: documents_pb2.Document
    num_bytes: int


def chat(messages: Sequence[Message], options: AskOptions, timeout_s: float) -> Call[Answer]:
    request = gateway_pb2.ChatRequest(call=chat_call_to_pb(messages, options, timeout_s))
    return make_call(f"{_GATEWAY}Chat", request, gateway_pb2.ChatResponse, _answer)


def stream_chat(
    messages: Sequence[Message], options: AskOptions, timeout_s: float
) -> Call[StreamEvent | ThothError]:
    """An error in the stream is an event here: it is for the reader of the stream to raise."""
    request = gateway_pb2.StreamChatRequest(call=chat_call_to_pb(messages, options, timeout_s))
    return make_call(f"{_GATEWAY}StreamChat", request, gateway_pb2.StreamChatResponse, _event)


def retrieve(
    query: str,
    collections: Sequence[str],
    top_k: int | None = None,
    filters: Mapping[str, str] | None = None,
) -> Call[Retrieved]:
    request = gateway_pb2.RetrieveRequest()
    extend(request, "collections", collections)
    put(request, "query", query)
    put(request, "top_k", top_k)
    put_pairs(request.filters, filters or {}, "filters")
    return make_call(
        f"{_GATEWAY}Retrieve",
        request,
        gateway_pb2.RetrieveResponse,
        lambda m: Retrieved(tuple(map(chunk_from_pb, m.chunks)), m.retrieval_s),
    )


def list_models() -> Call[tuple[ServedModel, ...]]:
    return make_call(
        f"{_GATEWAY}ListModels",
        gateway_pb2.ListModelsRequest(),
        gateway_pb2.ListModelsResponse,
        lambda m: tuple(ServedModel(model.id, model.context_tokens) for model in m.models),
    )


def create_collection(name: str) -> Call[Collection]:
    request = documents_pb2.CreateCollectionRequest()
    put(request, "name", name)
    return make_call(
        f"{_DOCUMENTS}CreateCollection",
        request,
        documents_pb2.CreateCollectionResponse,
        lambda m: collection_from_pb(m.collection),
    )


def get_collection(name: str) -> Call[Collection]:
    request = documents_pb2.GetCollectionRequest()
    put(request, "name", name)
    return make_call(
        f"{_DOCUMENTS}GetCollection",
        request,
        documents_pb2.GetCollectionResponse,
        lambda m: collection_from_pb(m.collection),
    )


def list_collections() -> Call[tuple[Collection, ...]]:
    return make_call(
        f"{_DOCUMENTS}ListCollections",
        documents_pb2.ListCollectionsRequest(),
        documents_pb2.ListCollectionsResponse,
        lambda m: tuple(map(collection_from_pb, m.collections)),
    )


def delete_collection(name: str) -> Call[int]:
    """Answers how many documents went with it."""
    request = documents_pb2.DeleteCollectionRequest()
    put(request, "name", name)
    return make_call(
        f"{_DOCUMENTS}DeleteCollection",
        request,
        documents_pb2.DeleteCollectionResponse,
        lambda m: m.num_documents,
    )


def upsert_documents(collection: str, documents: Sequence[EncodedDocument]) -> Call[Upserted]:
    request = documents_pb2.UpsertDocumentsRequest()
    put(request, "collection", collection)
    request.documents.extend(document.message for document in documents)
    return make_call(
        f"{_DOCUMENTS}UpsertDocuments",
        request,
        documents_pb2.UpsertDocumentsResponse,
        lambda m: Upserted(tuple(map(upsert_result_from_pb, m.results)), m.sequence),
    )


def encode_document(document: Document, field: str) -> EncodedDocument:
    """Raises InvalidArgument for text that is not Unicode, naming `field` and the place in it."""
    message = documents_pb2.Document()
    for name in ("id", "title", "text"):
        put(message, name, getattr(document, name), f"{field}.{name}")
    put_pairs(message.metadata, document.metadata, f"{field}.metadata")
    return EncodedDocument(message, message.ByteSize())


def get_document(collection: str, id: str) -> Call[Document]:
    request = documents_pb2.GetDocumentRequest()
    put(request, "collection", collection)
    put(request, "id", id)
    return make_call(
        f"{_DOCUMENTS}GetDocument",
        request,
        documents_pb2.GetDocumentResponse,
        lambda m: document_from_pb(m.document),
    )


def list_documents(collection: str, limit: int | None, after: str) -> Call[DocumentPage]:
    request = documents_pb2.ListDocumentsRequest()
    put(request, "collection", collection)
    put(request, "limit", limit)
    put(request, "after", after)
    return make_call(
        f"{_DOCUMENTS}ListDocuments",
        request,
        documents_pb2.ListDocumentsResponse,
        lambda m: DocumentPage(tuple(map(document_from_pb, m.documents)), m.next),
    )


def delete_documents(collection: str, ids: Sequence[str]) -> Call[int]:
    """Answers how many of the ids existed."""
    request = documents_pb2.DeleteDocumentsRequest()
    put(request, "collection", collection)
    extend(request, "ids", ids)
    return make_call(
        f"{_DOCUMENTS}DeleteDocuments",
        request,
        documents_pb2.DeleteDocumentsResponse,
        lambda m: m.num_deleted,
    )


def _answer(message: gateway_pb2.ChatResponse) -> Answer:
    return Answer(
        text=message.text,
        citations=tuple(map(citation_from_pb, message.citations)),
        finish_reason=finish_reason_from_pb(message.finish_reason),
        usage=usage_from_pb(message.usage),
        timings=timings_from_pb(message.timings),
        request_id=message.request_id,
        model=message.model,
        choices=tuple(map(_choice, message.choices)) or _only_choice(message),
    )


def _choice(message: gateway_pb2.Choice) -> Choice:
    return Choice(
        index=message.index,
        text=message.text,
        finish_reason=finish_reason_from_pb(message.finish_reason),
        logprobs=tuple(map(logprob_from_pb, message.logprobs)),
    )


def _only_choice(message: gateway_pb2.ChatResponse) -> tuple[Choice, ...]:
    """An older server knows no choices."""
    return (Choice(0, message.text, finish_reason_from_pb(message.finish_reason)),)


def _event(message: gateway_pb2.StreamChatResponse) -> StreamEvent | ThothError:
    match message.WhichOneof("event"):
        case "started":
            return Started(
                message.started.request_id,
                message.started.model,
                tuple(map(citation_from_pb, message.started.citations)),
                message.started.retrieval_s,
            )
        case "finished":
            return Finished(
                finish_reason_from_pb(message.finished.finish_reason),
                usage_from_pb(message.finished.usage),
                timings_from_pb(message.finished.timings),
            )
        case "choice_finished":
            return ChoiceFinished(
                message.choice_finished.choice,
                finish_reason_from_pb(message.choice_finished.finish_reason),
            )
        case "error":
            return from_detail(message.error)
        case _:
            # A newer server's event is an empty piece of text to us.
            return Delta(
                message.delta.text,
                message.delta.choice,
                tuple(map(logprob_from_pb, message.delta.logprobs)),
            )
