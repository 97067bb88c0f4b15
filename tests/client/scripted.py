"""A real gRPC server whose answers are written down before they are asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import NotFound, ThothError
from cluster.wire.serving import GrpcServer, streaming, unary
from protos.thoth.v1 import (
    documents_pb2,
    documents_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    retriever_pb2,
    types_pb2,
)

CHUNK = retriever_pb2.ScoredChunk(
    collection="kb", document_id="with", document_version=3, title="The with statement",
    chunk=1, start=10, end=20, text="wraps the ", score=0.03,
)  # fmt: skip
CITATION = gateway_pb2.Citation(index=1, chunk=CHUNK)
USAGE = types_pb2.Usage(prompt_tokens=7, completion_tokens=2)
TIMINGS = types_pb2.Timings(
    queue_s=0.1, retrieval_s=0.2, prefill_s=0.3, time_to_first_token_s=0.7, total_s=1.0
)
STARTED = gateway_pb2.StreamChatResponse(
    started=gateway_pb2.ChatStarted(
        request_id="req-1", model="tiny", citations=[CITATION], retrieval_s=0.2
    )
)
FINISHED = gateway_pb2.StreamChatResponse(
    finished=gateway_pb2.ChatFinished(
        finish_reason=types_pb2.FINISH_REASON_STOP, usage=USAGE, timings=TIMINGS
    )
)


def delta(text: str, choice: int = 0) -> gateway_pb2.StreamChatResponse:
    return gateway_pb2.StreamChatResponse(delta=gateway_pb2.ChatDelta(text=text, choice=choice))


def ended(choice: int) -> gateway_pb2.StreamChatResponse:
    return gateway_pb2.StreamChatResponse(
        choice_finished=gateway_pb2.ChoiceFinished(
            choice=choice, finish_reason=types_pb2.FINISH_REASON_STOP
        )
    )


@dataclass
class ScriptedGateway(gateway_pb2_grpc.GatewayServiceServicer):
    """`failures` are raised by one call each, before `events` are streamed."""

    failures: list[ThothError] = field(default_factory=list)
    events: Sequence[gateway_pb2.StreamChatResponse | ThothError] = ()
    pause_s: float = 0.0
    calls: list[gateway_pb2.ChatCall] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    budgets_s: list[float] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def _note(self, call: gateway_pb2.ChatCall, context: Any) -> None:
        self.calls.append(call)
        self.metadata.append(dict(context.invocation_metadata()))
        self.budgets_s.append(context.time_remaining())
        if self.failures:
            raise self.failures.pop(0)

    @unary(gateway_pb2.ChatResponse)
    async def Chat(
        self, request: gateway_pb2.ChatRequest, context: Any
    ) -> gateway_pb2.ChatResponse:
        self._note(request.call, context)
        await asyncio.sleep(self.pause_s)
        return gateway_pb2.ChatResponse(
            request_id="req-1", model="tiny", text="hello", usage=USAGE, timings=TIMINGS,
            finish_reason=types_pb2.FINISH_REASON_LENGTH, citations=[CITATION],
        )  # fmt: skip

    @streaming(lambda detail: gateway_pb2.StreamChatResponse(error=detail))
    async def StreamChat(
        self, request: gateway_pb2.StreamChatRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.StreamChatResponse]:
        self._note(request.call, context)
        try:
            for event in self.events:
                if isinstance(event, ThothError):
                    raise event
                yield event
                await asyncio.sleep(self.pause_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @unary(gateway_pb2.RetrieveResponse)
    async def Retrieve(
        self, request: gateway_pb2.RetrieveRequest, context: Any
    ) -> gateway_pb2.RetrieveResponse:
        num = request.top_k if request.HasField("top_k") else 4
        return gateway_pb2.RetrieveResponse(chunks=[CHUNK] * num, retrieval_s=0.5)

    @unary(gateway_pb2.ListModelsResponse)
    async def ListModels(
        self, request: gateway_pb2.ListModelsRequest, context: Any
    ) -> gateway_pb2.ListModelsResponse:
        return gateway_pb2.ListModelsResponse(
            models=[gateway_pb2.Model(id="tiny", context_tokens=512)]
        )


@dataclass
class ScriptedDocuments(documents_pb2_grpc.DocumentsServiceServicer):
    """Keeps documents in a dictionary; `refusals` maps the number of a batch to its error."""

    stored: dict[str, documents_pb2.Document] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    refusals: dict[int, ThothError] = field(default_factory=dict)

    @unary(documents_pb2.CreateCollectionResponse)
    async def CreateCollection(
        self, request: documents_pb2.CreateCollectionRequest, context: Any
    ) -> documents_pb2.CreateCollectionResponse:
        return documents_pb2.CreateCollectionResponse(
            collection=documents_pb2.Collection(name=request.name), created=True
        )

    @unary(documents_pb2.GetCollectionResponse)
    async def GetCollection(
        self, request: documents_pb2.GetCollectionRequest, context: Any
    ) -> documents_pb2.GetCollectionResponse:
        raise NotFound(f"no collection {request.name!r}", field="name")

    @unary(documents_pb2.ListCollectionsResponse)
    async def ListCollections(
        self, request: documents_pb2.ListCollectionsRequest, context: Any
    ) -> documents_pb2.ListCollectionsResponse:
        kb = documents_pb2.Collection(name="kb", num_documents=len(self.stored), num_chunks=9)
        return documents_pb2.ListCollectionsResponse(collections=[kb])

    @unary(documents_pb2.DeleteCollectionResponse)
    async def DeleteCollection(
        self, request: documents_pb2.DeleteCollectionRequest, context: Any
    ) -> documents_pb2.DeleteCollectionResponse:
        num = len(self.stored)
        self.stored.clear()
        return documents_pb2.DeleteCollectionResponse(num_documents=num)

    @unary(documents_pb2.UpsertDocumentsResponse)
    async def UpsertDocuments(
        self, request: documents_pb2.UpsertDocumentsRequest, context: Any
    ) -> documents_pb2.UpsertDocumentsResponse:
        self.batches.append(len(request.documents))
        refusal = self.refusals.get(len(self.batches))
        if refusal is not None:
            raise refusal
        results = []
        for document in request.documents:
            changed = self.stored.get(document.id) != document
            self.stored[document.id] = document
            results.append(
                documents_pb2.UpsertResult(id=document.id, version=1, num_chunks=1, changed=changed)
            )
        return documents_pb2.UpsertDocumentsResponse(results=results, sequence=len(self.batches))

    @unary(documents_pb2.GetDocumentResponse)
    async def GetDocument(
        self, request: documents_pb2.GetDocumentRequest, context: Any
    ) -> documents_pb2.GetDocumentResponse:
        return documents_pb2.GetDocumentResponse(document=self.stored[request.id])

    @unary(documents_pb2.ListDocumentsResponse)
    async def ListDocuments(
        self, request: documents_pb2.ListDocumentsRequest, context: Any
    ) -> documents_pb2.ListDocumentsResponse:
        ids = sorted(i for i in self.stored if i > request.after)
        limit = request.limit if request.HasField("limit") else 100
        page = [documents_pb2.Document(id=i) for i in ids[:limit]]
        return documents_pb2.ListDocumentsResponse(
            documents=page, next=page[-1].id if len(ids) > limit else ""
        )

    @unary(documents_pb2.DeleteDocumentsResponse)
    async def DeleteDocuments(
        self, request: documents_pb2.DeleteDocumentsRequest, context: Any
    ) -> documents_pb2.DeleteDocumentsResponse:
        found = [self.stored.pop(i, None) for i in request.ids]
        return documents_pb2.DeleteDocumentsResponse(num_deleted=sum(d is not None for d in found))


@contextmanager
def serving(gateway: ScriptedGateway, documents: ScriptedDocuments) -> Iterator[str]:
    """Serves both on a loop of their own thread; yields host:port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> GrpcServer:
        server = GrpcServer("127.0.0.1")
        server.add(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, gateway)
        server.add(documents_pb2_grpc.add_DocumentsServiceServicer_to_server, documents)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0.2), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
