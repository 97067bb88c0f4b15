"""The sync client against a real gRPC server with scripted answers."""

from __future__ import annotations

import gc
import time

import grpc
import pytest

from cluster.client import (
    ChoiceFinished,
    Client,
    Delta,
    Document,
    Finished,
    FinishReason,
    Message,
    RetryPolicy,
    Started,
    Timings,
    Usage,
)
from cluster.client.policy import GRACE_S
from cluster.errors import (
    DeadlineExceeded,
    InvalidArgument,
    InvariantBroken,
    Lost,
    NotFound,
    Overloaded,
    Refused,
    Starting,
    Unavailable,
)
from cluster.request import ChatRole
from tests.client.conftest import Served
from tests.client.scripted import FINISHED, STARTED, delta, ended


def test_an_answer_comes_as_plain_records(served: Served) -> None:
    with Client(served.endpoint) as client:
        answer = client.ask("What does with do?", collections=["kb"], top_k=2)
    assert answer.text == "hello"
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage == Usage(7, 2)
    assert answer.timings == Timings(0.1, 0.2, 0.3, 0.7, 1.0)
    assert (answer.request_id, answer.model) == ("req-1", "tiny")
    [citation] = answer.citations
    assert (citation.index, citation.chunk.start, citation.chunk.end) == (1, 10, 20)


def test_what_is_not_said_is_left_to_the_server(served: Served) -> None:
    with Client(served.endpoint) as client:
        client.ask("hello")
    [call] = served.gateway.calls
    assert not call.HasField("retrieval")
    assert not call.sampling.HasField("temperature")
    assert not call.sampling.HasField("max_tokens")
    assert call.model == ""


def test_everything_that_is_said_arrives(served: Served) -> None:
    with Client(served.endpoint) as client:
        client.chat(
            [Message(ChatRole.SYSTEM, "be brief"), {"role": "user", "content": "hi"}],
            collections=("kb", "more"),
            top_k=3,
            filters={"lang": "en"},
            max_context_tokens=100,
            query="greeting",
            citations=False,
            model="tiny",
            max_tokens=0,
            temperature=0.0,
            top_p=0.5,
            top_k_tokens=9,
            seed=2**63,
            stop=["\n"],
            min_p=0.25,
            presence_penalty=-2.5,
            frequency_penalty=0.5,
            repetition_penalty=1.5,
            logit_bias={7: -1.5},
            n=2,
            stop_ids=[5, 6],
            min_tokens=3,
            ignore_eos=True,
            logprobs=0,
            json_schema={"type": "object"},
            timeout_s=12.0,
        )
    [call] = served.gateway.calls
    assert [(m.role, m.content) for m in call.messages] == [("system", "be brief"), ("user", "hi")]
    assert list(call.retrieval.collections) == ["kb", "more"]
    assert (call.retrieval.top_k, call.retrieval.max_context_tokens) == (3, 100)
    assert dict(call.retrieval.filters) == {"lang": "en"}
    assert (call.retrieval.query, call.retrieval.citations) == ("greeting", False)
    assert (call.sampling.top_k, call.sampling.seed, call.sampling.top_p) == (9, 2**63, 0.5)
    # 0 is sent as 0, for the server to judge.
    assert call.sampling.HasField("max_tokens")
    assert call.sampling.HasField("temperature")
    assert list(call.sampling.stop) == ["\n"]
    assert call.timeout_s == 12.0
    sampling = call.sampling
    # Ranges are for the server to judge, too.
    assert (sampling.min_p, sampling.presence_penalty) == (0.25, -2.5)
    assert (sampling.frequency_penalty, sampling.repetition_penalty) == (0.5, 1.5)
    assert dict(sampling.logit_bias) == {7: -1.5}
    assert (sampling.n, sampling.min_tokens, sampling.ignore_eos) == (2, 3, True)
    assert list(sampling.stop_ids) == [5, 6]
    assert sampling.HasField("logprobs")
    assert sampling.grammar.json_schema == '{"type": "object"}'


def test_a_grammar_is_one_of_two_and_has_to_be_json(served: Served) -> None:
    with Client(served.endpoint) as client:
        client.ask("hello", regex="a+")
        with pytest.raises(InvalidArgument, match="exclude each other"):
            client.ask("hello", regex="a+", json_schema="{}")
        with pytest.raises(InvalidArgument, match="no JSON") as caught:
            client.ask("hello", json_schema={"enum": [object()]})
        with pytest.raises(InvalidArgument) as bias:
            client.ask("hello", logit_bias={-1: 1.0})
    assert caught.value.field == "json_schema"
    assert bias.value.field == "logit_bias[-1]"
    [call] = served.gateway.calls
    assert call.sampling.grammar.regex == "a+"


