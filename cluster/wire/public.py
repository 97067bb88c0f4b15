"""The public services as a client speaks them: a call is bytes and a way to read the reply.

No stub is needed, so the same `Call` goes over a sync and over an async channel. What a caller can
get wrong in a field is refused here, by the field's name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message as ProtobufMessage

from cluster.errors import InvalidArgument, ThothError
from cluster.request import Message
from cluster.retrieval.records import Collection, Document
from cluster.wire.answers import (
    Answer,
    AskOptions,
    Delta,
    DocumentPage,
    Finished,
    Retrieved,
    ServedModel,
    Started,
    StreamEvent,
    Upserted,
)
from cluster.wire.documents import (
    chunk_from_pb,
    citation_from_pb,
    collection_from_pb,
    document_from_pb,
    upsert_result_from_pb,
)
from cluster.wire.generation import finish_reason_from_pb, timings_from_pb, usage_from_pb
from cluster.wire.status import from_detail
from protos.thoth.v1 import documents_pb2, gateway_pb2, types_pb2

Reply = TypeVar("Reply")
ReplyMessage = TypeVar("ReplyMessage", bound=ProtobufMessage)

_GATEWAY = "/thoth.v1.GatewayService/"
_DOCUMENTS = "/thoth.v1.DocumentsService/"
_RETRIEVAL_OPTIONS = ("top_k", "filters", "max_context_tokens", "query", "citations")


@dataclass(frozen=True, slots=True)
class Call(Generic[Reply]):
    """A method, the bytes of its request, and how to read one message of its reply."""

    method: str
    request: bytes
    read: Callable[[bytes], Reply]


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document as it will travel, and how much room it takes there."""

    message: documents_pb2.Document
    num_bytes: int


def _call(
    method: str,
    request: ProtobufMessage,
    reply: type[ReplyMessage],
    read: Callable[[ReplyMessage], Reply],
) -> Call[Reply]:
    return Call(method, request.SerializeToString(), lambda data: read(reply.FromString(data)))


def chat(messages: Sequence[Message], options: AskOptions, timeout_s: float) -> Call[Answer]:
    request = gateway_pb2.ChatRequest(call=_chat_call(messages, options, timeout_s))
    return _call(f"{_GATEWAY}Chat", request, gateway_pb2.ChatResponse, _answer)


def stream_chat(
    messages: Sequence[Message], options: AskOptions, timeout_s: float
) -> Call[StreamEvent | ThothError]:
    """An error in the stream is an event here: it is for the reader of the stream to raise."""
    request = gateway_pb2.StreamChatRequest(call=_chat_call(messages, options, timeout_s))
    return _call(f"{_GATEWAY}StreamChat", request, gateway_pb2.StreamChatResponse, _event)


def retrieve(
    query: str,
    collections: Sequence[str],
    top_k: int | None = None,
    filters: Mapping[str, str] | None = None,
) -> Call[Retrieved]:
    request = gateway_pb2.RetrieveRequest()
    _extend(request, "collections", collections)
    _put(request, "query", query)
    _put(request, "top_k", top_k)
    _put_pairs(request.filters, filters or {}, "filters")
    return _call(
        f"{_GATEWAY}Retrieve",
        request,
        gateway_pb2.RetrieveResponse,
        lambda m: Retrieved(tuple(map(chunk_from_pb, m.chunks)), m.retrieval_s),
    )


def list_models() -> Call[tuple[ServedModel, ...]]:
    return _call(
        f"{_GATEWAY}ListModels",
        gateway_pb2.ListModelsRequest(),
        gateway_pb2.ListModelsResponse,
        lambda m: tuple(ServedModel(model.id, model.context_tokens) for model in m.models),
    )


def create_collection(name: str) -> Call[Collection]:
    request = documents_pb2.CreateCollectionRequest()
    _put(request, "name", name)
    return _call(
        f"{_DOCUMENTS}CreateCollection",
        request,
        documents_pb2.CreateCollectionResponse,
        lambda m: collection_from_pb(m.collection),
    )


def get_collection(name: str) -> Call[Collection]:
    request = documents_pb2.GetCollectionRequest()
    _put(request, "name", name)
    return _call(
        f"{_DOCUMENTS}GetCollection",
        request,
        documents_pb2.GetCollectionResponse,
        lambda m: collection_from_pb(m.collection),
    )


def list_collections() -> Call[tuple[Collection, ...]]:
    return _call(
        f"{_DOCUMENTS}ListCollections",
        documents_pb2.ListCollectionsRequest(),
        documents_pb2.ListCollectionsResponse,
        lambda m: tuple(map(collection_from_pb, m.collections)),
    )


def delete_collection(name: str) -> Call[int]:
    """Answers how many documents went with it."""
    request = documents_pb2.DeleteCollectionRequest()
    _put(request, "name", name)
    return _call(
        f"{_DOCUMENTS}DeleteCollection",
        request,
        documents_pb2.DeleteCollectionResponse,
        lambda m: m.num_documents,
    )


def upsert_documents(collection: str, documents: Sequence[EncodedDocument]) -> Call[Upserted]:
    request = documents_pb2.UpsertDocumentsRequest()
    _put(request, "collection", collection)
    request.documents.extend(document.message for document in documents)
    return _call(
        f"{_DOCUMENTS}UpsertDocuments",
        request,
        documents_pb2.UpsertDocumentsResponse,
        lambda m: Upserted(tuple(map(upsert_result_from_pb, m.results)), m.sequence),
    )


