"""The retriever: documents are kept and found here.

Two threads beside the event loop, which itself only passes messages on: one changes things, in
order; the other searches, so that a large ingest does not keep questions waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from actors.lanes import Lane
from actors.library import Found, Library, Question, Searcher
from actors.roles import Site, Station
from cluster.config import ThothConfig
from cluster.errors import InvariantBroken, NotFound, Starting
from cluster.retrieval.limits import (
    MAX_PAGE_DOCUMENTS,
    check_collection_name,
    check_deletion,
    check_range,
    check_search,
)
from cluster.retrieval.records import Document
from cluster.scheduling.membership import Role
from cluster.store.records import Deleted, Upserted
from cluster.telemetry import catalogue
from cluster.wire.documents import (
    chunk_to_pb,
    collection_to_pb,
    document_from_pb,
    document_to_pb,
    upsert_result_to_pb,
)
from cluster.wire.serving import CallContext, streaming, unary
from protos.thoth.v1 import documents_pb2 as pb
from protos.thoth.v1 import documents_pb2_grpc, retriever_pb2, retriever_pb2_grpc

# A batch may be as large as a message: so many of them wait at most.
MAX_WAITING_CHANGES = 16
MAX_WAITING_SEARCHES = 256
DEFAULT_PAGE_DOCUMENTS = 100

Result = TypeVar("Result")


class Retriever:
    """Owns the documents folder. Ready when the index is filled from the store."""

    def __init__(self, config: ThothConfig, site: Site) -> None:
        self._config = config
        self._station = Station(Role.RETRIEVER, site, config)
        self._changes = Lane("documents", MAX_WAITING_CHANGES)
        self._searches = Lane("search", MAX_WAITING_SEARCHES)
        self._library: Library | None = None
        self._searcher: Searcher | None = None
        metrics = self._station.metrics
        self._retrieval_seconds = metrics.histogram(catalogue.RETRIEVAL_SECONDS)
        self._documents = metrics.gauge(catalogue.DOCUMENTS)
        self._chunks = metrics.gauge(catalogue.CHUNKS)
        self._upserted = metrics.counter(catalogue.UPSERTED_DOCUMENTS)
        self._deleted = metrics.counter(catalogue.DELETED_DOCUMENTS)
        server = self._station.server
        server.add(documents_pb2_grpc.add_DocumentsServiceServicer_to_server, _Documents(self))
        server.add(retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, _Search(self))

    @property
    def address(self) -> str:
        """host:port once started."""
        return self._station.server.address

    async def start(self) -> None:
        """Raises Lost for damaged data, Starting while another process holds the folder."""
        await self._station.open()
        library = await self._changes.run(self._open)
        self._library = library
        candidates = self._config.retriever.candidates
        self._searcher = await self._searches.run(lambda: Searcher(library, candidates))
        await self._station.set_ready(True)

    async def stop(self) -> None:
        await self._station.close()
        library, searcher = self._library, self._searcher
        self._library = self._searcher = None
        if searcher is not None:
            await self._searches.run(searcher.close)
        if library is not None:
            await self._changes.run(library.close)
        await self._searches.close()
        await self._changes.close()

    async def call(self, work: Callable[[Library], Result]) -> Result:
        """Work on the library, in turn. Raises Starting, Overloaded, and as the work does."""
        library = self._library
        if library is None:
            raise _reading()
        try:
            return await self._changes.run(lambda: work(library))
        except InvariantBroken as error:
            self._station.site.die(error.message)
            raise

    async def upsert(self, collection: str, documents: Sequence[Document]) -> Upserted:
        def work(library: Library) -> Upserted:
            done = library.upsert(collection, documents)
            self._count(library)
            return done

        done = await self.call(work)
        self._upserted.inc(len(done.results))
        return done

    async def delete(self, work: Callable[[Library], Deleted]) -> Deleted:
        """Work that deletes documents, counted."""

        def counted(library: Library) -> Deleted:
            done = work(library)
            self._count(library)
            return done

        done = await self.call(counted)
        self._deleted.inc(done.num_documents)
        return done

    async def search(self, question: Question) -> Found:
        """Raises Starting, Overloaded, and as `Searcher.search`."""
        searcher = self._searcher
        if searcher is None:
            raise _reading()
        with self._retrieval_seconds.time():
            return await self._searches.run(lambda: searcher.search(question))

    def _open(self) -> Library:
        library = Library(self._config.documents_dir, self._config.retriever)
        self._count(library)
        return library

    def _count(self, library: Library) -> None:
        num_documents, num_chunks = library.store.totals()
        self._documents.set(num_documents)
        self._chunks.set(num_chunks)


def _reading() -> Starting:
    return Starting("the retriever is reading its documents", retry_after_s=1.0)


class _Documents(documents_pb2_grpc.DocumentsServiceServicer):
    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    @unary(pb.CreateCollectionResponse)
    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: CallContext
    ) -> pb.CreateCollectionResponse:
        check_collection_name(request.name, "name")
        collection, is_new = await self._retriever.call(
            lambda library: library.store.create_collection(request.name)
        )
        return pb.CreateCollectionResponse(collection=collection_to_pb(collection), created=is_new)

    @unary(pb.GetCollectionResponse)
    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: CallContext
    ) -> pb.GetCollectionResponse:
        with _field("name"):
            collection = await self._retriever.call(
                lambda library: library.store.collection(request.name)
            )
        return pb.GetCollectionResponse(collection=collection_to_pb(collection))

    @unary(pb.ListCollectionsResponse)
    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: CallContext
    ) -> pb.ListCollectionsResponse:
        collections = await self._retriever.call(lambda library: library.store.collections())
        return pb.ListCollectionsResponse(collections=map(collection_to_pb, collections))

    @unary(pb.DeleteCollectionResponse)
    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: CallContext
    ) -> pb.DeleteCollectionResponse:
        with _field("name"):
            done = await self._retriever.delete(
                lambda library: library.delete_collection(request.name)
            )
        return pb.DeleteCollectionResponse(num_documents=done.num_documents)

    @unary(pb.UpsertDocumentsResponse)
    async def UpsertDocuments(
        self, request: pb.UpsertDocumentsRequest, context: CallContext
    ) -> pb.UpsertDocumentsResponse:
        documents = tuple(map(document_from_pb, request.documents))
        done = await self._retriever.upsert(request.collection, documents)
        return pb.UpsertDocumentsResponse(
            results=map(upsert_result_to_pb, done.results), sequence=done.sequence
        )

    @unary(pb.GetDocumentResponse)
    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: CallContext
    ) -> pb.GetDocumentResponse:
        document = await self._retriever.call(
            lambda library: library.store.document(request.collection, request.id)
        )
        return pb.GetDocumentResponse(document=document_to_pb(document))

    @unary(pb.ListDocumentsResponse)
    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: CallContext
    ) -> pb.ListDocumentsResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_PAGE_DOCUMENTS
        check_range(limit, MAX_PAGE_DOCUMENTS, "limit")
        page = await self._retriever.call(
            lambda library: library.store.list_documents(request.collection, limit, request.after)
        )
        return pb.ListDocumentsResponse(
            documents=map(document_to_pb, page.documents), next=page.next
        )

    @unary(pb.DeleteDocumentsResponse)
    async def DeleteDocuments(
        self, request: pb.DeleteDocumentsRequest, context: CallContext
    ) -> pb.DeleteDocumentsResponse:
        ids = tuple(request.ids)
        check_deletion(ids)
        done = await self._retriever.delete(
            lambda library: library.delete_documents(request.collection, ids)
        )
        return pb.DeleteDocumentsResponse(num_deleted=done.num_documents, sequence=done.sequence)


class _Search(retriever_pb2_grpc.RetrieverServiceServicer):
    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    # A search has one stage for now. One that fails ends with an empty stage that is not final.
    @streaming(lambda _: None)
    async def Search(
        self, request: retriever_pb2.SearchRequest, context: CallContext
    ) -> AsyncIterator[retriever_pb2.SearchResponse]:
        question = Question(
            tuple(request.collections), request.query, request.top_k, dict(request.filters)
        )
        check_search(question.collections, question.query, question.top_k, question.filters)
        with _field("collections"):
            found = await self._retriever.search(question)
        yield retriever_pb2.SearchResponse(
            chunks=map(chunk_to_pb, found.chunks), is_final=True, sequence=found.sequence
        )


@contextmanager
def _field(name: str) -> Iterator[None]:
    """A collection that is not there is named by the field in which the caller named it."""
    try:
        yield
    except NotFound as error:
        error.field = name
        raise
