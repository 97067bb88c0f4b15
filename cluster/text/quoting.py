"""Keeping what people wrote apart from what the chat template wrote.

A rendering mixes both, and a message may hold the name of a special token. Before rendering every
such name is put between two marks, characters that occur in no message; afterwards what stands
between the marks is encoded as ordinary text, and the rest as the template's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from cluster.errors import InvalidArgument
from cluster.request import Message, TokenIds
from cluster.text.tokenizer import Tokenizer

# Unicode noncharacters: no text is meant to hold them, so they are free to serve as marks.
_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


def free_characters(messages: Sequence[Message], count: int) -> tuple[str, ...]:
    """Characters that no message contains. Raises InvalidArgument when there are too few."""
    used = frozenset().union(*(message.content for message in messages))
    free = tuple(c for c in _NONCHARACTERS if c not in used)
    if len(free) < count:
        most = len(_NONCHARACTERS) - count
        raise InvalidArgument(
            f"the messages use {len(_NONCHARACTERS) - len(free)} different Unicode noncharacters "
            f"of U+FDD0 to U+FDEF, more than {most}",
            field="messages",
            limit=f"at most {most} different noncharacters",
        )
    return free[:count]


class Quoting:
    """The marks of one rendering."""

    def __init__(self, tokenizer: Tokenizer, opening: str, closing: str) -> None:
        self._tokenizer = tokenizer
        self._opening, self._closing = opening, closing
        longest_first = sorted(tokenizer.special_texts, key=len, reverse=True)
        # A tokenizer without special tokens gets a pattern that matches nothing.
        names = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._name = re.compile(names)
        # A mark that lost its partner, as when a template shortens a message, only separates.
        self._quoted = re.compile(f"{opening}({names}){closing}|[{opening}{closing}]")

    def quote(self, message: Message) -> Message:
        """The message with every name of a special token between the marks."""
        quoted = self._name.sub(rf"{self._opening}\g<0>{self._closing}", message.content)
        return replace(message, content=quoted)

    def encode(self, rendered: str) -> TokenIds:
        """Ids of a rendering of quoted messages."""
        ids: list[int] = []
        # Splitting leaves template text at even places and a name, or None, between.
        for place, piece in enumerate(self._quoted.split(rendered)):
            if piece:
                encode = self._tokenizer.encode if place % 2 else self._tokenizer.encode_template
                ids.extend(encode(piece))
        return tuple(ids)
