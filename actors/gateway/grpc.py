"""The gRPC door. The same methods serve `grpc.aio` and, behind Ray Serve, a replica."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from actors.gateway.ask import Ask
from actors.gateway.auth import Caller, host_of_grpc_peer
from actors.gateway.body import Gateway
from actors.gateway.services import add_services
from cluster.errors import InvalidArgument
from cluster.request import RetrievalOptions, Sampling
from cluster.wire.answers import Choice, ChoiceFinished, Delta, Finished, Started, StreamEvent
from cluster.wire.chat import chat_call_from_pb
from cluster.wire.choices import Choices
from cluster.wire.documents import chunk_to_pb, citation_to_pb
from cluster.wire.generation import finish_reason_to_pb, timings_to_pb, usage_to_pb
from cluster.wire.logprobs import logprob_to_pb
from cluster.wire.serving import CallContext, GrpcServer, streaming, unary
from protos.thoth.v1 import documents_pb2 as pb
from protos.thoth.v1 import gateway_pb2, prover_pb2, types_pb2

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Method = Callable[..., Awaitable[Response]]


def add_public_services(server: GrpcServer, gateway: Gateway) -> None:
    """Puts the gateway's public methods on a server of its own: without Ray."""
    server.add(add_services, GatewayServicer(gateway))


def _error_event(detail: types_pb2.ErrorDetail) -> gateway_pb2.StreamChatResponse:
    return gateway_pb2.StreamChatResponse(error=detail)


def _forwarded(kind: type[Request], response_kind: type[Response]) -> Method[Response]:
    """A method of DocumentsService: read, and handed on to the retriever as it is."""

    async def forward(self: GatewayServicer, request: bytes, context: CallContext) -> Response:
        message = self.read(request, kind, context)
        response: Response = await self.gateway.documents(forward.__name__, message)
        return response

    forward.__name__ = kind.__name__.removesuffix("Request")
    return unary(response_kind)(forward)


