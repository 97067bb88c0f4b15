"""Grammars over tokens: what is allowed, what is refused, and a walk that can be walked again."""

from __future__ import annotations

import json
import threading
from random import Random
from typing import Any

import numpy as np
import pytest

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.request import Grammar, GrammarKind
from cluster.text.grammar import MAX_KEPT, Grammars, Walk
from cluster.text.tokenizer import Tokenizer
from tests.tiny_model import EOS_ID, tiny_config, tiny_tokenizer

VOCAB = tiny_config()["vocab_size"]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer().to_str(), frozenset({EOS_ID}))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, VOCAB)


def schema(content: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(content))


def regex(source: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, source)


def accepts(grammars: Grammars, tokenizer: Tokenizer, grammar: Grammar, text: str) -> bool:
    """Whether the whole text may be written, token by token, and may end there."""
    walk = grammars.walk(grammar)
    for token_id in tokenizer.encode(text):
        if not walk.mask()[token_id]:
            return False
        walk.follow((token_id,))
    return bool(walk.mask()[EOS_ID])


def test_a_schema_allows_what_matches_and_nothing_else(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    def fits(text: str) -> bool:
        return accepts(grammars, tokenizer, schema(PERSON), text)

    assert fits('{"name": "Ann", "age": 7}')
    assert fits('{"name":"Ann","age":-70}')
    assert fits('{\n  "name": "naïve ✓",\n  "age": 7\n}')
    assert not fits('{"name": "Ann"}')
    assert not fits('{"name": "Ann", "age": "7"}')
    assert not fits('{"name": "Ann", "age": 7, "more": 1}')
    assert not fits('{"name": "much too long", "age": 7}')
    assert not fits('{"name": "Ann", "age": 7')
    assert not fits('[{"name": "Ann", "age": 7}]')


def test_blanks_between_the_parts_have_an_end(grammars: Grammars, tokenizer: Tokenizer) -> None:
    anything = schema({"type": "object"})
    assert accepts(grammars, tokenizer, anything, '{ "a": [1, 2] }')
    assert not accepts(grammars, tokenizer, anything, '{  "a": 1}')
    assert not accepts(grammars, tokenizer, anything, '{\n\n"a": 1}')
    assert not accepts(grammars, tokenizer, anything, "{\n" + " " * 65 + '"a": 1}')


def test_a_regex_allows_what_matches(grammars: Grammars, tokenizer: Tokenizer) -> None:
    assert accepts(grammars, tokenizer, regex("(yes|no)!?"), "yes")
    assert accepts(grammars, tokenizer, regex("(yes|no)!?"), "no!")
    assert not accepts(grammars, tokenizer, regex("(yes|no)!?"), "ye")
    assert not accepts(grammars, tokenizer, regex("(yes|no)!?"), "yes!!")


def test_a_walk_is_whole_when_nothing_can_be_added(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    walk = grammars.walk(regex("ab?"))
    assert not walk.is_whole
    walk.follow(tokenizer.encode("a"))
    assert not walk.is_whole
    assert walk.mask()[EOS_ID]
    walk.follow(tokenizer.encode("b"))
    assert walk.is_whole
    assert np.flatnonzero(walk.mask()).tolist() == [EOS_ID]


def test_ids_without_text_are_never_allowed(grammars: Grammars, tokenizer: Tokenizer) -> None:
    mask = grammars.walk(regex("(.|\n)+")).mask()
    assert len(mask) == VOCAB
    assert not mask[[0, 1, EOS_ID]].any()
    assert not mask[tokenizer.vocab_size :].any()
    assert mask[tokenizer.encode("a")[0]]


def random_walk(grammars: Grammars, grammar: Grammar, seed: int) -> tuple[list[int], Walk]:
    random, walk, ids = Random(seed), grammars.walk(grammar), list[int]()
    while not walk.is_whole and len(ids) < 400:
        token_id = random.choice(np.flatnonzero(walk.mask()).tolist())
        if token_id == EOS_ID:
            break
        walk.follow((token_id,))
        ids.append(token_id)
    return ids, walk


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_that_is_lost_is_walked_again(
    grammars: Grammars, tokenizer: Tokenizer, seed: int
) -> None:
    ids, walk = random_walk(grammars, schema(PERSON), seed)
    assert set(json.loads(tokenizer.decode(ids))) == {"name", "age"}
    for cut in range(0, len(ids) + 1, 3):
        again = Grammars(tokenizer, VOCAB).walk(schema(PERSON))
        again.follow(ids[:cut])
        at_once = grammars.walk(schema(PERSON))
        for token_id in ids[:cut]:
            at_once.follow((token_id,))
        assert np.array_equal(again.mask(), at_once.mask())
    assert walk.num_followed == len(ids)


def test_ids_that_do_not_match_are_refused(grammars: Grammars, tokenizer: Tokenizer) -> None:
    walk = grammars.walk(schema(PERSON))
    with pytest.raises(Refused, match="cannot go on in its json_schema"):
        walk.follow(tokenizer.encode("[1"))


MALFORMED: list[tuple[Grammar, str]] = [
    (Grammar(GrammarKind.JSON_SCHEMA, "{nonsense"), "no JSON"),
    (Grammar(GrammarKind.JSON_SCHEMA, "[" * 60_000), "no JSON"),
    (Grammar(GrammarKind.JSON_SCHEMA, '{"a": ' * 9000 + "1" + "}" * 9000), "json"),
    (schema(5), "type int"),
    (schema({"type": "strnig"}), "strnig"),
    (schema({"type": "object", "properties": 5}), "properties"),
    (schema({"$ref": "#/nowhere"}), "nowhere"),
    (schema({"type": "string", "pattern": "("}), "unclosed group"),
    (schema({"type": "string", "format": "made-up"}), "made-up"),
    (schema({"not": {"type": "string"}}), "not"),
    (schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
    (schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
    (schema({"type": "object", "properties": {f"p{i}": {} for i in range(700)}}), "row"),
    (schema({"enum": [f"value {i}" for i in range(4000)], "anyOf": [{}] * 20}), "too large"),
    (regex("(abc"), "unclosed group"),
    (regex(r"(a)\1"), "backreference"),
]


@pytest.mark.parametrize(("grammar", "said"), MALFORMED)
def test_a_grammar_that_cannot_be_used_is_refused_with_the_reason(
    grammars: Grammars, grammar: Grammar, said: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        grammars.walk(grammar)
    assert caught.value.field == grammar.kind
    assert said in caught.value.message
    assert "<state>" not in caught.value.message


def test_schemas_that_refer_to_each_other_are_not_written_out(grammars: Grammars) -> None:
    below = {"type": "object", "properties": {}, "required": ["x", "y"]}
    definitions: dict[str, Any] = {
        f"a{i}": below | {"properties": {n: {"$ref": f"#/$defs/a{i + 1}"} for n in "xy"}}
        for i in range(60)
    }
    definitions["a60"] = {"type": "string"}
    grammars.walk(schema({"$ref": "#/$defs/a0", "$defs": definitions}))


def test_compiled_grammars_are_kept_up_to_a_number(tokenizer: Tokenizer) -> None:
    grammars = Grammars(tokenizer, VOCAB)
    for i in range(MAX_KEPT + 20):
        grammars.walk(regex(f"a{{{i + 1}}}"))
    assert len(grammars._kept) == MAX_KEPT
    first = grammars._kept[regex(f"a{{{MAX_KEPT}}}")]
    grammars.walk(regex(f"a{{{MAX_KEPT}}}"))
    assert grammars._kept[regex(f"a{{{MAX_KEPT}}}")] is first


def test_grammars_may_be_asked_for_by_many_threads(tokenizer: Tokenizer) -> None:
    grammars, failures = Grammars(tokenizer, VOCAB), list[BaseException]()

    def ask(seed: int) -> None:
        try:
            for _ in range(5):
                ids, _ = random_walk(grammars, schema(PERSON), seed)
                json.loads(tokenizer.decode(ids))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_tokenizer_that_cannot_be_read_offers_no_grammars(tokenizer: Tokenizer) -> None:
    odd = Tokenizer(tokenizer.description, frozenset({EOS_ID}))
    odd.description = json.dumps(json.loads(odd.description) | {"decoder": None})
    with pytest.raises(Unsupported, match="not offered with this model's tokenizer"):
        Grammars(odd, VOCAB).walk(regex("a"))
