"""The prover over gRPC, as its peers see it: what it says, and that its limits hold."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from actors.proofs import MIN_MEMORY_BYTES
from cluster.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    Starting,
    ThothError,
    TooLarge,
)
from cluster.proofs import GoalOutcome, ProblemLanguage, ProofMode, ProofVerdict, UnknownReason
from cluster.wire.proofs import ProofsFinished
from protos.thoth.v1 import prover_pb2 as pb
from prover.checker import verify
from prover.proving import Settings, prove
from prover.syntax.problem import parse
from prover.verdict import Mode, Proved, Reason
from tests.proofs.bodies import (
    COMMUTES,
    ENDLESS,
    FALSEHOOD,
    NAT,
    SHARED_S,
    THEOREM,
    Stub,
    searches,
    serving,
    until,
)
from tests.prover.proofs import NATURALS

LEFT_S = 1.0  # after a caller left, nothing is searched for it any more
SMT = f"{NATURALS}(prove (forall ((x Nat)) (= (plus x Z) x)))"


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Stub]:
    async with serving(tmp_path, processes=2) as stub:
        yield stub


async def refusal(stub: Stub, text: str, **more: Any) -> ThothError:
    with pytest.raises(ThothError) as raised:
        await stub.prove(text, **more)
    return raised.value


async def test_goals_come_one_at_a_time_in_the_order_of_the_problem(stub: Stub) -> None:
    first, second, finished = await stub.prove(NAT + THEOREM + FALSEHOOD)
    assert isinstance(first, GoalOutcome)
    assert isinstance(second, GoalOutcome)
    assert (first.goal, first.verdict) == ("goal", ProofVerdict.PROVED)
    assert first.checked == first.statement == "for all x: nat. (plus x zero) = x"
    assert (second.goal, second.verdict) == ("goal-2", ProofVerdict.REFUTED)
    assert second.values == {"x": "(succ zero)"}
    assert (second.left, second.right) == ("(succ (succ zero))", "(succ zero)")
    assert finished == ProofsFinished("", first.seconds + second.seconds)


async def test_a_certificate_is_one_that_the_checker_replays(stub: Stub) -> None:
    outcome = await stub.only(COMMUTES, certificate=True)
    program = parse(COMMUTES.encode(), "problem.prove")
    said = str(verify(program, outcome.certificate))
    assert said == f"proved: {outcome.checked}"
    (local,) = prove(COMMUTES, Settings())
    assert isinstance(local.verdict, Proved)
    assert json.dumps(outcome.certificate) == json.dumps(local.verdict.certificate)


async def test_only_what_is_asked_for_is_sent(stub: Stub) -> None:
    bare = await stub.only(COMMUTES)
    assert (bare.certificate, bare.explanation) == (None, ())
    told = await stub.only(COMMUTES, explanation=True)
    assert told.certificate is None
    assert told.explanation[0] == "Theorem: (plus n m) = (plus m n), for all n, m."


@pytest.mark.parametrize("mode", ["DIRECTED", "ENUMERATIVE", "PORTFOLIO"])
async def test_every_mode_proves_and_refutes(stub: Stub, mode: str) -> None:
    chosen = pb.ProofMode.Value(f"PROOF_MODE_{mode}")
    events = await stub.prove(NAT + THEOREM + FALSEHOOD, mode=chosen)
    verdicts = [event.verdict for event in events if isinstance(event, GoalOutcome)]
    assert verdicts == [ProofVerdict.PROVED, ProofVerdict.REFUTED]


async def test_the_language_is_said_or_seen(stub: Stub) -> None:
    for more in ({}, {"name": "a.smt2"}, {"language": pb.PROBLEM_LANGUAGE_SMT_LIB}):
        assert (await stub.only(SMT, **more)).verdict is ProofVerdict.PROVED
    for more in ({"name": "a.prove"}, {"language": pb.PROBLEM_LANGUAGE_PROVE}):
        assert isinstance(await refusal(stub, SMT, **more), InvalidArgument)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("prove", "", "problem.prove:1:6: expected a name, found the end"),
        (f"{NAT}prove forall x: nat. plus(x) = x", "a.prove", "a.prove:5:32: x: it has sort nat"),
        ("(declare-sort E 0)\n(check", "", "problem.smt2:2:1"),
        ("(" * 20_000, "deep.smt2", "deep.smt2:1:1001"),
        ("data n = z | s(n)\nfun f(n): n\nf(x) = s(f(x))\nprove forall x: n. f(x) = x", "", "f:"),
        ("data n = z | s(n)\nfun f(n): n\nf(z) = z\nprove forall x: n. f(x) = x", "", "f:"),
        ("prove \0", "", "problem.prove:1:7"),
    ],
)
async def test_a_problem_of_no_use_is_refused_with_its_place(
    stub: Stub, text: str, name: str, said: str
) -> None:
    refused = await refusal(stub, text, name=name)
    assert isinstance(refused, InvalidArgument)
    assert refused.field == "text"
    assert said in refused.message
    assert "Traceback" not in refused.message


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("text", {"text": " \n"}),
        ("name", {"name": "a\nb"}),
        ("name", {"name": "n" * 201}),
        ("time_limit_s", {"time_limit_s": 0.0}),
        ("time_limit_s", {"time_limit_s": 1e9}),
        ("time_limit_s", {"time_limit_s": float("nan")}),
        ("steps", {"steps": 0}),
        ("memory_bytes", {"memory_bytes": 1}),
        ("memory_bytes", {"memory_bytes": 2**40}),
        ("mode", {"mode": 99}),
        ("language", {"language": 99}),
    ],
)
async def test_a_limit_that_is_passed_is_named(
    stub: Stub, field: str, more: dict[str, Any]
) -> None:
    refused = await refusal(stub, **({"text": COMMUTES} | more))
    assert isinstance(refused, InvalidArgument)
    assert refused.field == field
    assert refused.limit


async def test_a_text_that_is_too_long_is_refused_before_it_is_read(stub: Stub) -> None:
    refused = await refusal(stub, "(" * 10_000_000)
    assert isinstance(refused, TooLarge)
    assert (refused.field, refused.limit) == (
        "text",
        "at most 262144 bytes (prover.max_problem_bytes)",
    )


async def test_a_goal_that_takes_for_ever_is_unknown_in_time(stub: Stub) -> None:
    began_s = time.monotonic()
    outcome = await stub.only(ENDLESS, time_limit_s=1.0)
    assert time.monotonic() - began_s < 1.0 + SHARED_S
    assert (outcome.verdict, outcome.reason) == (ProofVerdict.UNKNOWN, UnknownReason.TIMEOUT)
    few = await stub.only(COMMUTES, steps=1)
    assert (few.verdict, few.reason) == (ProofVerdict.UNKNOWN, UnknownReason.STEPS)


async def test_the_process_of_a_goal_may_have_no_more_memory_than_was_said(stub: Stub) -> None:
    call = stub.service.Prove(
        pb.ProveRequest(text=ENDLESS, time_limit_s=30.0, memory_bytes=MIN_MEMORY_BYTES)
    )
    reading = asyncio.ensure_future(call.read())
    await until(lambda: MIN_MEMORY_BYTES in map(address_space, searches()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def address_space(process: psutil.Process) -> int:
    try:
        return int(process.rlimit(psutil.RLIMIT_AS)[0])
    except psutil.Error:
        return 0


async def test_a_caller_that_leaves_ends_the_process_of_its_search(stub: Stub) -> None:
    call = stub.service.Prove(pb.ProveRequest(text=ENDLESS, time_limit_s=60.0))
    reading = asyncio.ensure_future(call.read())
    await until(lambda: len(searches()) == 1)
    (search,) = searches()
    await asyncio.sleep(0.5)
    assert search.is_running()
    call.cancel()
    await until(lambda: not search.is_running(), within_s=LEFT_S)
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: stub.counted('thoth_problems_total{outcome="cancelled"}') == 1)
    assert stub.counted("thoth_num_proofs_running") == 0


async def test_a_caller_that_leaves_while_it_waits_leaves_no_trace(tmp_path: Path) -> None:
    async with serving(tmp_path, processes=1) as stub:
        long = asyncio.ensure_future(stub.prove(ENDLESS, time_limit_s=60.0))
        await until(lambda: len(searches()) == 1)
        waiting = asyncio.ensure_future(stub.prove(COMMUTES))
        await until(lambda: stub.counted("thoth_num_proofs_waiting") == 1)
        waiting.cancel()
        await until(lambda: stub.counted("thoth_num_proofs_waiting") == 0)
        assert len(searches()) == 1
        long.cancel()
        await until(lambda: not searches(), within_s=LEFT_S)
        assert (await stub.only(COMMUTES)).verdict is ProofVerdict.PROVED


async def test_one_problem_too_many_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path, processes=1, max_waiting=1) as stub:
        here = [
            asyncio.ensure_future(stub.prove(text, time_limit_s=3.0))
            for text in (ENDLESS, COMMUTES)
        ]
        await until(lambda: stub.counted("thoth_num_proofs_waiting") == 1)
        refused = await refusal(stub, COMMUTES)
        assert isinstance(refused, Overloaded)
        assert refused.retry_after_s >= 1.0
        assert "prover.max_waiting" in refused.limit
        assert stub.counted('thoth_problems_total{outcome="overloaded"}') == 1
        assert [len(events) for events in await asyncio.gather(*here)] == [2, 2]


async def test_a_problem_of_many_goals_lets_others_in_between(tmp_path: Path) -> None:
    ended: list[str] = []

    async def noted(stub: Stub, name: str, text: str) -> None:
        request = pb.ProveRequest(text=text, time_limit_s=1.0)
        async for event in stub.service.Prove(request):
            ended.append(f"{name} {event.WhichOneof('event')}")

    async with serving(tmp_path, processes=1) as stub:
        many = ENDLESS + THEOREM * 3
        first = asyncio.create_task(noted(stub, "many", many))
        await until(lambda: len(searches()) == 1)
        await asyncio.gather(first, noted(stub, "one", COMMUTES))
    assert ended.index("one finished") < ended.index("many finished")
    assert ended.count("many outcome") == 4


async def test_the_time_for_all_goals_together_is_kept(stub: Stub) -> None:
    refused = await refusal(stub, NAT + THEOREM + ENDLESS.removeprefix(NAT), timeout_s=1.5)
    assert isinstance(refused, DeadlineExceeded)
    assert refused.field == "timeout_s"
    await until(lambda: not searches(), within_s=LEFT_S)
    assert stub.counted('thoth_problems_total{outcome="deadline"}') == 1
    assert stub.counted('thoth_proofs_total{verdict="proved"}') == 1


async def test_a_prover_that_ends_says_so_and_leaves_no_process(tmp_path: Path) -> None:
    async with serving(tmp_path, processes=1) as stub:
        asked = asyncio.ensure_future(refusal(stub, ENDLESS, time_limit_s=60.0))
        await until(lambda: len(searches()) == 1)
        await stub.body.stop()
        assert isinstance(await asked, Starting)
        assert searches() == []


async def test_outcomes_are_counted_by_verdict(stub: Stub) -> None:
    await stub.prove(NAT + THEOREM + FALSEHOOD)
    await refusal(stub, "prove")
    for verdict, count in {"proved": 1, "refuted": 1, "unknown": 0, "failed": 0}.items():
        assert stub.counted(f'thoth_proofs_total{{verdict="{verdict}"}}') == count
    assert stub.counted('thoth_problems_total{outcome="finished"}') == 1
    assert stub.counted('thoth_problems_total{outcome="refused"}') == 1
    assert stub.counted("thoth_proof_seconds_count") == 2


async def test_health_says_that_it_serves(stub: Stub) -> None:
    health: Any = health_pb2_grpc.HealthStub(stub.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_many_callers_get_what_one_gets(stub: Stub) -> None:
    alone = await stub.only(COMMUTES, certificate=True)
    many = await asyncio.gather(*(stub.only(COMMUTES, certificate=True) for _ in range(8)))
    assert all(each.certificate == alone.certificate for each in many)


def test_the_words_are_those_of_the_prover() -> None:
    assert [*ProofMode] == [str(mode) for mode in Mode]
    assert [*UnknownReason] == [str(reason) for reason in Reason]


def test_every_word_has_its_place_on_the_wire() -> None:
    for ours, enum, head in (
        (ProblemLanguage, pb.ProblemLanguage, "PROBLEM_LANGUAGE"),
        (ProofMode, pb.ProofMode, "PROOF_MODE"),
        (ProofVerdict, pb.ProofVerdict, "PROOF_VERDICT"),
        (UnknownReason, pb.UnknownReason, "UNKNOWN_REASON"),
    ):
        names = {f"{head}_{word.upper()}" for word in ours}
        assert names | {f"{head}_UNSPECIFIED"} == set(enum.keys())