def encode_document(document: Document, field: str) -> EncodedDocument:
    """Raises InvalidArgument for text that is not Unicode, naming `field` and the place in it."""
    message = documents_pb2.Document()
    for name in ("id", "title", "text"):
        _put(message, name, getattr(document, name), f"{field}.{name}")
    _put_pairs(message.metadata, document.metadata, f"{field}.metadata")
    return EncodedDocument(message, message.ByteSize())


def get_document(collection: str, id: str) -> Call[Document]:
    request = documents_pb2.GetDocumentRequest()
    _put(request, "collection", collection)
    _put(request, "id", id)
    return _call(
        f"{_DOCUMENTS}GetDocument",
        request,
        documents_pb2.GetDocumentResponse,
        lambda m: document_from_pb(m.document),
    )


def list_documents(collection: str, limit: int | None, after: str) -> Call[DocumentPage]:
    request = documents_pb2.ListDocumentsRequest()
    _put(request, "collection", collection)
    _put(request, "limit", limit)
    _put(request, "after", after)
    return _call(
        f"{_DOCUMENTS}ListDocuments",
        request,
        documents_pb2.ListDocumentsResponse,
        lambda m: DocumentPage(tuple(map(document_from_pb, m.documents)), m.next),
    )


def delete_documents(collection: str, ids: Sequence[str]) -> Call[int]:
    """Answers how many of the ids existed."""
    request = documents_pb2.DeleteDocumentsRequest()
    _put(request, "collection", collection)
    _extend(request, "ids", ids)
    return _call(
        f"{_DOCUMENTS}DeleteDocuments",
        request,
        documents_pb2.DeleteDocumentsResponse,
        lambda m: m.num_deleted,
    )


def _chat_call(
    messages: Sequence[Message], options: AskOptions, timeout_s: float
) -> gateway_pb2.ChatCall:
    call = gateway_pb2.ChatCall(timeout_s=timeout_s)
    _put(call, "model", options.get("model"))
    for i, message in enumerate(messages):
        turn = call.messages.add(role=message.role)
        _put(turn, "content", message.content, f"messages[{i}].content")
    _put_sampling(call.sampling, options)
    _put_retrieval(call, options)
    return call


def _put_sampling(sampling: types_pb2.SamplingParams, options: AskOptions) -> None:
    _put(sampling, "temperature", options.get("temperature"))
    _put(sampling, "top_p", options.get("top_p"))
    _put(sampling, "top_k", options.get("top_k_tokens"), "top_k_tokens")
    _put(sampling, "seed", options.get("seed"))
    _put(sampling, "max_tokens", options.get("max_tokens"))
    _extend(sampling, "stop", options.get("stop", ()))


def _put_retrieval(call: gateway_pb2.ChatCall, options: AskOptions) -> None:
    if not options.get("collections"):
        for name in _RETRIEVAL_OPTIONS:
            if name in options:
                raise InvalidArgument(f"{name} says nothing without collections", field=name)
        return
    retrieval = call.retrieval
    _extend(retrieval, "collections", options["collections"])
    _put(retrieval, "top_k", options.get("top_k"))
    _put(retrieval, "max_context_tokens", options.get("max_context_tokens"))
    _put(retrieval, "query", options.get("query"))
    _put(retrieval, "citations", options.get("citations"))
    _put_pairs(retrieval.filters, options.get("filters", {}), "filters")


def _put(message: ProtobufMessage, name: str, value: object, field: str = "") -> None:
    """Sets a field unless the value is None: absent stays absent."""
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise _unfit(error, field or name, value) from None


def _extend(message: ProtobufMessage, name: str, values: Sequence[str]) -> None:
    if isinstance(values, str):
        raise InvalidArgument(f"{name} is a list of strings, not one string", field=name)
    for i, value in enumerate(values):
        try:
            getattr(message, name).append(value)
        except (TypeError, ValueError) as error:
            raise _unfit(error, f"{name}[{i}]", value) from None


def _put_pairs(place: object, pairs: Mapping[str, str], field: str) -> None:
    for key, value in pairs.items():
        try:
            place[key] = value  # type: ignore[index]
        except (TypeError, ValueError) as error:
            raise _unfit(error, f"{field}[{key!r}]", value) from None


def _unfit(error: TypeError | ValueError, field: str, value: object) -> InvalidArgument:
    """What protobuf would not take, without repeating a whole document."""
    if isinstance(error, UnicodeError):
        return InvalidArgument(f"{field} is not valid Unicode: {error}", field=field)
    said = repr(value)
    shown = said if len(said) <= 60 else f"{said[:57]}..."
    return InvalidArgument(f"{field} is {shown}: {error}", field=field)


def _answer(message: gateway_pb2.ChatResponse) -> Answer:
    return Answer(
        text=message.text,
        citations=tuple(map(citation_from_pb, message.citations)),
        finish_reason=finish_reason_from_pb(message.finish_reason),
        usage=usage_from_pb(message.usage),
        timings=timings_from_pb(message.timings),
        request_id=message.request_id,
        model=message.model,
    )


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
        case "error":
            return from_detail(message.error)
        case _:
            # A newer server's event is an empty piece of text to us.
            return Delta(message.delta.text)
