"""A model on a device, behind gRPC: token ids in, token ids out.

The event loop carries messages, the engine's thread computes; they share a mailbox each way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from actors.attention_link import AttentionLink, reclaimed
from actors.places import keep_to
from actors.roles import Site, Station
from actors.worker_engine import build_engine
from actors.worker_metrics import WorkerMetrics
from actors.worker_steps import WorkerSteps
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.config import ThothConfig
from cluster.engine.pauses import ShortPauses
from cluster.engine.thread import Died, EngineEvent, EngineThread, Stepped, Turned
from cluster.errors import InvalidArgument, Lost, Starting, ThothError
from cluster.ids import RequestId
from cluster.knowledge.snapshot import CacheSnapshot, snapshot
from cluster.request import Request, TokenLogprobs, WorkerLoad
from cluster.scheduling.membership import Role
from cluster.scheduling.plan import Finished, FirstToken
from cluster.text.grammar import Grammars
from cluster.wire.cache import snapshot_to_pb
from cluster.wire.generation import (
    finish_reason_to_pb,
    first_token_to_pb,
    load_to_pb,
    request_from_pb,
)
from cluster.wire.sampling import logprobs_to_pb
from cluster.wire.serving import CallContext, streaming, unary
from cluster.wire.status import translated
from cluster.wire.steps import steps_to_pb
from protos.thoth.v1 import scheduler_pb2, worker_pb2, worker_pb2_grpc

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.25
DEFAULT_NODES = 1_000
MAX_NODES = 100_000


@dataclass(frozen=True, slots=True)
class _Token:
    token_id: int
    logprobs: TokenLogprobs | None


# What a stream is fed with: the first token's times, tokens, then one end.
_Item = FirstToken | _Token | Finished | ThothError


class GpuWorker:
    """One engine and the streams that wait for it."""

    def __init__(self, site: Site, config: ThothConfig) -> None:
        self.site = site
        self._config = config
        self._station = Station(Role.GPU_WORKER, site, config)
        self._metrics = WorkerMetrics(self._station.metrics)
        self.steps = WorkerSteps()
        self._streams: dict[RequestId, asyncio.Queue[_Item]] = {}
        self._arrived: list[RequestId] = []
        self._load = WorkerLoad()
        self._model_name = ""
        self._backend = ""
        self._context_tokens = 0
        self._thread: EngineThread | None = None
        self._pauses = ShortPauses()
        self._grammars: Grammars | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._link = AttentionLink(self._station, config)
        self._station.server.add(
            worker_pb2_grpc.add_GpuWorkerServiceServicer_to_server, _Servicer(self)
        )

    async def start(self) -> None:
        """Answers health at once, and is ready when the weights are in."""
        await self._station.open()
        lease = self._station.lease
        kept = await asyncio.to_thread(reclaimed, lease.member, lease.members, self._config)
        built = await asyncio.to_thread(
            build_engine, self._config, self.site.clock, self.site.name, kept
        )
        self._model_name, self._context_tokens = built.model_name, built.context_tokens
        self._backend = built.backend
        self._grammars = built.grammars
        self._load = built.engine.load()
        self._metrics.built(self._load, built.block_bytes)
        loop = asyncio.get_running_loop()

        def deliver(event: EngineEvent) -> None:
            loop.call_soon_threadsafe(self._handle, event)

        self._thread = EngineThread(built.engine, deliver, built.close)
        self._pauses.begin()
        self._thread.start()
        self._thread.between_steps(lambda _: keep_to(built.place))
        lease.set_runs_on(built.backend)
        await self._station.set_ready(True)
        self._reporting = asyncio.create_task(self._report_forever(), name="load reports")
        if built.engine.attention is not None and self._config.attention_worker.count:
            self._link.begin(built.engine.attention, self._thread)

    async def stop(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await self._link.end()
        await self._station.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.stop)
            self._pauses.end()

    async def generate(self, request: Request) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Streams the answer; whoever stops reading cancels it."""
        if self._thread is None or self._grammars is None:
            raise Starting(f"{self.site.name} is loading its model", retry_after_s=2.0)
        if request.sampling.grammar is not None:
            # Compiled here, so that the engine finds it compiled: no step waits for it.
            await asyncio.to_thread(self._grammars.walk, request.sampling.grammar)
        if request.id in self._streams:
            raise InvalidArgument(f"request {request.id} is already here", field="request_id")
        stream: asyncio.Queue[_Item] = asyncio.Queue()
        self._streams[request.id] = stream
        self._arrived.append(request.id)
        self._thread.submit(request)
        try:
            async for response in _responses(stream):
                yield response
        finally:
            # Nothing is left to cancel when the engine itself ended it.
            if self._streams.pop(request.id, None) is not None:
                self._thread.cancel(request.id)

    async def cache(self, max_nodes: int) -> CacheSnapshot:
        """The tree between two steps. Raises Starting while the model is being loaded."""
        if self._thread is None:
            raise Starting(f"{self.site.name} is loading its model", retry_after_s=2.0)
        look = self._thread.between_steps(lambda engine: snapshot(engine.cache, max_nodes))
        return await asyncio.wrap_future(look)

    def describe(self) -> worker_pb2.DescribeWorkerResponse:
        return worker_pb2.DescribeWorkerResponse(
            name=self.site.name,
            incarnation=self._station.incarnation,
            model=self._model_name,
            context_tokens=self._context_tokens,
            block_tokens=BLOCK_TOKENS,
            load=load_to_pb(self._load),
            num_devices=1,
            backend=self._backend,
        )

    def _handle(self, event: EngineEvent) -> None:
        match event:
            case Stepped(report, load):
                self._load = load
                # Answers before accounts: whatever may be wrong with these, no token is lost.
                for first in report.first_tokens:
                    self._feed(first.request_id, first)
                for request_id, token_id in report.tokens:
                    self._feed(request_id, _Token(token_id, report.logprobs.get(request_id)))
                for finished in report.finished:
                    self._end(finished.request_id, finished)
                for request_id, failure in report.failed:
                    self._end(request_id, failure)
                self._metrics.stepped(report, load)
                self.steps.stepped(report)
            case Turned(request_id, error):
                self._end(request_id, error)
            case Died(error):
                for request_id in list(self._streams):
                    self._end(request_id, Lost(f"the engine of {self.site.name} died"))
                self.site.die(f"engine: {error}")

    def _feed(self, request_id: RequestId, item: _Item) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.put_nowait(item)

    def _end(self, request_id: RequestId, item: Finished | ThothError) -> None:
        self._feed(request_id, item)
        self._streams.pop(request_id, None)

    async def _report_forever(self) -> None:
        """Tells the scheduler what there is to do; one that is away is told later."""
        while True:
            arrived, self._arrived = self._arrived, []
            try:
                await self._report(arrived)
            except (ThothError, OSError) as error:
                self._arrived = arrived + self._arrived
                log.debug("%s: load not reported: %s", self.site.name, error)
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _report(self, arrived: list[RequestId]) -> None:
        member = self._station.lease.member
        request = scheduler_pb2.ReportLoadRequest(
            worker=member.name,
            incarnation=member.incarnation,
            address=member.address,
            load=load_to_pb(self._load),
            request_ids=arrived,
        )
        with translated():
            await self._station.lease.scheduler().ReportLoad(request, timeout=2.0)


