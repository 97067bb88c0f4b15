"""The HTTP door beside what OpenAI's client shows: bodies, headers, health, documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from actors.gateway import streams
from cluster.scheduling.membership import Role
from tests.gateway.scripted import (
    ANSWER,
    MODEL,
    ScriptedCluster,
    ScriptedWorker,
    config_of,
    eventually,
    scripted_cluster,
)

PATH = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}

NO_JSON: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"{", "body"),
    (b"[]", "body"),
    (b'"text"', "body"),
    (b"\xff\xfe", "body"),
    (b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}', "body"),
    (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', "body"),
    (b"[" * 100_000, "body"),
    (b'{"model": NaN}', "model"),
]


@pytest.mark.parametrize(("body", "param"), NO_JSON)
async def test_a_body_that_is_no_json_object_is_refused(
    http: httpx.AsyncClient, body: bytes, param: str
) -> None:
    response = await http.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_body_over_the_limit_is_refused_and_not_held(
    tiny_folder: Path, tmp_path: Path
) -> None:
    most = 2**16
    sent = []

    async def chunks(num_bytes: int) -> AsyncIterator[bytes]:
        sent.append(0)
        while sent[-1] < num_bytes:
            sent[-1] += 2**14
            yield b" " * 2**14

    config = config_of(tiny_folder, tmp_path, max_body_bytes=most)
    async with (
        scripted_cluster(config) as cluster,
        httpx.AsyncClient(base_url=cluster.http, timeout=20.0) as http,
    ):
        for content in (b" " * (most + 1), b" " * (10 * most), chunks(10 * most)):
            refused = await http.post(PATH, content=content)
            assert refused.status_code == 413
            assert refused.json()["error"]["param"] == "body"
            assert str(most) in refused.json()["error"]["message"]
        with pytest.raises(httpx.TransportError):
            await http.post(PATH, content=chunks(10_000 * most))
        assert sent[-1] < 1000 * most
        assert (await http.post(PATH, json=BODY)).status_code == 200


async def test_an_unknown_path_or_method_is_an_error_object(http: httpx.AsyncClient) -> None:
    lost = await http.get("/v1/nothing")
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "not_found")
    wrong = await http.get(PATH)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "unsupported")


async def test_a_sane_request_id_comes_back_and_others_are_replaced(
    http: httpx.AsyncClient,
) -> None:
    for path in ("/health", "/v1/nothing"):
        said = await http.get(path, headers={"x-request-id": "my-id.7"})
        assert said.headers.get_list("x-request-id") == ["my-id.7"]
    for insane in ("", "a b", "x" * 65, "é"):
        named = await http.get("/health", headers=[(b"x-request-id", insane.encode())])
        assert named.headers["x-request-id"].startswith("req-")


async def test_ready_says_what_is_missing(
    cluster: ScriptedCluster, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/ready")).json() == {"status": "ready"}
    away = [m for m in cluster.members if m.role is not Role.SCHEDULER]
    cluster.members[:] = [m for m in away if m.role is not Role.GPU_WORKER]
    await eventually(lambda: len(cluster.gateway.missing()) == 2)
    response = await http.get("/ready")
    assert response.status_code == 503
    assert response.json()["missing"] == ["scheduler", "gpu_worker"]
    assert "retry-after" in response.headers
    assert (await http.get("/health")).status_code == 200


async def test_version_and_metrics_are_served(
    cluster: ScriptedCluster, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/version")).json() == {"version": version("thoth-cluster")}
    await http.post(PATH, json=BODY)
    page = (await http.get("/metrics")).text
    assert 'thoth_requests_total{outcome="stop"} 1.0' in page
    assert "thoth_time_to_first_token_seconds_count 1.0" in page
    num_gaps = len(cluster.answer_ids) - 1
    assert f"thoth_inter_token_latency_seconds_count {num_gaps}.0" in page


async def test_the_api_is_described(http: httpx.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    temperature = schemas["ChatCompletionBody"]["properties"]["temperature"]
    assert "Absent or null is 0" in temperature["description"]
    assert "RetrievalBody" in schemas
    references = [r for r in _references(described) if r.rsplit("/", 1)[1] not in schemas]
    assert references == []


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []


async def test_an_idle_stream_is_kept_alive_by_comments(
    worker: ScriptedWorker, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.05)
    worker.pause_s = 0.2
    async with http.stream("POST", PATH, json=BODY | {"stream": True, "max_tokens": 3}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines() if line]
    assert lines.count(": keep-alive") >= 3
    assert lines[-1] == "data: [DONE]"


async def test_the_first_token_is_not_kept_back(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    worker.pause_s = 0.3
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with http.stream("POST", PATH, json=BODY | {"stream": True, "max_tokens": 4}) as response:
        async for line in response.aiter_lines():
            if '"content"' in line and '"role"' not in line:
                break
        assert loop.time() - began_s < 0.25


async def test_stop_strings_end_the_text_and_the_worker(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    worker.pause_s = 0.02
    body = BODY | {"stop": ["a block"]}
    whole = (await http.post(PATH, json=body)).json()["choices"][0]
    assert whole["message"]["content"] == ANSWER[: ANSWER.index("a block")]
    assert whole["finish_reason"] == "stop"
    await eventually(lambda: worker.num_cancelled == 1)
    async with http.stream("POST", PATH, json=body | {"stream": True}) as response:
        frames = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    texts = [json.loads(f)["choices"][0]["delta"].get("content", "") for f in frames[:-1]]
    assert "".join(texts) == ANSWER[: ANSWER.index("a block")]


async def test_characters_come_whole(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", PATH, json=BODY | {"stream": True}) as response:
        frames = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    texts = [json.loads(f)["choices"][0]["delta"].get("content", "") for f in frames[:-1]]
    assert "".join(texts) == ANSWER
    assert not any("�" in text for text in texts)


async def test_retrieve_gives_the_passages_without_an_answer(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/v1/retrieve", json={"collections": ["kb"], "query": "q", "top_k": 2}
    )
    found = response.json()
    assert [c["document_id"] for c in found["data"]] == ["doc-1", "doc-2"]
    assert found["data"][0] | {"score": 0} == {
        "collection": "kb",
        "document_id": "doc-1",
        "document_version": 1,
        "title": "Title 1",
        "chunk": 0,
        "start": 0,
        "end": 20,
        "text": "passage number 1 ..",
        "score": 0,
    }
    assert found["retrieval_s"] > 0
    refused = await http.post("/v1/retrieve", json={"collections": ["kb"], "query": ""})
    assert refused.json()["error"]["param"] == "query"


async def test_errors_of_the_retriever_reach_the_caller(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/collections/kb")).json()["num_documents"] == 4
    missing = await http.get("/v1/collections/nope")
    assert missing.status_code == 404
    assert missing.json()["error"]["param"] == "name"
    bad = await http.get("/v1/collections/kb/documents?limit=many")
    assert bad.status_code == 400
    assert bad.json()["error"]["param"] == "limit"
