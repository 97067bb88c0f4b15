"""From ids to text that may be shown: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from cluster.request import TokenIds
from cluster.text.detokenizer import Detokenizer
from cluster.text.stop import StopMatcher
from cluster.text.tokenizer import Tokenizer


class Transcript:
    """Text of one answer. Half a character, or what may begin a stop string, is held back."""

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...], stop_ids: frozenset[int]
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._matcher = StopMatcher(stop)
        self._silent = tokenizer.eos_ids | stop_ids
        self.is_stopped = False

    def push(self, ids: TokenIds) -> str:
        """The text that these ids release. After a stop string, `is_stopped`, nothing follows."""
        return self._match(self._detokenizer.push([i for i in ids if i not in self._silent]))

    def flush(self) -> str:
        """What was held back, when nothing follows any more."""
        if self.is_stopped:
            return ""
        text = self._match(self._detokenizer.flush())
        return text if self.is_stopped else text + self._matcher.flush()

    def _match(self, text: str) -> str:
        result = self._matcher.push(text)
        self.is_stopped = result.stopped
        return result.text
