"""What the client decides before it speaks: fields, batches, deadlines and pauses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest

from cluster.client import Client, Document, RetryPolicy
from cluster.client.calls import (
    BATCH_BYTES,
    BATCH_DOCUMENTS,
    MAX_DOCUMENT_BYTES,
    to_messages,
    to_proofs,
    upsert_batches,
)
from cluster.client.policy import Attempts, Target
from cluster.clock import ManualClock
from cluster.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Lost,
    NotFound,
    Overloaded,
    Starting,
    ThothError,
    TooLarge,
)
from cluster.proofs import GoalOutcome, ProofVerdict, UnknownReason
from cluster.wire import public
from cluster.wire.proofs import Proofs, ProofsFinished, outcome_from_pb, outcome_to_pb
from cluster.wire.status import CODES, reason_of
from protos.thoth.v1 import prover_pb2


def test_the_sdk_imports_nothing_heavy() -> None:
    code = (
        "import sys, cluster.client\n"
        "heavy = {'torch', 'ray', 'faiss', 'pydantic', 'numpy', 'fastapi', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_an_error_calls_itself_what_the_wire_calls_it(kind: type[ThothError]) -> None:
    error = kind("message")
    assert error.code == CODES[kind].grpc.name
    assert error.reason == reason_of(error)


@pytest.mark.parametrize("endpoint", ["", "host", "http://host:1", "host:port", ":9000", "h:1/x"])
def test_an_endpoint_is_host_and_port(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="not host:port"):
        Target(endpoint, None)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_a_positive_number(timeout_s: float) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidArgument) as caught:
        client.ask("hello", timeout_s=timeout_s)
    assert caught.value.field == "timeout_s"


def test_an_option_that_is_none_is_a_type_error() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="'temprature'"):
        client.ask("hello", temprature=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_k_tokens": 1.5}, "top_k_tokens"),
        ({"stop": "END"}, "stop"),
        ({"stop": ["ok", "\ud800"]}, "stop[1]"),
        ({"collections": "kb"}, "collections"),
        ({"collections": ["kb"], "filters": {"a": 1}}, "filters['a']"),
        ({"collections": ["kb"], "query": "\ud800"}, "query"),
        ({"top_k": 3}, "top_k"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(options: dict[str, object], field: str) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidArgument) as caught:
        client.ask("hello", **options)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert field in caught.value.message


def test_a_message_needs_a_known_role_and_whole_text() -> None:
    with pytest.raises(InvalidArgument, match=r"messages\[0\].role is 'wizard'"):
        to_messages([{"role": "wizard", "content": "hi"}])
    with pytest.raises(InvalidArgument, match=r"messages\[0\] must have role and content"):
        to_messages([{"role": "user"}])
    turns = [{"role": "user", "content": "ok"}, {"role": "user", "content": "\udc00"}]
    with pytest.raises(InvalidArgument, match=r"messages\[1\].content is not valid Unicode"):
        public.chat(to_messages(turns), {}, 1.0)


def test_batches_are_bounded_by_count_and_by_bytes() -> None:
    small = [Document(str(i), "", "x") for i in range(BATCH_DOCUMENTS + 1)]
    assert [batch.first for batch in upsert_batches("kb", small)] == [0, BATCH_DOCUMENTS]
    half = [Document(str(i), "", "x" * (BATCH_BYTES // 2)) for i in range(3)]
    assert [batch.first for batch in upsert_batches("kb", half)] == [0, 1, 2]
    large = [
        Document("a", "", "x"),
        Document("b", "", "x" * 2 * BATCH_BYTES),
        Document("c", "", ""),
    ]
    assert [batch.first for batch in upsert_batches("kb", large)] == [0, 1, 2]
    assert list(upsert_batches("kb", [])) == []


def test_a_document_of_100_mb_is_refused_with_both_numbers() -> None:
    batches = upsert_batches("kb", [Document("a", "", "x"), Document("b", "", "x" * 100_000_000)])
    with pytest.raises(TooLarge) as caught:
        list(batches)
    assert caught.value.field == "documents[1].text"
    assert "100000" in caught.value.message
    assert str(MAX_DOCUMENT_BYTES) in caught.value.message


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (Document("a", "", "x\ud800"), "documents[0].text"),
        (Document("a", "\udfff", "x"), "documents[0].title"),
        (Document("a", "", b"\xff"), "documents[0].text"),  # type: ignore[arg-type]
        (Document("a", "", "x", {"k": "\ud800"}), "documents[0].metadata['k']"),
    ],
)
def test_text_that_is_not_unicode_is_refused_by_its_field(document: Document, field: str) -> None:
    with pytest.raises(InvalidArgument, match="not valid Unicode") as caught:
        list(upsert_batches("kb", [document]))
    assert caught.value.field == field


def attempts(clock: ManualClock, timeout_s: float = 100.0) -> Attempts:
    return Attempts(RetryPolicy(max_tries=20), timeout_s, clock, Random(1))


def test_pauses_grow_with_full_jitter_up_to_their_bound() -> None:
    tries = attempts(ManualClock())
    pauses_s = [tries.pause_s(Lost("gone")) for _ in range(15)]
    bounds_s = [min(5.0, 0.1 * 2**n) for n in range(15)]
    assert all(0 <= pause <= bound for pause, bound in zip(pauses_s, bounds_s, strict=True))
    assert max(pauses_s) > 1.0
    assert len(set(pauses_s)) == 15


def test_a_pause_is_never_shorter_than_the_server_asks_for() -> None:
    assert 2.0 <= attempts(ManualClock()).pause_s(Overloaded("full", retry_after_s=2.0)) <= 2.1


def test_the_deadline_counts_all_tries_together() -> None:
    clock = ManualClock()
    tries = attempts(clock, timeout_s=10.0)
    clock.advance(9.0)
    assert tries.remaining_s() == pytest.approx(1.0)
    with pytest.raises(Overloaded):
        tries.pause_s(Overloaded("full", retry_after_s=1.5))
    clock.advance(2.0)
    with pytest.raises(DeadlineExceeded, match="10 s"):
        tries.remaining_s()


def test_what_will_fail_again_is_not_tried_again() -> None:
    with pytest.raises(NotFound):
        attempts(ManualClock()).pause_s(NotFound("no such model"))


def test_outcomes_are_proofs_only_with_their_last_event() -> None:
    proved = GoalOutcome("goal", "x = x", ProofVerdict.PROVED, 0.5)
    unknown = replace(proved, goal="goal-2", verdict=ProofVerdict.UNKNOWN)
    finished = ProofsFinished("req-1", 1.0)
    proofs = to_proofs([proved, unknown, finished])
    assert proofs == Proofs((proved, unknown), "req-1", 1.0)
    assert not proofs.all_proved
    assert to_proofs([proved, finished]).all_proved
    for cut_off in ([], [proved]):
        with pytest.raises(Lost):
            to_proofs(cut_off)
    with pytest.raises(Starting):
        to_proofs([proved, Starting("the prover is being stopped")])


def test_an_outcome_comes_off_the_wire_as_it_was() -> None:
    for outcome in (
        GoalOutcome(
            *("goal", "x = x", ProofVerdict.PROVED, 0.5),
            checked="x = x",
            certificate={"format": "f", "groups": [[{"name": "é"}]]},
            explanation=("one", "two"),
        ),
        GoalOutcome(
            *("goal", "x = y", ProofVerdict.REFUTED, 0.5),
            values={"x": "zero", "y": "(succ zero)"},
            left="zero",
            right="(succ zero)",
        ),
        GoalOutcome(
            *("", "", ProofVerdict.UNKNOWN, 0.5), reason=UnknownReason.MEMORY, stuck="a = b"
        ),
        GoalOutcome("goal", "x = x", ProofVerdict.FAILED, 0.5, message="an error"),
    ):
        sent = outcome_to_pb(outcome).SerializeToString()
        assert outcome_from_pb(prover_pb2.GoalOutcome.FromString(sent)) == outcome
