"""Where the time of one answer goes, as its gateway sees it."""

from __future__ import annotations

from actors.gateway.generation import FirstToken, Tokens
from cluster.clock import Clock
from cluster.request import CachedTokens, Timings
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics


class Stopwatch:
    """Starts when it is made: when the call was found valid."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._time_to_first_token = metrics.histogram(catalogue.TIME_TO_FIRST_TOKEN_SECONDS)
        self._between_tokens = metrics.histogram(catalogue.INTER_TOKEN_LATENCY_SECONDS)
        self.began_s = clock.now_s()
        self.retrieval_s = 0.0
        self._time_to_first_token_s = 0.0
        self._first = FirstToken(queue_s=0.0, prefill_s=0.0)
        self._last_token_at_s: dict[int, float] = {}

    def retrieved(self) -> None:
        self.retrieval_s = self._clock.now_s() - self.began_s

    def generated(self, tokens: Tokens, choice: int = 0) -> None:
        """Tokens that arrive together came evenly since the last ones of their choice."""
        now_s = self._clock.now_s()
        if not self._last_token_at_s:
            self._first = tokens.first or self._first
            self._time_to_first_token_s = now_s - self.began_s
            self._time_to_first_token.observe(self._time_to_first_token_s)
        elif tokens.ids and choice in self._last_token_at_s:
            gap_s = (now_s - self._last_token_at_s[choice]) / len(tokens.ids)
            for _ in tokens.ids:
                self._between_tokens.observe(gap_s)
        self._last_token_at_s[choice] = now_s

    @property
    def cached(self) -> CachedTokens:
        """Of the prompt; as the worker says that gave the first token."""
        return self._first.cached

    def timings(self) -> Timings:
        """All parts; queue and prefill are those of the worker that gave the first token."""
        return Timings(
            queue_s=self._first.queue_s,
            retrieval_s=self.retrieval_s,
            prefill_s=self._first.prefill_s,
            time_to_first_token_s=self._time_to_first_token_s,
            total_s=self._clock.now_s() - self.began_s,
        )
