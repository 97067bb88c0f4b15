"""The gateway's peers with their parts written down: real gRPC servers in the test's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from actors.gateway.body import Gateway
from actors.gateway.grpc import add_public_services
from actors.local import HttpServer
from actors.roles import Site
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import NotFound, Overloaded, Starting
from cluster.scheduling.membership import Member, Role
from cluster.text.tokenizer import Tokenizer
from cluster.wire.members import member_to_pb
from cluster.wire.serving import GrpcServer, streaming, unary
from protos.thoth.v1 import (
    documents_pb2,
    documents_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    supervisor_pb2,
    supervisor_pb2_grpc,
    types_pb2,
    worker_pb2,
    worker_pb2_grpc,
)

HOST = "127.0.0.1"
MODEL = "tiny"
ANSWER = "The with statement wraps a block — naïve, café ✓."
HEARTBEAT_S = 0.05
# The default is taken from the machine at start, which stops a process of many actors for seconds.
HOST_BYTES = 2**24

CHUNKS = tuple(
    retriever_pb2.ScoredChunk(
        collection="kb", document_id=f"doc-{i}", document_version=1, title=f"Title {i}",
        chunk=0, start=0, end=20, text=f"passage number {i} ..", score=1.0 / (60 + i),
    )
    for i in range(1, 5)
)  # fmt: skip

Events = AsyncIterator[worker_pb2.GenerateResponse]
Script = Callable[[worker_pb2.GenerateRequest], Events]


def tokens(ids: Sequence[int], num_top: int | None = None) -> worker_pb2.GenerateResponse:
    """With `num_top`, the n-th likeliest token in any place has id n and logprob -n."""
    first = worker_pb2.FirstToken(queue_s=0.25, prefill_s=0.5)
    made = worker_pb2.TokensGenerated(token_ids=ids, first=first)
    if num_top is not None:
        top = range(1, num_top + 1)
        for _ in ids:
            made.logprobs.add(logprob=-0.25, top_ids=top, top_logprobs=[-float(n) for n in top])
    return worker_pb2.GenerateResponse(tokens=made)


def finished(
    reason: types_pb2.FinishReason.ValueType = types_pb2.FINISH_REASON_STOP,
) -> worker_pb2.GenerateResponse:
    return worker_pb2.GenerateResponse(finished=worker_pb2.GenerateFinished(finish_reason=reason))


@dataclass
class ScriptedWorker(worker_pb2_grpc.GpuWorkerServiceServicer):
    """Says the answer token by token, from where `output_ids` end; `script` says otherwise."""

    name: str
    answer_ids: tuple[int, ...]
    script: Script | None = None
    pause_s: float = 0.0
    requests: list[worker_pb2.GenerateRequest] = field(default_factory=list)
    num_running: int = 0
    num_cancelled: int = 0
    server: GrpcServer = field(default_factory=lambda: GrpcServer(HOST))

    @streaming(lambda detail: worker_pb2.GenerateResponse(error=detail))
    async def Generate(self, request: worker_pb2.GenerateRequest, context: Any) -> Events:
        self.requests.append(request)
        self.num_running += 1
        try:
            async for event in (self.script or self.say)(request):
                yield event
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_running -= 1

    async def say(self, request: worker_pb2.GenerateRequest) -> Events:
        sampling = request.sampling
        most, num_top = sampling.max_tokens, None
        if sampling.HasField("logprobs"):
            num_top = sampling.logprobs
        for token_id in self.answer_ids[len(request.output_ids) : most]:
            yield tokens([token_id], num_top)
            await asyncio.sleep(self.pause_s)
        is_cut = most < len(self.answer_ids)
        yield finished(types_pb2.FINISH_REASON_LENGTH if is_cut else types_pb2.FINISH_REASON_STOP)


@dataclass
class ScriptedScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Sends a request to the first worker of the list that is not excluded."""

    members: list[Member]
    requests: list[scheduler_pb2.RouteRequest] = field(default_factory=list)

    @unary(scheduler_pb2.RouteResponse)
    async def Route(
        self, request: scheduler_pb2.RouteRequest, context: Any
    ) -> scheduler_pb2.RouteResponse:
        self.requests.append(request)
        for member in self.members:
            if member.role is Role.GPU_WORKER and member.name not in request.excluded_workers:
                return scheduler_pb2.RouteResponse(
                    worker=member.name, incarnation=member.incarnation, address=member.address
                )
        raise Starting("no worker is ready")


class ScriptedRetriever(
    retriever_pb2_grpc.RetrieverServiceServicer, documents_pb2_grpc.DocumentsServiceServicer
):
    """Knows the collection `kb`, whose chunks are always the same."""

    def __init__(self) -> None:
        self.searches: list[retriever_pb2.SearchRequest] = []
        self.pause_s = 0.0

    @streaming(lambda _: retriever_pb2.SearchResponse())
    async def Search(
        self, request: retriever_pb2.SearchRequest, context: Any
    ) -> AsyncIterator[retriever_pb2.SearchResponse]:
        self.searches.append(request)
        await asyncio.sleep(self.pause_s)
        if list(request.collections) != ["kb"]:
            raise NotFound("there is no such collection", field="collections")
        yield retriever_pb2.SearchResponse(chunks=CHUNKS[:1])
        yield retriever_pb2.SearchResponse(chunks=CHUNKS[: request.top_k], is_final=True)

    @unary(documents_pb2.GetCollectionResponse)
    async def GetCollection(
        self, request: documents_pb2.GetCollectionRequest, context: Any
    ) -> documents_pb2.GetCollectionResponse:
        if request.name != "kb":
            raise NotFound(f"there is no collection {request.name}", field="name")
        return documents_pb2.GetCollectionResponse(
            collection=documents_pb2.Collection(name="kb", num_documents=4, num_chunks=4)
        )


