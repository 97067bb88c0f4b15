"""The same cluster on a real Ray: actors are killed, and the next request is served."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from cluster.client import Document, ThothError
from cluster.errors import InvalidArgument
from tests.actors.conftest import COLLECTION, DOCUMENTS, Running, pages_of
from tests.actors.test_local import (
    EVERY_WAY,
    QUESTION,
    test_bad_input_is_refused_by_name_and_others_are_served,
    wait_until_idle,
)
from tests.proofs.bodies import COMMUTES, ENDLESS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Lease (5 s), a new process, the model; the machine may be busy.
BACK_S = 120.0
LEFT_S = 1.0  # after a caller left, nothing is searched for it any more


def kill(cluster: Running, name: str) -> str:
    """kill -9 of a member's process; returns the incarnation that is no more."""
    member = cluster.members()[name].member
    os.kill(member.pid, signal.SIGKILL)
    return member.incarnation


def wait_for_successor(cluster: Running, name: str, incarnation: str) -> None:
    until_s = time.monotonic() + BACK_S
    while time.monotonic() < until_s:
        member = cluster.members()[name].member
        if member.is_ready and member.incarnation not in {"", incarnation}:
            return
        time.sleep(0.25)
    raise AssertionError(f"{name} is not back: {cluster.members()[name]}")


def test_every_client_gets_the_same_answer_through_serve(on_ray: Running) -> None:
    answers = {way.__name__: way(on_ray) for way in EVERY_WAY}
    assert len(set(answers.values())) == 1, answers
    assert answers["with_client"]


def test_bad_input_is_refused_by_name_through_serve(on_ray: Running) -> None:
    test_bad_input_is_refused_by_name_and_others_are_served(on_ray)


def test_a_client_that_leaves_in_mid_stream_gives_its_blocks_back(on_ray: Running) -> None:
    with on_ray.client() as client, client.stream(QUESTION, max_tokens=600) as stream:
        for _event, _ in zip(stream, range(3), strict=False):
            pass
    wait_until_idle(on_ray)


@pytest.mark.parametrize("name", ["gpu_worker-0", "scheduler"])
def test_after_a_kill_the_next_request_is_served(on_ray: Running, name: str) -> None:
    with on_ray.client(timeout_s=BACK_S) as client:
        before = client.ask(QUESTION, max_tokens=8).text
        gone = kill(on_ray, name)
        assert client.ask(QUESTION, max_tokens=8).text == before
    wait_for_successor(on_ray, name, gone)
    assert on_ray.members()[name].num_restarts >= 1


def test_an_answer_goes_on_after_its_worker_was_killed(on_ray: Running) -> None:
    with on_ray.client(timeout_s=BACK_S) as client:
        expected = client.ask(QUESTION, max_tokens=400, temperature=1.0, seed=5).text
        options = {"max_tokens": 400, "temperature": 1.0, "seed": 5}
        with client.stream(QUESTION, **options) as stream:  # type: ignore[arg-type]
            for number, _event in enumerate(stream):
                if number == 10:
                    kill(on_ray, "gpu_worker-0")
            assert stream.answer().text == expected


def test_what_ingest_acknowledged_survives_a_killed_retriever(on_ray: Running) -> None:
    with on_ray.client(timeout_s=BACK_S) as client:
        client.documents.upsert(COLLECTION, [Document("late", "Late", "The walrus is assigned.")])
        gone = kill(on_ray, "retriever")
        wait_for_successor(on_ray, "retriever", gone)
        found = client.retrieve("walrus", collections=[COLLECTION], top_k=1)
        assert found.chunks[0].document_id == "late"
        listed = {d.id for d in client.documents.list(COLLECTION).documents}
        assert listed == {d.id for d in DOCUMENTS} | {"late"}


def searches(cluster: Running) -> list[psutil.Process]:
    """The processes that look for proofs."""
    found = []
    for child in psutil.Process(cluster.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "prover.attempt" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_proofs_go_through_serve_and_a_killed_prover_is_replaced(on_ray: Running) -> None:
    with on_ray.client(timeout_s=BACK_S) as client:
        proofs = client.prove(COMMUTES, certificate=True)
        assert proofs.all_proved
        raw = httpx.post(f"{on_ray.endpoints.http}/v1/prove", json={"text": COMMUTES}, timeout=60)
        assert [goal["verdict"] for goal in raw.json()["data"]] == ["proved"]
        with pytest.raises(InvalidArgument, match=r"problem\.prove:1:6"):
            client.prove("prove")
        kill(on_ray, "prover-0")
        again = client.prove(COMMUTES, certificate=True)
    assert again.outcomes[0].certificate == proofs.outcomes[0].certificate


def test_a_client_that_leaves_ends_its_search_through_serve(on_ray: Running) -> None:
    """Over HTTP: what Serve tells of gRPC streams comes late at times."""
    body = {"text": ENDLESS, "time_limit_s": 200}
    request = httpx.Request("POST", f"{on_ray.endpoints.http}/v1/prove", json=body)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /v1/prove HTTP/1.1", *lines, "", ""])
    with socket.create_connection((request.url.host, request.url.port or 80)) as caller:
        caller.sendall(head.encode() + request.content)
        until_s = time.monotonic() + BACK_S
        while not searches(on_ray):  # the prover may not be back yet
            assert time.monotonic() < until_s
            time.sleep(0.05)
    until_s = time.monotonic() + LEFT_S
    while searches(on_ray):
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_killed_supervisor_finds_everyone_again(on_ray: Running) -> None:
    supervisors = [
        p
        for p in psutil.Process(on_ray.pid).children(recursive=True)
        if "SupervisorActor" in " ".join(p.cmdline())
    ]
    assert len(supervisors) == 1
    supervisors[0].kill()
    with on_ray.client(timeout_s=BACK_S) as client:
        assert client.ask(QUESTION, max_tokens=8).text
        time.sleep(8)
        assert client.ask(QUESTION, max_tokens=8).text
    # Its own address has changed; the list it writes is where it was.
    everyone = {"gpu_worker-0", "prover-0", "retriever", "scheduler", "supervisor"}
    until_s = time.monotonic() + BACK_S
    while not set(pages_of(on_ray)) >= everyone:
        assert time.monotonic() < until_s, pages_of(on_ray)
        time.sleep(0.25)


def test_nothing_is_left_running_after_the_end(on_ray: Running) -> None:
    """Last in this file: it ends the cluster that the others used."""
    family = psutil.Process(on_ray.pid).children(recursive=True)
    pages = pages_of(on_ray)
    assert len(family) > len(pages)
    on_ray.process.stop()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, alive
    with pytest.raises(ThothError), on_ray.client(timeout_s=2.0) as client:
        client.ask(QUESTION)
