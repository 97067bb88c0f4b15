"""The gateway's body: it owns the requests in progress, and is the same behind HTTP and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from actors.gateway.admission import Admission
from actors.gateway.answer import Answer, Means
from actors.gateway.ask import Ask
from actors.gateway.auth import load_keyring, require_keys_in_public
from actors.gateway.model import ServedModel, load_served_model
from actors.gateway.outcomes import Outcomes
from actors.gateway.peers import Peers
from actors.gateway.stopwatch import Stopwatch
from actors.gateway.validation import check_ask, check_retrieval, check_timeout, spelled
from actors.roles import Site, Station
from cluster.config import ThothConfig
from cluster.errors import Starting, ThothError, Unsupported
from cluster.ids import RequestId, new_request_id
from cluster.request import RetrievalOptions
from cluster.retrieval.records import ScoredChunk
from cluster.scheduling.membership import Role
from cluster.wire.answers import Finished, StreamEvent
from protos.thoth.v1 import prover_pb2

# Without these an answer cannot be had.
_NEEDED = (Role.SCHEDULER, Role.GPU_WORKER, Role.RETRIEVER)
_SEARCH_TIMEOUT_S = 60.0


class Gateway:
    """Raises Refused when the keys file is malformed, or a public bind has no keys."""

    def __init__(self, site: Site, config: ThothConfig) -> None:
        self.config = config
        self.keyring = load_keyring(config.gateway.api_keys_file)
        require_keys_in_public(config.gateway.http_host, self.keyring)
        self.clock = site.clock
        self.station = Station(Role.GATEWAY, site, config)
        self.metrics = self.station.metrics
        self._random = site.random
        self._admission = Admission(config.gateway.max_requests, site.clock, self.metrics)
        self._outcomes = Outcomes(self.metrics)
        self._means: Means | None = None

    async def start(self) -> None:
        """Opens the station, then loads the model beside the event loop.

        Raises Refused when the model cannot be served.
        """
        await self.station.open()
        model = await asyncio.to_thread(load_served_model, self.config)
        peers = Peers(self.station.lease, self.clock)
        shared = frozenset(self.config.cache.shared_collections)
        self._means = Means(model, self.config.gateway, peers, self.metrics, shared)
        await self.station.set_ready(True)

    async def stop(self) -> None:
        await self.station.close()

    def new_request_id(self) -> RequestId:
        """Ours, even when the caller brings a name: a worker tells requests apart by it."""
        return new_request_id(self._random)

    def new_seed(self) -> int:
        """For a call that gives none: the draw is then not repeatable."""
        return self._random.getrandbits(63)

    @property
    def num_inside(self) -> int:
        """Requests in progress."""
        return self._admission.num_inside

    @property
    def model(self) -> ServedModel:
        """Raises Starting while the model is being loaded."""
        return self._ready_means.model

    def missing(self) -> tuple[str, ...]:
        """What has to come up before an answer can be had; empty when all is there."""
        if self._means is None:
            return ("model",)
        there = {m.role for m in self.station.lease.members if m.is_ready}
        return tuple(str(role) for role in _NEEDED if role not in there)

    async def chat(self, ask: Ask) -> AsyncGenerator[StreamEvent, None]:
        """Started, Deltas, Finished. Whoever leaves early closes the generator: that cancels all.

        Raises any ThothError but InvariantBroken of ours, with the request's id in it.
        """
        with self._outcomes.counted(ask.request_id) as outcome, self._admission.slot():
            means = self._ready_means
            with spelled(ask.spelling):
                check_ask(ask, self.config.gateway, means.model)
            answer = Answer(ask, means, Stopwatch(self.clock, self.metrics))
            async with aclosing(answer.events()) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        outcome.finish_reason = event.finish_reason
                    yield event

    async def retrieve(
        self, options: RetrievalOptions, query: str
    ) -> tuple[tuple[ScoredChunk, ...], float]:
        """The final ranking, and the seconds it took."""
        with self._admission.slot():
            means = self._ready_means
            check_retrieval(options, query, self.config.gateway.max_top_k)
            began_s = self.clock.now_s()
            chunks = await means.peers.search(options, query, began_s + _SEARCH_TIMEOUT_S)
            return chunks, self.clock.now_s() - began_s

    async def documents(self, method: str, request: Any) -> Any:
        """Passes one call of DocumentsService on to the retriever, message in and message out."""
        with self._admission.slot():
            return await self._ready_means.peers.documents(method, request)

    async def prove(
        self, request: prover_pb2.ProveRequest, principal: str
    ) -> AsyncGenerator[prover_pb2.ProveResponse, None]:
        """Outcomes as a prover finds them, and the last event. Closing the generator ends the
        search."""
        limits, request_id = self.config.gateway, self.new_request_id()
        request.tenant = principal
        try:
            with self._admission.slot():
                timeout_s = limits.default_timeout_s
                if request.HasField("timeout_s"):
                    timeout_s = request.timeout_s
                check_timeout(timeout_s, limits)
                if not self.config.prover.count:
                    raise Unsupported("no prover belongs to this cluster", limit="prover.count")
                deadline_s = self.clock.now_s() + timeout_s
                async with aclosing(self._ready_means.peers.prove(request, deadline_s)) as events:
                    async for event in events:
                        if event.HasField("finished"):
                            event.finished.request_id = request_id
                        yield event
        except ThothError as error:
            error.request_id = request_id
            raise

    @property
    def _ready_means(self) -> Means:
        if self._means is None:
            raise Starting("the gateway is loading its model", retry_after_s=5.0)
        return self._means
