"""With whom a prompt's keys and values may be shared: by principal, never by what a call says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.cli.keys import add_key
from actors.gateway.tenants import sources_of
from cluster.config import ThothConfig
from cluster.request import ChatRole, Message, SegmentSource
from cluster.retrieval.records import ScoredChunk
from cluster.text.prompt import Prompt
from tests.gateway.scripted import MODEL, ScriptedCluster, config_of, scripted_cluster

QUESTION = (Message(ChatRole.USER, "Why?"),)
OWN_SYSTEM = (Message(ChatRole.SYSTEM, "Be alice's."), *QUESTION)


def prompt_of(*collections: str) -> Prompt:
    """One passage of each collection, between the system prompt and the question."""
    documents = tuple(
        ScoredChunk(name, f"doc-{at}", 10 + at, "Title", at, 0, 5, "text.", 0.5)
        for at, name in enumerate(collections)
    )
    return Prompt(tuple((at,) for at in range(len(documents) + 2)), documents)


def sources(
    principal: str, *collections: str, messages: tuple[Message, ...] = QUESTION
) -> tuple[SegmentSource, ...]:
    return sources_of(prompt_of(*collections), messages, principal, {"open", "public"})


def salts(
    principal: str, *collections: str, messages: tuple[Message, ...] = QUESTION
) -> list[bytes]:
    return [source.salt for source in sources(principal, *collections, messages=messages)]


def test_the_system_prompt_and_every_document_have_a_source_and_the_question_none() -> None:
    found = sources("alice", "mine", "open")
    assert [(s.collection, s.document_id, s.chunk, s.version) for s in found] == [
        ("", "", 0, 0),
        ("mine", "doc-0", 0, 10),
        ("open", "doc-1", 1, 11),
    ]
    assert len(found) == len(prompt_of("mine", "open").segments) - 1


def test_without_documents_nothing_is_kept() -> None:
    assert sources("alice") == ()


def test_documents_of_two_principals_have_nothing_in_common() -> None:
    alice, bob = salts("alice", "mine", "mine"), salts("bob", "mine", "mine")
    assert set(alice).isdisjoint(bob)
    assert alice == salts("alice", "mine", "mine")


def test_the_deployment_s_own_system_prompt_is_shared_before_shared_documents_only() -> None:
    assert salts("alice", "open", "mine")[0] == salts("bob", "open", "mine")[0]
    assert salts("alice", "mine", "open")[0] != salts("bob", "mine", "open")[0]


def test_documents_of_shared_collections_are_shared() -> None:
    assert salts("alice", "open", "public") == salts("bob", "open", "public")
    assert len(set(salts("alice", "open", "public"))) == 1


def test_all_after_the_first_document_of_ones_own_is_ones_own() -> None:
    alice, bob = salts("alice", "open", "mine", "open"), salts("bob", "open", "mine", "open")
    assert alice[:2] == bob[:2]
    assert set(alice[2:]).isdisjoint(bob)
    assert len(set(alice[2:])) == 1
    assert alice[0] != alice[2]


def test_a_system_message_of_ones_own_makes_all_after_it_ones_own() -> None:
    alice = salts("alice", "open", "public", messages=OWN_SYSTEM)
    bob = salts("bob", "open", "public", messages=OWN_SYSTEM)
    assert len(set(alice)) == len(set(bob)) == 1
    assert set(alice).isdisjoint(bob)
    assert alice[0] not in salts("alice", "open")


def test_a_principal_cannot_be_named_like_what_is_shared() -> None:
    shared = salts("alice", "open")[0]
    for name in ("", "shared", "tenant", "local"):
        assert salts(name, "mine")[1] != shared


def body(**more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "retrieval": {"collections": ["kb"], "top_k": 2},
    } | more


def with_sharing(config: ThothConfig, *collections: str) -> ThothConfig:
    cache = config.cache.model_copy(update={"shared_collections": collections})
    return config.model_copy(update={"cache": cache})


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {name: add_key(name, tmp_path / "keys") for name in ("alice", "bob")}


@pytest.fixture
async def guarded(
    tiny_folder: Path, tmp_path: Path, keys: dict[str, str]
) -> AsyncIterator[ScriptedCluster]:
    config = config_of(tiny_folder, tmp_path, api_keys_file=tmp_path / "keys")
    async with scripted_cluster(config) as cluster:
        yield cluster


async def salts_sent(cluster: ScriptedCluster, key: str, said: dict[str, Any]) -> list[bytes]:
    """Those that the worker got with the last request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=cluster.http, headers=headers, timeout=20.0) as http:
        response = await http.post("/v1/chat/completions", json=said)
    assert response.status_code == 200, response.text
    *sourced, question = cluster.workers[0].requests[-1].segments
    assert not question.HasField("source")
    return [segment.source.salt for segment in sourced]


async def test_a_worker_gets_the_salts_of_the_key_that_called(
    guarded: ScriptedCluster, keys: dict[str, str]
) -> None:
    alice = await salts_sent(guarded, keys["alice"], body())
    bob = await salts_sent(guarded, keys["bob"], body())
    assert alice == salts("alice", "kb", "kb")
    assert bob == salts("bob", "kb", "kb")
    assert guarded.workers[0].requests[0].template == guarded.workers[0].requests[1].template != ""


async def test_no_salt_comes_from_a_call(guarded: ScriptedCluster, keys: dict[str, str]) -> None:
    plain = await salts_sent(guarded, keys["alice"], body())
    for said in ({"user": "bob"}, {"metadata": {"salt": "x"}}, {"seed": 3}):
        assert await salts_sent(guarded, keys["alice"], body(**said)) == plain
    fields = {field.name for field in guarded.workers[0].requests[0].DESCRIPTOR.fields}
    assert "salt" not in fields


async def test_what_the_deployment_shares_is_shared_on_the_way_to_the_worker(
    tiny_folder: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    config = config_of(tiny_folder, tmp_path, api_keys_file=tmp_path / "keys")
    async with scripted_cluster(with_sharing(config, "kb")) as cluster:
        alice = await salts_sent(cluster, keys["alice"], body())
        assert alice == await salts_sent(cluster, keys["bob"], body())
        own = {"role": "system", "content": "Mine."}
        mine = body(messages=[own, *body()["messages"]])
        assert set(alice).isdisjoint(await salts_sent(cluster, keys["alice"], mine))


async def test_without_keys_everybody_here_is_one_tenant(cluster: ScriptedCluster) -> None:
    assert await salts_sent(cluster, "", body()) == salts("local", "kb", "kb")