class GatewayServicer:
    """GatewayService, DocumentsService, ProverService; requests come as bytes (see `services`)."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @unary(gateway_pb2.ChatResponse)
    async def Chat(self, request: bytes, context: CallContext) -> gateway_pb2.ChatResponse:
        ask = self._ask(self.read(request, gateway_pb2.ChatRequest, context).call, context)
        response, choices = gateway_pb2.ChatResponse(), Choices()
        async with aclosing(self.gateway.chat(ask)) as events:
            async for event in events:
                choices.add(event)
                _add(response, event)
        response.choices.extend(map(_choice_to_pb, choices.whole()))
        response.text = response.choices[0].text
        return response

    @streaming(_error_event)
    async def StreamChat(
        self, request: bytes, context: CallContext
    ) -> AsyncIterator[gateway_pb2.StreamChatResponse]:
        ask = self._ask(self.read(request, gateway_pb2.StreamChatRequest, context).call, context)
        async with aclosing(self.gateway.chat(ask)) as events:
            async for event in events:
                yield _to_pb(event)

    @unary(gateway_pb2.RetrieveResponse)
    async def Retrieve(self, request: bytes, context: CallContext) -> gateway_pb2.RetrieveResponse:
        message = self.read(request, gateway_pb2.RetrieveRequest, context)
        options = RetrievalOptions(tuple(message.collections), filters=dict(message.filters))
        if message.HasField("top_k"):
            options = RetrievalOptions(options.collections, message.top_k, options.filters)
        chunks, retrieval_s = await self.gateway.retrieve(options, message.query)
        return gateway_pb2.RetrieveResponse(
            chunks=map(chunk_to_pb, chunks), retrieval_s=retrieval_s
        )

    @streaming(lambda detail: prover_pb2.ProveResponse(error=detail))
    async def Prove(
        self, request: bytes, context: CallContext
    ) -> AsyncIterator[prover_pb2.ProveResponse]:
        message = self.read(request, prover_pb2.ProveRequest, context)
        principal = self.gateway.keyring.authenticate(_caller_of(context))
        async with aclosing(self.gateway.prove(message, principal)) as events:
            async for event in events:
                yield event

    @unary(gateway_pb2.ListModelsResponse)
    async def ListModels(
        self, request: bytes, context: CallContext
    ) -> gateway_pb2.ListModelsResponse:
        self.read(request, gateway_pb2.ListModelsRequest, context)
        model = self.gateway.model
        entry = gateway_pb2.Model(id=model.name, context_tokens=model.context_tokens)
        return gateway_pb2.ListModelsResponse(models=[entry])

    CreateCollection = _forwarded(pb.CreateCollectionRequest, pb.CreateCollectionResponse)
    GetCollection = _forwarded(pb.GetCollectionRequest, pb.GetCollectionResponse)
    ListCollections = _forwarded(pb.ListCollectionsRequest, pb.ListCollectionsResponse)
    DeleteCollection = _forwarded(pb.DeleteCollectionRequest, pb.DeleteCollectionResponse)
    UpsertDocuments = _forwarded(pb.UpsertDocumentsRequest, pb.UpsertDocumentsResponse)
    GetDocument = _forwarded(pb.GetDocumentRequest, pb.GetDocumentResponse)
    ListDocuments = _forwarded(pb.ListDocumentsRequest, pb.ListDocumentsResponse)
    DeleteDocuments = _forwarded(pb.DeleteDocumentsRequest, pb.DeleteDocumentsResponse)

    def read(self, request: bytes, kind: type[Request], context: CallContext) -> Request:
        """Authenticates, then parses: strangers are told nothing about their message."""
        self.gateway.keyring.authenticate(_caller_of(context))
        try:
            return kind.FromString(request)
        except DecodeError:
            name = kind.DESCRIPTOR.full_name
            raise InvalidArgument(
                f"the {len(request)} bytes of the request are no {name}",
                field="request",
                limit=f"a {name} whose strings are UTF-8",
            ) from None

    def _ask(self, call: gateway_pb2.ChatCall, context: CallContext) -> Ask:
        defaults = Sampling(seed=self.gateway.new_seed())
        default_timeout_s = self.gateway.config.gateway.default_timeout_s
        return Ask(
            request_id=self.gateway.new_request_id(),
            call=chat_call_from_pb(call, defaults, default_timeout_s),
            max_tokens=call.sampling.max_tokens if call.sampling.HasField("max_tokens") else None,
            principal=self.gateway.keyring.authenticate(_caller_of(context)),
        )


def _caller_of(context: CallContext) -> Caller:
    said = dict(context.invocation_metadata() or ())
    return Caller(
        host=host_of_grpc_peer(context.peer()), authorization=str(said.get("authorization", ""))
    )


def _to_pb(event: StreamEvent) -> gateway_pb2.StreamChatResponse:
    match event:
        case Started():
            started = gateway_pb2.ChatStarted(
                request_id=event.request_id,
                model=event.model,
                citations=map(citation_to_pb, event.citations),
                retrieval_s=event.retrieval_s,
            )
            return gateway_pb2.StreamChatResponse(started=started)
        case Delta():
            delta = gateway_pb2.ChatDelta(
                text=event.text, choice=event.choice, logprobs=map(logprob_to_pb, event.logprobs)
            )
            return gateway_pb2.StreamChatResponse(delta=delta)
        case ChoiceFinished():
            ended = gateway_pb2.ChoiceFinished(
                choice=event.choice, finish_reason=finish_reason_to_pb(event.finish_reason)
            )
            return gateway_pb2.StreamChatResponse(choice_finished=ended)
        case Finished():
            finished = gateway_pb2.ChatFinished(
                finish_reason=finish_reason_to_pb(event.finish_reason),
                usage=usage_to_pb(event.usage),
                timings=timings_to_pb(event.timings),
            )
            return gateway_pb2.StreamChatResponse(finished=finished)


def _choice_to_pb(choice: Choice) -> gateway_pb2.Choice:
    return gateway_pb2.Choice(
        index=choice.index,
        text=choice.text,
        finish_reason=finish_reason_to_pb(choice.finish_reason),
        logprobs=map(logprob_to_pb, choice.logprobs),
    )


def _add(response: gateway_pb2.ChatResponse, event: StreamEvent) -> None:
    """What events say of the whole call, gathered in one message."""
    message = _to_pb(event)
    match event:
        case Started():
            response.request_id, response.model = event.request_id, event.model
            response.citations.extend(message.started.citations)
        case Finished():
            response.finish_reason = message.finished.finish_reason
            response.usage.CopyFrom(message.finished.usage)
            response.timings.CopyFrom(message.finished.timings)
