"""The gRPC door: the same answers and errors as HTTP, and bytes that are no message."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from cluster.errors import InvalidArgument, NotFound, ThothError
from cluster.wire.status import from_detail, from_rpc_error
from protos.thoth.v1 import (
    documents_pb2,
    documents_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    types_pb2,
)
from tests.gateway.scripted import ANSWER, MODEL, ScriptedWorker


def call_of(model: str = MODEL, max_tokens: int | None = None) -> gateway_pb2.ChatCall:
    return gateway_pb2.ChatCall(
        model=model,
        messages=[gateway_pb2.ChatMessage(role="user", content="hello")],
        sampling=types_pb2.SamplingParams(max_tokens=max_tokens),
        retrieval=gateway_pb2.RetrievalOptions(collections=["kb"], top_k=2),
    )


async def error_of(call: Awaitable[object]) -> ThothError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


@pytest.fixture
def stub(grpc_channel: grpc.aio.Channel) -> gateway_pb2_grpc.GatewayServiceAsyncStub:
    return gateway_pb2_grpc.GatewayServiceStub(grpc_channel)


async def test_a_call_gets_the_whole_answer(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    answer = await stub.Chat(gateway_pb2.ChatRequest(call=call_of()))
    assert answer.text == ANSWER
    assert answer.model == MODEL
    assert answer.request_id.startswith("req-")
    assert answer.finish_reason == types_pb2.FINISH_REASON_STOP
    assert answer.usage.completion_tokens > 0
    assert answer.timings.prefill_s == 0.5
    assert 0 < answer.timings.retrieval_s < answer.timings.time_to_first_token_s
    assert [c.chunk.document_id for c in answer.citations] == ["doc-1", "doc-2"]
    assert [c.index for c in answer.citations] == [1, 2]


async def test_an_empty_model_is_the_served_one(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    answer = await stub.Chat(gateway_pb2.ChatRequest(call=call_of(model="")))
    assert answer.model == MODEL


async def test_a_stream_starts_with_its_documents_and_ends_with_usage(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    stream = stub.StreamChat(gateway_pb2.StreamChatRequest(call=call_of(max_tokens=5)))
    events = [event async for event in stream]
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("started", "finished", {"delta"})
    assert len(events[0].started.citations) == 2
    assert events[-1].finished.finish_reason == types_pb2.FINISH_REASON_LENGTH
    assert events[-1].finished.usage.completion_tokens == 5


async def test_an_error_is_in_the_trailers_and_a_streams_last_event(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    error = await error_of(stub.Chat(gateway_pb2.ChatRequest(call=call_of("gpt-4o"))))
    assert isinstance(error, NotFound)
    assert error.field == "model"
    assert error.request_id.startswith("req-")
    stream = stub.StreamChat(gateway_pb2.StreamChatRequest(call=call_of(max_tokens=0)))
    event = await stream.read()
    assert isinstance(event, gateway_pb2.StreamChatResponse)
    assert from_detail(event.error).field == "max_tokens"
    assert isinstance(await error_of(stream.read()), InvalidArgument)


async def test_choices_and_logprobs_come_whole_and_in_pieces(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    call = call_of()
    call.sampling.n, call.sampling.logprobs = 2, 1
    answer = await stub.Chat(gateway_pb2.ChatRequest(call=call))
    assert [(c.index, c.text) for c in answer.choices] == [(0, ANSWER), (1, ANSWER)]
    assert answer.text == ANSWER
    tokens = answer.choices[1].logprobs
    assert b"".join(t.token.bytes for t in tokens) == ANSWER.encode()
    assert (tokens[0].token.logprob, tokens[0].top[0].logprob) == (-0.25, -1.0)
    assert answer.usage.completion_tokens == 2 * len(tokens)

    stream = stub.StreamChat(gateway_pb2.StreamChatRequest(call=call))
    events = [event async for event in stream]
    for choice in (0, 1):
        deltas = [e.delta for e in events if e.HasField("delta") and e.delta.choice == choice]
        assert "".join(delta.text for delta in deltas) == ANSWER
        assert [t for delta in deltas for t in delta.logprobs] == list(tokens)
    ends = [e.choice_finished for e in events if e.HasField("choice_finished")]
    assert sorted(end.choice for end in ends) == [0, 1]
    assert {end.finish_reason for end in ends} == {types_pb2.FINISH_REASON_STOP}
    assert events[-1].finished.usage == answer.usage


REFUSED: list[tuple[types_pb2.SamplingParams, str]] = [
    (types_pb2.SamplingParams(n=17), "n"),
    (types_pb2.SamplingParams(n=0), "n"),
    (types_pb2.SamplingParams(temperature=float("nan")), "temperature"),
    (types_pb2.SamplingParams(top_p=0.0), "top_p"),
    (types_pb2.SamplingParams(top_k=0), "top_k"),
    (types_pb2.SamplingParams(min_p=-0.5), "min_p"),
    (types_pb2.SamplingParams(presence_penalty=3.0), "presence_penalty"),
    (types_pb2.SamplingParams(frequency_penalty=-3.0), "frequency_penalty"),
    (types_pb2.SamplingParams(repetition_penalty=-1.0), "repetition_penalty"),
    (types_pb2.SamplingParams(logprobs=21), "logprobs"),
    (types_pb2.SamplingParams(logit_bias={7: 101.0}), "logit_bias[7]"),
    (types_pb2.SamplingParams(logit_bias={9999: 1.0}), "logit_bias"),
    (types_pb2.SamplingParams(stop_ids=[9999]), "stop_ids"),
    (types_pb2.SamplingParams(min_tokens=9, max_tokens=8), "min_tokens"),
    (types_pb2.SamplingParams(grammar=types_pb2.Grammar(regex="(")), "regex"),
    (types_pb2.SamplingParams(grammar=types_pb2.Grammar(json_schema="{")), "json_schema"),
    (
        types_pb2.SamplingParams(ignore_eos=True, grammar=types_pb2.Grammar(regex="a")),
        "ignore_eos",
    ),
]


@pytest.mark.parametrize(("sampling", "field"), REFUSED)
async def test_a_rule_out_of_its_range_is_refused_by_its_field(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
    worker: ScriptedWorker,
    sampling: types_pb2.SamplingParams,
    field: str,
) -> None:
    call = call_of()
    call.sampling.CopyFrom(sampling)
    error = await error_of(stub.Chat(gateway_pb2.ChatRequest(call=call)))
    assert isinstance(error, InvalidArgument)
    assert error.field == field
    assert worker.requests == []


# Field 1, of five bytes: a string in some messages, a message in the others.
NO_UTF8 = b"\x0a\x05\x0a\x03\xff\xfe\xfd"


@pytest.mark.parametrize("body", [b"\xff\xff\xff", NO_UTF8])
@pytest.mark.parametrize(
    "method",
    [
        "thoth.v1.GatewayService/Chat",
        "thoth.v1.GatewayService/StreamChat",
        "thoth.v1.GatewayService/Retrieve",
        "thoth.v1.DocumentsService/UpsertDocuments",
    ],
)
async def test_bytes_that_are_no_message_get_a_typed_error(
    grpc_channel: grpc.aio.Channel,
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
    method: str,
    body: bytes,
) -> None:
    send: Any = grpc_channel.unary_unary(f"/{method}")
    error = await error_of(send(body))
    assert isinstance(error, InvalidArgument)
    assert error.field == "request"
    assert "thoth.v1." in error.message
    assert (await stub.Chat(gateway_pb2.ChatRequest(call=call_of()))).text == ANSWER


async def test_retrieve_and_list_models_answer(
    stub: gateway_pb2_grpc.GatewayServiceAsyncStub,
) -> None:
    found = await stub.Retrieve(gateway_pb2.RetrieveRequest(collections=["kb"], query="q", top_k=3))
    assert [c.document_id for c in found.chunks] == ["doc-1", "doc-2", "doc-3"]
    models = (await stub.ListModels(gateway_pb2.ListModelsRequest())).models
    assert [(m.id, m.context_tokens) for m in models] == [(MODEL, 2048)]


async def test_documents_calls_are_passed_on_with_their_errors(
    grpc_channel: grpc.aio.Channel,
) -> None:
    stub = documents_pb2_grpc.DocumentsServiceStub(grpc_channel)
    found = await stub.GetCollection(documents_pb2.GetCollectionRequest(name="kb"))
    assert found.collection.num_documents == 4
    error = await error_of(stub.GetCollection(documents_pb2.GetCollectionRequest(name="nope")))
    assert isinstance(error, NotFound)
    assert error.field == "name"
