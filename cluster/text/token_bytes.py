"""The bytes that one token stands for, where decoding speaks of whole texts.

A character may be spread over tokens, so a token alone has bytes and not always text. Byte-level
tokenizers name a token by one character for each byte; the others by its text, with ▁ for a blank,
and a few by a byte, <0xE2>.
"""

from __future__ import annotations

import json

import tokenizers

_BLANK = "▁"


class TokenBytes:
    """Of one tokenizer."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = {
            id_: token.content.encode()
            for id_, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._is_byte_level = _has_byte_level(tokenizer)

    def of(self, id_: int) -> bytes:
        """Empty for an id that has no name: a padded model has some. Of a special token, its
        name."""
        if id_ in self._added:
            return self._added[id_]
        name = self._tokenizer.id_to_token(id_)
        if name is None:
            return b""
        if self._is_byte_level:
            return b"".join(_BYTES.get(character, character.encode()) for character in name)
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes.fromhex(name[3:5])
        return name.replace(_BLANK, " ").encode()


def _has_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    if tokenizer.decoder is None:
        return False
    decoder = json.loads(tokenizer.decoder.__getstate__())
    return any(one["type"] == "ByteLevel" for one in (decoder, *decoder.get("decoders", ())))


def _byte_names() -> dict[str, bytes]:
    """GPT-2's: a byte that is a visible character of Latin-1 is named by it, the others, in order,
    by the characters from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    names = {chr(byte): bytes([byte]) for byte in visible}
    hidden = (byte for byte in range(256) if byte not in visible)
    return names | {chr(0x100 + i): bytes([byte]) for i, byte in enumerate(hidden)}


_BYTES = _byte_names()
