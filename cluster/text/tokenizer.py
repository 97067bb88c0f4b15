"""Text to token ids and back.

A special token has two spellings in one: the id that steers the model, and the characters of its
name. Text from users and documents only ever means the characters, so `encode` is the default and
`encode_template` is for text that the chat template wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from cluster.errors import InvalidArgument, Unsupported
from cluster.request import TokenIds
from cluster.text.token_bytes import TokenBytes

FIELD = "model.source"


class Tokenizer:
    """A `tokenizer.json` with the model's end-of-sequence ids. Safe to share between threads."""

    def __init__(self, description: str, eos_ids: frozenset[int] = frozenset()) -> None:
        """`description` is the content of a tokenizer.json; anything else is InvalidArgument."""
        self.description = description
        self._plain = _load(description)
        self._plain.encode_special_tokens = True
        self._template = _load(description)
        self.eos_ids = eos_ids
        self.vocab_size = self._plain.get_vocab_size(with_added_tokens=True)
        self.fingerprint = hashlib.sha256(description.encode()).hexdigest()
        added = self._plain.get_added_tokens_decoder()
        self.special_ids = frozenset(id_ for id_, token in added.items() if token.special)
        self.special_texts = tuple(added[id_].content for id_ in sorted(self.special_ids))
        self._bytes = TokenBytes(self._plain)
        self._refuse_leaks()
        self._byte_ids = frozenset(
            id_
            for byte in range(256)
            if (id_ := self._plain.token_to_id(f"<0x{byte:02X}>")) is not None
        )

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Reads tokenizer.json, and from the files beside it where answers end.

        Raises InvalidArgument when tokenizer.json is missing or malformed.
        """
        try:
            description = (folder / "tokenizer.json").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"{folder / 'tokenizer.json'} cannot be read: {error}",
                field=FIELD,
                limit="a folder with tokenizer.json",
            ) from error
        tokenizer = cls(description, _eos_ids(folder))
        turn_end = tokenizer._plain.token_to_id(_eos_name(folder))
        if turn_end is not None:
            tokenizer.eos_ids |= {turn_end}
        return tokenizer

    def _refuse_leaks(self) -> None:
        """Some tokenizers could build a special token out of its characters. The one for unknown
        characters is meant to be."""
        unknown = getattr(self._plain.model, "unk_token", None)
        steering = self.special_ids - {self._plain.token_to_id(unknown or "")}
        for text in self.special_texts:
            if not steering.isdisjoint(self.encode(text)):
                raise Unsupported(
                    f"ordinary text {text!r} becomes a special token of this tokenizer",
                    field=FIELD,
                    limit="a tokenizer that can tell text from special tokens",
                )

    def encode(self, text: str) -> TokenIds:
        """Ids of `text`; the name of a special token is text like any other."""
        return _ids(self._plain, text)

    def encode_template(self, text: str) -> TokenIds:
        """Ids of text that the chat template wrote: names of special tokens become the tokens."""
        return _ids(self._template, text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`. Special tokens have none; bytes that are no UTF-8 become U+FFFD."""
        return self._plain.decode(self.with_text(ids), skip_special_tokens=True)

    def with_text(self, ids: Sequence[int]) -> list[int]:
        """Without special tokens, and without ids that a padded model has and the tokenizer not."""
        return [id_ for id_ in ids if id_ < self.vocab_size and id_ not in self.special_ids]

    def bytes_of(self, id_: int) -> bytes:
        """What one token stands for; a character may be spread over several. Of a special token,
        its name."""
        return self._bytes.of(id_)

    def is_byte(self, id_: int) -> bool:
        """Whether the token stands for one raw byte, to be joined with its neighbours."""
        return id_ in self._byte_ids


def _ids(tokenizer: tokenizers.Tokenizer, text: str) -> TokenIds:
    """Raises InvalidArgument for half a surrogate pair, which JSON can smuggle into a string."""
    try:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    except TypeError:
        raise InvalidArgument(
            "the text holds half of a surrogate pair, which is no character",
            field="text",
            limit="text that can be written as UTF-8",
        ) from None


def _load(description: str) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_str(description)
    except Exception as error:  # the Rust library raises no narrower class
        raise InvalidArgument(
            f"tokenizer.json is malformed: {error}",
            field=FIELD,
            limit="the format of the tokenizers library",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _eos_ids(folder: Path) -> frozenset[int]:
    """One id, a list of ids (Llama 3 has three), or none, in the first file that says."""
    for name in ("generation_config.json", "config.json"):
        found = json_object(folder / name).get("eos_token_id")
        if found is not None:
            ids = found if isinstance(found, list) else [found]
            if not all(isinstance(id_, int) and id_ >= 0 for id_ in ids):
                raise InvalidArgument(
                    f"{folder / name} says eos_token_id = {found!r}",
                    field=FIELD,
                    limit="eos_token_id is a token id or a list of them",
                )
            return frozenset(ids)
    return frozenset()


def _eos_name(folder: Path) -> str:
    """The eos_token of tokenizer_config.json, or nothing: a turn may end with a token that the base
    model's configuration does not know."""
    found = json_object(folder / "tokenizer_config.json").get("eos_token")
    text = found.get("content") if isinstance(found, dict) else found
    return text if isinstance(text, str) else ""


def json_object(path: Path) -> Mapping[str, Any]:
    """The file's JSON object; empty when there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"{path} cannot be read as JSON: {error}", field=FIELD, limit="UTF-8 JSON"
        ) from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"{path} holds no JSON object", field=FIELD, limit="a JSON object")
    return content