def test_choices_are_told_apart(served: Served) -> None:
    served.gateway.events = [
        STARTED, delta("one", 0), delta("two", 1), ended(1), delta("!", 0), ended(0), FINISHED,
    ]  # fmt: skip
    with Client(served.endpoint) as client, client.stream("hi", n=2) as stream:
        events = list(stream)
    kinds = [type(event) for event in events]
    assert kinds == [Started, Delta, Delta, ChoiceFinished, Delta, ChoiceFinished, Finished]
    answer = stream.answer()
    assert [(c.index, c.text) for c in answer.choices] == [(0, "one!"), (1, "two")]
    assert answer.text == "one!"
    assert {c.finish_reason for c in answer.choices} == {FinishReason.STOP}


def test_an_answer_of_a_server_without_choices_has_one(served: Served) -> None:
    with Client(served.endpoint) as client:
        answer = client.ask("hello")
    assert [(c.index, c.text) for c in answer.choices] == [(0, "hello")]
    assert answer.choices[0].finish_reason is FinishReason.LENGTH


def test_every_call_has_a_deadline_and_tells_it_in_metadata_too(served: Served) -> None:
    with Client(served.endpoint, timeout_s=7.0) as client:
        client.ask("hello")
        client.ask("hello", timeout_s=3.0)
    first, second = served.gateway.metadata
    assert 6.0 < float(first["thoth-timeout-s"]) <= 7.0
    assert 2.0 < float(second["thoth-timeout-s"]) <= 3.0
    # The transport waits a little longer than the gateway.
    assert 3.0 < served.gateway.budgets_s[1] <= 3.1 + GRACE_S


