"""Grammars over tokens: which ids may follow, so that the text will match.

The library is llguidance. A grammar is compiled once and kept by its source; a request walks its
own copy. Where it stands is a function of the ids of the answer, so a walk that is lost is walked
again: `Walk.follow` takes all ids so far.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.request import Grammar, GrammarKind
from cluster.text.tokenizer import Tokenizer

MAX_KEPT = 64
# Symbols. Compiling takes longer than in proportion: so many, at most half a second on one core.
_MAX_GRAMMAR_SIZE = 10_000
# Between the parts of a JSON text: one blank, or a new line and its indentation. A model that
# begins to write blanks has to end some time.
_JSON_BLANKS = r"( |\n[ \t]{0,64})"

Mask = npt.NDArray[np.bool_]


class Walk:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, grammar: Grammar, vocab_size: int) -> None:
        self._matcher = matcher
        self._grammar = grammar
        self._vocab_size = vocab_size
        self.num_followed = 0

    def follow(self, ids: Sequence[int]) -> None:
        """Takes the next ids. Raises Refused when the grammar does not allow them."""
        if not self._matcher.consume_tokens(list(ids)):
            raise _cannot_go_on(self._grammar, self._matcher)
        self.num_followed += len(ids)

    def mask(self) -> Mask:
        """Which ids may follow, [vocab]: of ends of sequence, all once the text may end.

        Raises Refused when the grammar is too involved to say, or allows nothing.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little", count=self._vocab_size).view(np.bool_)
        if self._matcher.is_error() or not mask.any():
            raise _cannot_go_on(self._grammar, self._matcher)
        return mask

    @property
    def is_whole(self) -> bool:
        """The text matches, and nothing can be added to it."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()


class Grammars:
    """The grammars of one tokenizer; `vocab_size` is the model's. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = max(vocab_size, tokenizer.vocab_size)
        self._ids: LLTokenizer | None = None
        self._ids_lock = threading.Lock()
        self._kept: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._kept_lock = threading.Lock()

    def walk(self, grammar: Grammar) -> Walk:
        """At the beginning of `grammar`. New ones are compiled: milliseconds, the first a second.

        Raises InvalidArgument, saying why, for one that is malformed, unsupported or too large.
        """
        # Not under the lock: whoever walks a known grammar waits for nobody's compilation.
        matcher = self._kept.get(grammar) or self._compile(grammar)
        with self._kept_lock:
            matcher = self._kept.setdefault(grammar, matcher)
            self._kept.move_to_end(grammar)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return Walk(matcher.deep_copy(), grammar, self._vocab_size)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        limits = LLParserLimits(max_grammar_size=_MAX_GRAMMAR_SIZE, verbose_errors=False)
        matcher = LLMatcher(self._ids_known(), _written(grammar), log_level=0, limits=limits)
        error = matcher.get_error() or self._error_at_first(matcher.deep_copy())
        if error:
            raise InvalidArgument(
                f"{grammar.kind} cannot be used: {_first_line(error)}",
                field=grammar.kind,
                limit=f"a {grammar.kind} that llguidance supports",
            )
        return matcher

    def _error_at_first(self, matcher: LLMatcher) -> str:
        """Some are only found to be too involved when they are asked: where objects have keys."""
        matcher.compute_bitmask()
        if matcher.try_consume_tokens(self._ids_known().tokenize_str('{"')) > 0:
            matcher.compute_bitmask()
        return matcher.get_error()

    def _ids_known(self) -> LLTokenizer:
        """Made when the first grammar comes: most clusters never see one."""
        with self._ids_lock:
            if self._ids is None:
                self._ids = self._read_ids()
            return self._ids

    def _read_ids(self) -> LLTokenizer:
        try:
            return LLTokenizer(
                self._tokenizer.description,
                n_vocab=self._vocab_size,
                eos_token=sorted(self._tokenizer.eos_ids) or None,
            )
        except Exception as error:  # the Rust library raises no narrower class
            raise Unsupported(
                f"grammars are not offered with this model's tokenizer: {error}",
                field="grammar",
                limit="no grammar",
            ) from error


def _written(grammar: Grammar) -> str:
    """As the library reads it. Raises InvalidArgument for a schema that is no JSON."""
    if grammar.kind is GrammarKind.REGEX:
        return LLMatcher.grammar_from_regex(grammar.source)
    try:
        schema = json.loads(grammar.source)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"json_schema is no JSON: {error}", field=grammar.kind, limit="a JSON schema"
        ) from None
    if not isinstance(schema, dict):
        raise InvalidArgument(
            f"json_schema is of type {type(schema).__name__}",
            field=grammar.kind,
            limit="a JSON object",
        )
    return LLMatcher.grammar_from_json_schema(
        json.dumps(schema), overrides={"whitespace_pattern": _JSON_BLANKS}
    )


def _cannot_go_on(grammar: Grammar, matcher: LLMatcher) -> Refused:
    why = _first_line(matcher.get_error()) or "it allows no token here"
    return Refused(f"the answer cannot go on in its {grammar.kind}: {why}", field=grammar.kind)


def _first_line(message: str) -> str:
    """The library adds its whole state to some messages."""
    return message.strip().split("\n<state>")[0][:500]
