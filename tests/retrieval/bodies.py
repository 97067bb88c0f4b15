"""A retriever as a body of its own: in this process, or in one that can be killed.

python -m tests.retrieval.bodies HOME     prints its address when it is ready, and serves
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import grpc

from actors.retriever import Retriever
from actors.roles import Site
from cluster.clock import MonotonicClock
from cluster.config import RetrieverConfig, ThothConfig
from cluster.errors import Starting
from cluster.wire.members import FindSupervisor
from protos.thoth.v1 import documents_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from protos.thoth.v1.documents_pb2 import (
    CreateCollectionRequest,
    Document,
    UpsertDocumentsRequest,
    UpsertDocumentsResponse,
)

SMALL = RetrieverConfig(chunk_chars=200, max_document_bytes=2**20, max_batch_documents=64)


async def nobody() -> str:
    """A cluster without a supervisor."""
    raise Starting("there is no supervisor here")


def retriever(
    home: Path,
    find_supervisor: FindSupervisor = nobody,
    die: Callable[[str], None] = print,
) -> Retriever:
    site = Site(
        name="retriever",
        host="127.0.0.1",
        node="here",
        find_supervisor=find_supervisor,
        clock=MonotonicClock(),
        random=Random(1),
        die=die,
    )
    return Retriever(ThothConfig(home=home, retriever=SMALL), site)


class Stubs:
    """Both services at one address."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.documents = documents_pb2_grpc.DocumentsServiceStub(channel)
        self._search = retriever_pb2_grpc.RetrieverServiceStub(channel)

    async def create(self, name: str) -> None:
        await self.documents.CreateCollection(CreateCollectionRequest(name=name))

    async def upsert(self, *documents: Document, collection: str = "kb") -> UpsertDocumentsResponse:
        request = UpsertDocumentsRequest(collection=collection, documents=documents)
        return await self.documents.UpsertDocuments(request)

    async def search(
        self,
        query: str,
        collections: tuple[str, ...] = ("kb",),
        top_k: int = 4,
        filters: dict[str, str] | None = None,
    ) -> retriever_pb2.SearchResponse:
        """The final stage."""
        request = retriever_pb2.SearchRequest(
            collections=collections, query=query, top_k=top_k, filters=filters or {}
        )
        *_, last = [stage async for stage in self._search.Search(request)]
        assert last.is_final
        return last

    async def found(self, query: str, **options: object) -> list[str]:
        """Documents of the chunks that were found, best first."""
        response = await self.search(query, **options)  # type: ignore[arg-type]
        return [chunk.document_id for chunk in response.chunks]


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Stubs(channel)


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Stubs]:
    """A retriever in this process, and the way to it."""
    body = retriever(home)
    await body.start()
    try:
        async with connected(body.address) as stubs:
            yield stubs
    finally:
        await body.stop()


async def _main(home: Path) -> None:
    body = retriever(home)
    await body.start()
    print(body.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