def test_the_key_goes_as_a_bearer_token(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THOTH_API_KEY", "from-the-environment")
    monkeypatch.setenv("THOTH_ENDPOINT", served.endpoint)
    with Client() as client:
        client.ask("hello")
    with Client(api_key="given") as client:
        client.ask("hello")
    keys = [metadata["authorization"] for metadata in served.gateway.metadata]
    assert keys == ["Bearer from-the-environment", "Bearer given"]


def test_a_stream_is_started_then_deltas_then_finished(served: Served) -> None:
    served.gateway.events = [STARTED, delta("hel"), delta("lo"), FINISHED]
    with Client(served.endpoint) as client, client.stream("hi", collections=["kb"]) as stream:
        events = list(stream)
    assert [type(event) for event in events] == [Started, Delta, Delta, Finished]
    assert stream.answer().text == "hello"
    assert stream.answer().citations[0].chunk.document_id == "with"


def test_leaving_a_stream_early_cancels_the_call(served: Served) -> None:
    served.gateway.events = [STARTED] + [delta("x")] * 1000
    served.gateway.pause_s = 0.05
    with Client(served.endpoint) as client:
        with client.stream("hi") as stream:
            assert isinstance(next(iter(stream)), Started)
        assert served.gateway.cancelled.wait(5)
        assert list(stream) == []
        with pytest.raises(Refused, match="not read to its end"):
            stream.answer()


def test_an_error_inside_a_stream_is_raised_typed(served: Served) -> None:
    broken = Lost("the worker is gone")
    broken.request_id = "req-1"
    served.gateway.events = [STARTED, delta("hel"), broken]
    with (
        Client(served.endpoint) as client,
        client.stream("hi") as stream,
        pytest.raises(Lost, match="worker is gone") as caught,
    ):
        list(stream)
    assert caught.value.request_id == "req-1"
    assert len(served.gateway.calls) == 1, "nothing is retried once an event was seen"


def test_a_failed_call_is_freed_without_the_garbage_collector(served: Served) -> None:
    served.gateway.failures = [NotFound("no such collection")]
    gc.collect()
    gc.disable()
    try:
        with Client(served.endpoint) as client, pytest.raises(NotFound) as caught:
            client.stream("hi").__enter__()
        del caught
        alive = [o for o in gc.get_objects() if issubclass(type(o), grpc.RpcError)]
    finally:
        gc.enable()
    assert alive == []


def test_a_stream_that_just_ends_is_lost(served: Served) -> None:
    served.gateway.events = [STARTED, delta("hel")]
    with (
        Client(served.endpoint) as client,
        client.stream("hi") as stream,
        pytest.raises(Lost, match="without its last event"),
    ):
        list(stream)


def test_an_overloaded_server_is_asked_again_after_the_time_it_names(served: Served) -> None:
    served.gateway.failures = [
        Overloaded("full", retry_after_s=0.2),
        Starting("soon", retry_after_s=0.2),
    ]
    started_s = time.monotonic()
    with Client(served.endpoint) as client:
        assert client.ask("hello").text == "hello"
    assert time.monotonic() - started_s >= 0.4
    assert len(served.gateway.calls) == 3


def test_a_stream_is_opened_again_when_it_fails_before_its_first_event(served: Served) -> None:
    served.gateway.failures = [Overloaded("full", retry_after_s=0.05)]
    served.gateway.events = [STARTED, FINISHED]
    with Client(served.endpoint) as client, client.stream("hello") as stream:
        assert len(list(stream)) == 2
    assert len(served.gateway.calls) == 2


def test_retries_end_with_the_last_error(served: Served) -> None:
    served.gateway.failures = [Overloaded("full", retry_after_s=0.01)] * 9
    with (
        Client(served.endpoint, retries=RetryPolicy(max_tries=3, first_pause_s=0.01)) as client,
        pytest.raises(Overloaded) as caught,
    ):
        client.ask("hello")
    assert len(served.gateway.calls) == 3
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert caught.value.retriable
    assert caught.value.retry_after_s == pytest.approx(0.01)


def test_no_retry_waits_past_the_deadline(served: Served) -> None:
    served.gateway.failures = [Overloaded("full", retry_after_s=30.0)]
    started_s = time.monotonic()
    with Client(served.endpoint) as client, pytest.raises(Overloaded):
        client.ask("hello", timeout_s=5.0)
    assert time.monotonic() - started_s < 2.0


def test_a_refusal_is_not_retried(served: Served) -> None:
    refusal = InvalidArgument("max_tokens is 0", field="max_tokens", limit="at least 1")
    refusal.request_id = "req-7"
    served.gateway.failures = [refusal]
    with Client(served.endpoint) as client, pytest.raises(InvalidArgument) as caught:
        client.ask("hello", max_tokens=0)
    error = caught.value
    assert (error.field, error.limit, error.request_id) == ("max_tokens", "at least 1", "req-7")
    assert not error.retriable
    assert error.retry_after_s is None
    assert len(served.gateway.calls) == 1


def test_the_server_s_own_failure_is_not_retried(served: Served) -> None:
    served.gateway.failures = [InvariantBroken("a block was freed twice")]
    with Client(served.endpoint) as client, pytest.raises(InvariantBroken):
        client.ask("hello")
    assert len(served.gateway.calls) == 1


def test_a_slow_answer_ends_at_the_deadline(served: Served) -> None:
    served.gateway.pause_s = 30.0
    started_s = time.monotonic()
    with Client(served.endpoint) as client, pytest.raises(DeadlineExceeded) as caught:
        client.ask("hello", timeout_s=0.3)
    assert time.monotonic() - started_s < 3.0
    assert not caught.value.retriable


def test_nobody_listening_is_unavailable_and_names_the_endpoint() -> None:
    with (
        Client("127.0.0.1:1", retries=RetryPolicy(max_tries=2)) as client,
        pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1:1") as caught,
    ):
        client.models()
    assert caught.value.code == "UNAVAILABLE"


def test_retrieval_alone_and_the_models_are_served(served: Served) -> None:
    with Client(served.endpoint) as client:
        found = client.retrieve("with", ["kb"], top_k=2)
        [model] = client.models()
    assert len(found.chunks) == 2
    assert found.retrieval_s == 0.5
    assert (model.id, model.context_tokens) == ("tiny", 512)


def test_collections_are_made_listed_and_removed(served: Served) -> None:
    with Client(served.endpoint) as client:
        assert client.collections.create("kb").name == "kb"
        assert [c.num_chunks for c in client.collections.list()] == [9]
        with pytest.raises(NotFound, match="no collection 'nope'"):
            client.collections.get("nope")
        client.documents.upsert("kb", [Document("a", "A", "text")])
        assert client.collections.delete("kb") == 1


def test_documents_go_in_come_out_and_are_listed_in_pages(served: Served) -> None:
    documents = [Document(f"d{i}", "T", "text", {"n": str(i)}) for i in range(3)]
    with Client(served.endpoint) as client:
        assert [r.changed for r in client.documents.upsert("kb", documents).results] == [True] * 3
        assert [r.changed for r in client.documents.upsert("kb", documents).results] == [False] * 3
        assert client.documents.get("kb", "d1") == documents[1]
        page = client.documents.list("kb", limit=2)
        rest = client.documents.list("kb", limit=2, after=page.next)
        assert [d.id for d in page.documents + rest.documents] == ["d0", "d1", "d2"]
        assert rest.next == ""
        assert client.documents.delete("kb", ["d0", "gone"]) == 1


def test_an_upsert_travels_in_batches(served: Served) -> None:
    documents = (Document(f"d{i}", "T", "text") for i in range(150))
    with Client(served.endpoint) as client:
        stored = client.documents.upsert("kb", documents)
    assert served.documents.batches == [64, 64, 22]
    assert [r.id for r in stored.results] == [f"d{i}" for i in range(150)]
    assert stored.sequence == 3


def test_a_refused_document_is_numbered_as_the_caller_counts(served: Served) -> None:
    served.documents.refusals[2] = InvalidArgument(
        "documents[5].id is empty", field="documents[5].id"
    )
    documents = [Document(f"d{i}", "T", "text") for i in range(80)]
    with Client(served.endpoint) as client, pytest.raises(InvalidArgument) as caught:
        client.documents.upsert("kb", documents)
    assert caught.value.field == "documents[69].id"
    assert str(caught.value) == caught.value.message == "documents[69].id is empty"
    assert len(served.documents.stored) == 64
