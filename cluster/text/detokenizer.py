"""Token ids that arrive one by one, turned into text that is never taken back.

Decoding is not a map over tokens: a character may be spread over several, and some decoders look at
a token's neighbours (SentencePiece drops the first blank, and reads a run of byte tokens as one).
So the text of a piece is found in a window that begins with older, finished tokens::

    ids      . . . . [ context ][ fresh ]
    window            decode(context + fresh) = known + new text
                      released of it: `known`, and what can no longer change

The window moves on when all of its text has been released.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.text.tokenizer import Tokenizer

# Stands for bytes that are no character, or not yet.
_REPLACEMENT = "�"


class Detokenizer:
    """The text of one answer. The pushed texts and the flushed one join to `decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._num_context = 0
        self._released = 0

    def push(self, ids: Sequence[int]) -> str:
        """Takes the next ids; returns the text that is now certain, possibly none."""
        self._window.extend(self._tokenizer.with_text(ids))
        if not self._window or self._tokenizer.is_byte(self._window[-1]):
            return ""
        text = self._tokenizer.decode(self._window)
        # Of an unfinished character the decoder makes one replacement, and more bytes may heal it.
        new = self._release(text.removesuffix(_REPLACEMENT))
        if self._released == len(text):
            self._move_window()
        return new

    def flush(self) -> str:
        """The rest, when no more ids will come."""
        return self._release(self._tokenizer.decode(self._window))

    def _release(self, certain: str) -> str:
        new = certain[self._released :]
        self._released += len(new)
        return new

    def _move_window(self) -> None:
        """Keeps the last piece as context, if it has text of its own to show where it ends."""
        fresh = self._window[self._num_context :]
        context_text = self._tokenizer.decode(fresh)
        if context_text:
            self._window = fresh
            self._released = len(context_text)
        self._num_context = len(self._window)
