"""What a gateway asks of the rest of the cluster, and how their failures become our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from cluster.clock import Clock
from cluster.errors import DeadlineExceeded, Lost, Overloaded, Starting
from cluster.request import Request, RetrievalOptions
from cluster.retrieval.records import ScoredChunk
from cluster.scheduling.membership import Role
from cluster.wire.documents import chunk_from_pb
from cluster.wire.generation import request_to_pb
from cluster.wire.members import Lease
from cluster.wire.status import from_detail, from_rpc_error
from protos.thoth.v1 import prover_pb2, retriever_pb2, scheduler_pb2, worker_pb2

# How long a request waits for a part that is being restarted: a worker loads its model meanwhile.
PATIENCE_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_ROUTE_TIMEOUT_S = 2.0
# What a worker may take beyond the deadline to say that it has passed.
_GRACE_S = 2.0
# A batch of documents is embedded and synchronised to disk before it is acknowledged.
_DOCUMENTS_TIMEOUT_S = 300.0

Answer = TypeVar("Answer")
ProveCall = grpc.aio.UnaryStreamCall[prover_pb2.ProveRequest, prover_pb2.ProveResponse]
GenerateCall = grpc.aio.UnaryStreamCall[worker_pb2.GenerateRequest, worker_pb2.GenerateResponse]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the scheduler sends a request: one incarnation of one worker."""

    worker: str
    incarnation: str
    address: str


async def answered(call: Awaitable[Answer]) -> Answer:
    """The peer's answer, or its error as ours.

    A channel that is closed under the call, because its member lost the lease, cancels the call
    but not the task that waits for it: that is `Lost`, and not somebody cancelling us.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Lost("the peer lost its lease and was disconnected") from None


class Peers:
    """Scheduler, retriever and workers as the lease shows them now."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self._lease = lease
        self._clock = clock
        self._num_proofs = 0

    async def search(
        self, options: RetrievalOptions, query: str, deadline_s: float
    ) -> tuple[ScoredChunk, ...]:
        """The final ranking. A retriever that is being restarted is waited for."""
        request = retriever_pb2.SearchRequest(
            collections=options.collections,
            query=query,
            top_k=options.top_k,
            filters=dict(options.filters),
        )
        return await self.patiently(lambda: self._search(request, deadline_s), deadline_s)

    async def _search(
        self, request: retriever_pb2.SearchRequest, deadline_s: float
    ) -> tuple[ScoredChunk, ...]:
        call = self._lease.retriever().Search(request, timeout=self.left_s(deadline_s))
        try:
            while isinstance(response := await answered(call.read()), retriever_pb2.SearchResponse):
                if response.is_final:
                    return tuple(map(chunk_from_pb, response.chunks))
        finally:
            call.cancel()
        raise Lost("the retriever ended a search without a final result")

    async def route(self, request: Request, failed: set[Placement], patience_s: float) -> Placement:
        """A worker that did not fail this request. Raises Starting when none comes up in time.

        A failed worker is excluded for as long as that incarnation of it is registered.
        """
        deadline_s = request.deadline_s

        async def ask() -> Placement:
            question = scheduler_pb2.RouteRequest(
                request_id=request.id,
                prompt_tokens=request.num_prompt_tokens + len(request.output_ids),
                excluded_workers=sorted(p.worker for p in failed if self._is_registered(p)),
            )
            timeout_s = min(_ROUTE_TIMEOUT_S, self.left_s(deadline_s))
            try:
                answer = await answered(self._lease.scheduler().Route(question, timeout=timeout_s))
            except DeadlineExceeded:
                raise Lost(f"the scheduler did not answer within {timeout_s:.1f} s") from None
            placement = Placement(answer.worker, answer.incarnation, answer.address)
            if placement in failed:
                raise Starting(f"{placement.worker} is being restarted")
            return placement

        return await self.patiently(ask, deadline_s, patience_s)

    def _is_registered(self, placement: Placement) -> bool:
        seen = {(m.name, m.incarnation) for m in self._lease.members}
        return (placement.worker, placement.incarnation) in seen

    @asynccontextmanager
    async def generating(
        self, placement: Placement, request: Request
    ) -> AsyncIterator[GenerateCall]:
        """The worker's stream; leaving the block cancels it at once.

        The worker ends at the deadline by itself; the transport does a little later.
        """
        left_s = self.left_s(request.deadline_s)
        stub = self._lease.worker(placement.address)
        call = stub.Generate(request_to_pb(request, left_s), timeout=left_s + _GRACE_S)
        try:
            yield call
        finally:
            call.cancel()

    async def documents(self, method: str, request: Any) -> Any:
        """One call of DocumentsService at the retriever, message in and message out."""
        stub_method = getattr(self._lease.documents(), method)
        return await answered(stub_method(request, timeout=_DOCUMENTS_TIMEOUT_S))

    async def prove(
        self, request: prover_pb2.ProveRequest, deadline_s: float
    ) -> AsyncGenerator[prover_pb2.ProveResponse, None]:
        """The outcomes and the last event of a prover. One that is lost before its first outcome is
        replaced; closing the generator ends the search.

        Raises what the prover says, and Lost when it dies between two outcomes.
        """
        call, event = await self.patiently(
            lambda: self._begin_proving(request, deadline_s), deadline_s
        )
        try:
            while not event.HasField("finished"):
                yield event
                event = await _proved(call)
            yield event
        finally:
            call.cancel()

    async def _begin_proving(
        self, request: prover_pb2.ProveRequest, deadline_s: float
    ) -> tuple[ProveCall, prover_pb2.ProveResponse]:
        """The first event of the first prover, from the next in turn on, that is not full."""
        provers = self._lease.ready(Role.PROVER)
        self._num_proofs += 1
        refusal: Overloaded | None = None
        for i in range(len(provers)):
            prover = provers[(self._num_proofs + i) % len(provers)]
            left_s = self.left_s(deadline_s)
            request.timeout_s = left_s
            call = self._lease.prover(prover.address).Prove(request, timeout=left_s + _GRACE_S)
            try:
                return call, await _proved(call)
            except Overloaded as error:
                refusal = error
            except BaseException:
                call.cancel()
                raise
        raise refusal or Starting("no prover is ready", retry_after_s=2.0)

    async def patiently(
        self,
        ask: Callable[[], Awaitable[Answer]],
        deadline_s: float,
        patience_s: float = PATIENCE_S,
    ) -> Answer:
        """Asks again while the one asked is starting or was lost, with pauses that double."""
        give_up_s = min(deadline_s, self._clock.now_s() + patience_s)
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except (Starting, Lost) as error:
                left_s = give_up_s - self._clock.now_s()
                if left_s <= 0:
                    self.left_s(deadline_s)
                    raise Starting(error.message, retry_after_s=5.0) from None
                await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def left_s(self, deadline_s: float) -> float:
        """Seconds until the deadline. Raises DeadlineExceeded when it has passed."""
        left_s = deadline_s - self._clock.now_s()
        if left_s <= 0:
            raise DeadlineExceeded("the time given for the answer has passed", field="timeout_s")
        return left_s


async def _proved(call: ProveCall) -> prover_pb2.ProveResponse:
    """The next event. Raises the error that is one."""
    event = await answered(call.read())
    if not isinstance(event, prover_pb2.ProveResponse):
        raise Lost("the prover ended a search without its last event")
    if event.HasField("error"):
        raise from_detail(event.error)
    return event
