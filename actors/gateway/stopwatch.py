"""Where the time of one answer goes, as its gateway sees it."""

from __future__ import annotations

from cluster.clock import Clock
from cluster.request import Timings
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics


class Stopwatch:
    """Starts when it is made: when the call was found valid."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._first_token = metrics.histogram(catalogue.TIME_TO_FIRST_TOKEN_SECONDS)
        self._between_tokens = metrics.histogram(catalogue.INTER_TOKEN_LATENCY_SECONDS)
        self.began_s = clock.now_s()
        self.retrieval_s = 0.0
        self._first_token_s = 0.0
        self._last_token_at_s: float | None = None

    def retrieved(self) -> None:
        self.retrieval_s = self._clock.now_s() - self.began_s

    def generated(self, num_tokens: int) -> None:
        """Tokens that arrive together came evenly since the last ones."""
        now_s = self._clock.now_s()
        if self._last_token_at_s is None:
            self._first_token_s = now_s - self.began_s
            self._first_token.observe(self._first_token_s)
        elif num_tokens:
            gap_s = (now_s - self._last_token_at_s) / num_tokens
            for _ in range(num_tokens):
                self._between_tokens.observe(gap_s)
        self._last_token_at_s = now_s

    def timings(self, queue_s: float, prefill_s: float) -> Timings:
        """All parts; the two given are the worker's to know."""
        return Timings(
            queue_s=queue_s,
            retrieval_s=self.retrieval_s,
            prefill_s=prefill_s,
            time_to_first_token_s=self._first_token_s,
            total_s=self._clock.now_s() - self.began_s,
        )