async def _responses(
    stream: asyncio.Queue[_Item],
) -> AsyncIterator[worker_pb2.GenerateResponse]:
    """The first token goes out alone and at once; later ones go out with whatever else is there."""
    tokens = worker_pb2.TokensGenerated()
    while True:
        item = await stream.get()
        if isinstance(item, FirstToken):
            tokens.first.CopyFrom(first_token_to_pb(item))
        if isinstance(item, _Token):
            tokens.token_ids.append(item.token_id)
            if item.logprobs is not None:
                tokens.logprobs.append(logprobs_to_pb(item.logprobs))
        is_last = isinstance(item, Finished | ThothError)
        if tokens.ByteSize() and (is_last or (tokens.token_ids and stream.empty())):
            yield worker_pb2.GenerateResponse(tokens=tokens)
            tokens = worker_pb2.TokensGenerated()
        if isinstance(item, ThothError):
            raise item
        if isinstance(item, Finished):
            yield worker_pb2.GenerateResponse(finished=_finished_to_pb(item))
            return


def _finished_to_pb(finished: Finished) -> worker_pb2.GenerateFinished:
    return worker_pb2.GenerateFinished(
        finish_reason=finish_reason_to_pb(finished.reason),
        recomputed_tokens=finished.num_recomputed,
    )


class _Servicer(worker_pb2_grpc.GpuWorkerServiceServicer):
    def __init__(self, worker: GpuWorker) -> None:
        self._worker = worker

    @streaming(lambda detail: worker_pb2.GenerateResponse(error=detail))
    async def Generate(
        self, request: worker_pb2.GenerateRequest, context: CallContext
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        now_s = self._worker.site.clock.now_s()
        async for response in self._worker.generate(request_from_pb(request, now_s)):
            yield response

    @unary(worker_pb2.DescribeWorkerResponse)
    async def DescribeWorker(
        self, request: worker_pb2.DescribeWorkerRequest, context: CallContext
    ) -> worker_pb2.DescribeWorkerResponse:
        return self._worker.describe()

    @unary(worker_pb2.DescribeCacheResponse)
    async def DescribeCache(
        self, request: worker_pb2.DescribeCacheRequest, context: CallContext
    ) -> worker_pb2.DescribeCacheResponse:
        max_nodes = request.max_nodes if request.HasField("max_nodes") else DEFAULT_NODES
        if not 1 <= max_nodes <= MAX_NODES:
            limit = f"1 to {MAX_NODES}"
            raise InvalidArgument(
                f"max_nodes is {max_nodes}; it must be {limit}", field="max_nodes", limit=limit
            )
        return snapshot_to_pb(await self._worker.cache(max_nodes))

    @unary(worker_pb2.DescribeStepsResponse)
    async def DescribeSteps(
        self, request: worker_pb2.DescribeStepsRequest, context: CallContext
    ) -> worker_pb2.DescribeStepsResponse:
        now_s = self._worker.site.clock.now_s()
        steps = self._worker.steps.asked(request, now_s)
        # Thousands of steps take a while to be written down: no stream waits for that.
        return await asyncio.to_thread(steps_to_pb, steps, now_s)
