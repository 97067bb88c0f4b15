"""One of the answers to a call while it is being written: ids in, text that may be shown out."""

from __future__ import annotations

from actors.gateway.generation import Ended, Generation, Tokens
from actors.gateway.transcript import Transcript
from cluster.request import ChatCall, FinishReason, TokenLogprobs
from cluster.text.tokenizer import Tokenizer
from cluster.wire.answers import Delta, TokenLogprob


class Draft:
    """`finish_reason` is None until the answer is whole; then there is nothing more to take."""

    def __init__(self, generation: Generation, call: ChatCall, tokenizer: Tokenizer) -> None:
        self.generation = generation
        self.choice = generation.request.sampling.choice
        self.finish_reason: FinishReason | None = None
        self._tokenizer = tokenizer
        self._transcript = Transcript(tokenizer, call.stop, call.sampling.stop_ids)
        # Of tokens whose text is held back, as half a character is.
        self._unshown: list[TokenLogprob] = []

    def take(self, event: Tokens | Ended) -> Delta | None:
        """The text that the event releases, if any."""
        if isinstance(event, Ended):
            return self._end(event)
        delta = self._push_each(event) if event.logprobs else self._push(event)
        if self._transcript.is_stopped:
            self.finish_reason = FinishReason.STOP
        return delta if delta.text else None

    def _end(self, end: Ended) -> Delta | None:
        text = self._transcript.flush()
        is_stopped = self._transcript.is_stopped
        self.finish_reason = FinishReason.STOP if is_stopped else end.finish_reason
        shown = tuple(self._unshown)
        return Delta(text, self.choice, shown) if text or shown else None

    def _push(self, tokens: Tokens) -> Delta:
        return Delta(self._transcript.push(tokens.ids), self.choice)

    def _push_each(self, tokens: Tokens) -> Delta:
        """A token is shown with the text that it completes; one that is only part of a stop string
        never is."""
        text, shown = "", list[TokenLogprob]()
        for token_id, logprobs in zip(tokens.ids, tokens.logprobs, strict=True):
            self._unshown.append(self._named(token_id, logprobs))
            if piece := self._transcript.push((token_id,)):
                text += piece
                shown += self._unshown
                self._unshown.clear()
            if self._transcript.is_stopped:
                break
        return Delta(text, self.choice, tuple(shown))

    def _named(self, token_id: int, logprobs: TokenLogprobs) -> TokenLogprob:
        bytes_of = self._tokenizer.bytes_of
        top = tuple(TokenLogprob(other, bytes_of(other), its) for other, its in logprobs.top)
        return TokenLogprob(token_id, bytes_of(token_id), logprobs.logprob, top)
