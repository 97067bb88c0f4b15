"""When the retriever is ready, and what it tells of itself."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import grpc

from cluster.wire.members import member_from_pb
from cluster.wire.serving import CallContext, GrpcServer
from protos.thoth.v1 import documents_pb2 as pb
from protos.thoth.v1 import supervisor_pb2, supervisor_pb2_grpc
from tests.retrieval.bodies import Stubs, retriever

Document = pb.Document


class Registrar(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Takes every lease and remembers it."""

    def __init__(self) -> None:
        self.renewals: list[supervisor_pb2.Member] = []

    async def RenewLease(
        self, request: supervisor_pb2.RenewLeaseRequest, context: CallContext
    ) -> supervisor_pb2.RenewLeaseResponse:
        self.renewals.append(request.member)
        return supervisor_pb2.RenewLeaseResponse(lease_s=5)


async def test_it_is_ready_when_it_can_serve_and_counts_what_it_does(tmp_path: Path) -> None:
    registrar = Registrar()  # type: ignore[abstract]
    server = GrpcServer("127.0.0.1")
    server.add(supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server, registrar)
    address = await server.start()

    async def find_supervisor() -> str:
        return address

    body = retriever(tmp_path, find_supervisor)
    await body.start()
    assert [member.is_ready for member in registrar.renewals][:1] == [False]
    member = member_from_pb(registrar.renewals[-1])
    assert member.is_ready
    assert member.address == body.address
    async with grpc.aio.insecure_channel(member.address) as channel:
        stubs = Stubs(channel)
        await stubs.create("kb")
        await stubs.upsert(Document(id="a", text="word " * 100), Document(id="b", text="zebra"))
        await stubs.documents.DeleteDocuments(
            pb.DeleteDocumentsRequest(collection="kb", ids=["b", "c"])
        )
        await stubs.search("word")
    url = f"http://{member.metrics_address}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    await body.stop()
    await server.stop()
    assert {
        "thoth_documents 1.0",
        "thoth_chunks 3.0",
        "thoth_upserted_documents_total 2.0",
        "thoth_deleted_documents_total 1.0",
        "thoth_retrieval_seconds_count 1.0",
    } <= set(page.splitlines())
