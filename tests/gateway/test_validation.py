"""Every limit of a call, at the edge: the error names the field and says both numbers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.scripted import MODEL, ScriptedCluster, ScriptedWorker
from tests.tiny_model import CONTEXT_TOKENS

PATH = "/v1/chat/completions"
USER = {"role": "user", "content": "hello"}
BODY: dict[str, Any] = {"model": MODEL, "messages": [USER], "max_tokens": 2}
KB = {"collections": ["kb"]}


def in_schema(schema: Any, type: str = "json_schema", **more: Any) -> dict[str, Any]:
    """A body's response_format."""
    json_schema = {"name": "answer", "schema": schema, "strict": True} | more
    return {"response_format": {"type": type, "json_schema": json_schema}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "gpt-4o"}, "model", "'gpt-4o'"),
    ({"model": 7}, "model", "string"),
    ({"messages": []}, "messages", "empty"),
    ({"messages": "hello"}, "messages", "list"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages", "none of the 1"),
    ({"messages": [USER, {"role": "user"}]}, "messages[1].content", "required"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "'king'"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'tool'"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "string"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
        "image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0]",
        "text part",
    ),
    ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages", "2048"),
    ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages", "200000"),
    ({"max_tokens": 0}, "max_tokens", "0"),
    ({"max_tokens": -1}, "max_tokens", "-1"),
    ({"max_tokens": 10**9}, "max_tokens", "1000000000"),
    ({"max_tokens": 10**30}, "max_tokens", str(10**30)),
    ({"max_tokens": CONTEXT_TOKENS}, "max_tokens", "2048"),
    ({"max_tokens": 1.5}, "max_tokens", "integer"),
    ({"max_tokens": True}, "max_tokens", "integer"),
    ({"max_tokens": 2, "max_completion_tokens": 3}, "max_completion_tokens", "3"),
    ({"temperature": 2.1}, "temperature", "2.1"),
    ({"temperature": -0.1}, "temperature", "-0.1"),
    ({"temperature": "hot"}, "temperature", "number"),
    ({"top_p": 0}, "top_p", "0"),
    ({"top_p": 1.1}, "top_p", "1.1"),
    ({"top_k": 0}, "top_k", "0"),
    ({"seed": -1}, "seed", "-1"),
    ({"seed": 2**63}, "seed", "9223372036854775808"),
    ({"stop": [""]}, "stop[0]", "0 characters"),
    ({"stop": ["a", "x" * 257]}, "stop[1]", "257"),
    ({"stop": ["x"] * 17}, "stop", "17"),
    ({"stop": 5}, "stop", "list"),
    ({"stop_ids": [512]}, "stop_ids", "512"),
    ({"stop_ids": [-1]}, "stop_ids", "-1"),
    ({"timeout_s": 0}, "timeout_s", "0"),
    ({"timeout_s": 3601}, "timeout_s", "3601"),
    ({"stop_token_ids": [512]}, "stop_token_ids", "512"),
    ({"stop_token_ids": list(range(65))}, "stop_token_ids", "65"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids[0]", "integer"),
    ({"n": 0}, "n", "0"),
    ({"n": 17}, "n", "17"),
    ({"n": 1.5}, "n", "integer"),
    ({"min_p": 1.1}, "min_p", "1.1"),
    ({"presence_penalty": -2.1}, "presence_penalty", "-2.1"),
    ({"frequency_penalty": 2.1}, "frequency_penalty", "2.1"),
    ({"repetition_penalty": 0}, "repetition_penalty", "0"),
    ({"logit_bias": {"1": 100.5}}, "logit_bias[1]", "100.5"),
    ({"logit_bias": {"512": 1}}, "logit_bias", "512"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "-1"),
    ({"logit_bias": {"dog": 1}}, "logit_bias.dog", "integer"),
    ({"logit_bias": {"1": "much"}}, "logit_bias.1", "number"),
    ({"logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias", "1025"),
    ({"logprobs": 3}, "logprobs", "boolean"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "21"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "-1"),
    ({"top_logprobs": 3}, "top_logprobs", "logprobs is not true"),
    ({"min_tokens": 3}, "min_tokens", "3"),
    ({"min_tokens": -1}, "min_tokens", "-1"),
    ({"regex": "(a"}, "regex", "unclosed group"),
    ({"regex": "a" * 65537}, "regex", "65537"),
    ({"regex": "a", "response_format": {"type": "json_object"}}, "regex", "exclude"),
    ({"regex": "a", "ignore_eos": True}, "ignore_eos", "exclude"),
    ({"response_format": {"type": "yaml"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "belongs"),
    (in_schema({"type": "object"}, type="text"), "response_format.json_schema", "belongs"),
    (in_schema({}, name="no name"), "response_format.json_schema.name", "pattern"),
    (in_schema({"type": "strnig"}), "response_format.json_schema.schema", "strnig"),
    (in_schema({"$ref": "#/nowhere"}), "response_format.json_schema.schema", "nowhere"),
    (in_schema("object"), "response_format.json_schema.schema", "dictionary"),
    (in_schema({}, more=1), "response_format.json_schema.more", "not permitted"),
    ({"tools": [{"type": "function"}]}, "tools", "not offered"),
    ({"best_of": 2}, "best_of", "not offered"),
    ({"retrieval": {}}, "retrieval.collections", "required"),
    ({"retrieval": {"collections": []}}, "retrieval.collections", "empty"),
    ({"retrieval": {"collections": ["nope"]}}, "retrieval.collections", "no such"),
    ({"retrieval": KB | {"top_k": 0}}, "retrieval.top_k", "0"),
    ({"retrieval": KB | {"top_k": 65}}, "retrieval.top_k", "65"),
    ({"retrieval": KB | {"query": " "}}, "retrieval.query", "empty"),
    ({"retrieval": KB | {"max_context_tokens": 0}}, "retrieval.max_context_tokens", "0"),
    ({"retrieval": KB | {"order": "best"}}, "retrieval.order", "retrieval"),
    ({"retrieval": KB | {"filters": {"a": 1}}}, "retrieval.filters.a", "string"),
    ({"retrieval": KB | {"topk": 3}}, "retrieval.topk", "not permitted"),
]


@pytest.mark.parametrize(("change", "param", "said"), REFUSED)
async def test_a_call_outside_its_limits_is_refused(
    http: httpx.AsyncClient, worker: ScriptedWorker, change: dict[str, Any], param: str, said: str
) -> None:
    response = await http.post(PATH, json=BODY | change)
    error = response.json()["error"]
    assert 400 <= response.status_code < 429, response.text
    assert error["param"] == param
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert worker.requests == []


ACCEPTED: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 2, "top_p": 1, "top_k": 1, "seed": 2**63 - 1},
    {"temperature": None, "top_p": None, "seed": None, "stop": None, "stream": None},
    {"stop": "x" * 256},
    {"stop": ["x"] * 16},
    {"stop_ids": [0, 300]},
    {"n": 1, "logprobs": False, "tools": [], "presence_penalty": 0, "logit_bias": {}},
    {"n": 16},
    {"min_p": 1, "presence_penalty": -2, "frequency_penalty": 2.0, "repetition_penalty": 0.01},
    {"logit_bias": {"0": -100, "300": 100}},
    {"logprobs": True},
    {"logprobs": False, "top_logprobs": 0},
    {"min_tokens": 2, "ignore_eos": True, "stop_token_ids": [5], "stop_ids": [6]},
    {"n": None, "logit_bias": None, "logprobs": None, "response_format": None, "min_p": None},
    {"response_format": {"type": "json_object"}},
    {"regex": "(yes|no)"},
    in_schema({"type": "object", "properties": {"a": {"type": "integer"}}}, description="x"),
    {"response_format": {"type": "text"}},
    {"user": "u-1", "metadata": {"a": "b"}, "store": False, "made_up": 1},
    {"messages": [{"role": "developer", "content": "x", "name": "d"}, USER]},
    {"timeout_s": 3600},
    {"retrieval": KB | {"order": "retrieval", "top_k": 64, "citations": False}},
]


@pytest.mark.parametrize("change", ACCEPTED)
async def test_a_call_at_its_limits_is_answered(
    http: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    response = await http.post(PATH, json=BODY | change)
    assert response.status_code == 200, response.text


async def test_prompt_and_answer_may_fill_the_context_and_no_more(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": MODEL, "messages": [USER]}
    await http.post(PATH, json=body | {"max_tokens": 1})
    room = CONTEXT_TOKENS - sum(len(s.token_ids) for s in worker.requests[0].segments)
    assert (await http.post(PATH, json=body | {"max_tokens": room})).status_code == 200
    refused = await http.post(PATH, json=body | {"max_tokens": room + 1})
    message = refused.json()["error"]["message"]
    assert all(str(n) in message for n in (room + 1, room, CONTEXT_TOKENS - room, CONTEXT_TOKENS))


async def test_without_max_tokens_the_default_or_the_rest_of_the_context_is_taken(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    await http.post(PATH, json={"model": MODEL, "messages": [USER]})
    assert worker.requests[0].sampling.max_tokens == 64
    # A mark of one token each, up to a few before the end of the context.
    text = "!" * (CONTEXT_TOKENS - 30)
    long = {"role": "user", "content": text}
    response = await http.post(PATH, json={"model": MODEL, "messages": [long]})
    assert response.status_code == 200, response.text
    used = response.json()["usage"]["prompt_tokens"]
    assert worker.requests[1].sampling.max_tokens == min(64, CONTEXT_TOKENS - used)


async def test_an_absent_seed_is_drawn_and_a_given_one_is_kept(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for change in ({"temperature": 1}, {"temperature": 1}, {"temperature": 1, "seed": 0}):
        await http.post(PATH, json=BODY | change)
    first, second, third = (request.sampling.seed for request in worker.requests)
    assert first != second
    assert third == 0


async def test_documents_are_dropped_from_the_end_until_the_answer_fits(
    cluster: ScriptedCluster, http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    async def ask(**retrieval: Any) -> list[str]:
        body = BODY | {"retrieval": KB | {"top_k": 4} | retrieval}
        response = await http.post(PATH, json=body)
        assert response.status_code == 200, response.text
        return [c["document_id"] for c in response.json()["citations"]]

    assert await ask() == ["doc-1", "doc-2", "doc-3", "doc-4"]
    assert len(worker.requests[0].segments) == 6
    sizes = [len(s.token_ids) for s in worker.requests[0].segments[1:-1]]
    assert await ask(max_context_tokens=sum(sizes[:3])) == ["doc-1", "doc-2", "doc-3"]
    assert await ask(max_context_tokens=1) == []
    # Room for two documents beside the answer that is asked for.
    used = sum(len(s.token_ids) for s in worker.requests[0].segments)
    most = CONTEXT_TOKENS - used + sizes[2] + sizes[3]
    body = BODY | {"max_tokens": most, "retrieval": KB | {"top_k": 4}}
    response = await http.post(PATH, json=body)
    assert [c["document_id"] for c in response.json()["citations"]] == ["doc-1", "doc-2"]