@dataclass
class ScriptedSupervisor(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Everyone in `members` holds a lease, whoever else asks."""

    members: list[Member]

    async def RenewLease(
        self, request: supervisor_pb2.RenewLeaseRequest, context: Any
    ) -> supervisor_pb2.RenewLeaseResponse:
        return supervisor_pb2.RenewLeaseResponse(
            members=map(member_to_pb, self.members), lease_s=5.0
        )


class ScriptedCluster:
    """One real gateway among scripted peers. `members` is what the supervisor says."""

    def __init__(self, config: ThothConfig) -> None:
        self.config = config
        self.members: list[Member] = []
        # The methods that nobody calls are those of the generated bases: UNIMPLEMENTED.
        self.scheduler = ScriptedScheduler(self.members)  # type: ignore[abstract]
        self.retriever = ScriptedRetriever()  # type: ignore[abstract]
        tokenizer = Tokenizer.from_folder(Path(config.model.source))
        self.answer_ids = tokenizer.encode(ANSWER)
        self.workers: list[ScriptedWorker] = []
        self.supervisor_address = ""
        self.gateway = Gateway(site=self._site(), config=config)
        self.http = ""
        self.grpc = ""
        self._stack = AsyncExitStack()

    def _site(self) -> Site:
        async def find_supervisor() -> str:
            return self.supervisor_address

        return Site(
            name="gateway-test",
            host=HOST,
            node="test",
            find_supervisor=find_supervisor,
            clock=MonotonicClock(),
            random=Random(7),
            die=lambda why: None,
        )

    def member(self, role: Role, name: str, address: str) -> Member:
        incarnation = f"{len(self.members):016x}"
        return Member(role, name, incarnation, address, "", is_ready=True, pid=1)

    async def serve(self, add: Callable[[Any, Any], None], servicer: object) -> str:
        server = GrpcServer(HOST)
        server.add(add, servicer)
        address = await server.start()
        self._stack.push_async_callback(server.stop, 0.0)
        return address

    async def add_worker(self, name: str) -> ScriptedWorker:
        worker = ScriptedWorker(name, self.answer_ids)  # type: ignore[abstract]
        worker.server.add(worker_pb2_grpc.add_GpuWorkerServiceServicer_to_server, worker)
        address = await worker.server.start()
        self._stack.push_async_callback(worker.server.stop, 0.0)
        self.workers.append(worker)
        self.members.append(self.member(Role.GPU_WORKER, name, address))
        return worker

    async def start(self) -> None:
        scheduler = await self.serve(
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server, self.scheduler
        )
        retriever = await self.serve(_add_retriever, self.retriever)
        self.supervisor_address = await self.serve(
            supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server,
            ScriptedSupervisor(self.members),  # type: ignore[abstract]
        )
        self.members.append(self.member(Role.SCHEDULER, "scheduler", scheduler))
        self.members.append(self.member(Role.RETRIEVER, "retriever", retriever))
        await self.add_worker("gpu_worker-0")
        await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)
        public = GrpcServer(HOST)
        add_public_services(public, self.gateway)
        self.grpc = await public.start()
        self._stack.push_async_callback(public.stop, 0.0)
        http = HttpServer(self.gateway, self.config)
        self.http = f"http://{await http.start()}"
        self._stack.push_async_callback(http.stop)

    async def stop(self) -> None:
        await self._stack.aclose()


def _add_retriever(servicer: Any, server: Any) -> None:
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(servicer, server)
    documents_pb2_grpc.add_DocumentsServiceServicer_to_server(servicer, server)


def config_of(tiny_folder: Path, home: Path, **gateway: Any) -> ThothConfig:
    """A configuration on free ports of this machine."""
    settings = {"http_port": 0, "grpc_port": 0, "default_max_tokens": 64} | gateway
    return ThothConfig.model_validate(
        {
            "home": home,
            "model": {"source": str(tiny_folder), "name": MODEL},
            "gateway": settings,
            "cache": {"host_bytes": HOST_BYTES},
            "supervisor": {"heartbeat_s": HEARTBEAT_S},
        }
    )


@asynccontextmanager
async def scripted_cluster(config: ThothConfig) -> AsyncIterator[ScriptedCluster]:
    cluster = ScriptedCluster(config)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


def overloaded() -> Overloaded:
    return Overloaded("the queue is full", retry_after_s=3.0)


async def eventually(is_so: Callable[[], bool], within_s: float = 5.0) -> None:
    """For states that are reached without anybody being told."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
