"""Every answer is counted once, by how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.errors import Refused, ThothError, Unavailable
from cluster.ids import RequestId
from cluster.request import FinishReason
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics


@dataclass(slots=True)
class Outcome:
    """`finish_reason` is set when the answer came to an end of its own."""

    finish_reason: FinishReason | None = None


class Outcomes:
    """Counts `requests_total`."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.counter(catalogue.REQUESTS)

    @contextmanager
    def counted(self, request_id: RequestId) -> Iterator[Outcome]:
        """Around one answer. An error that leaves the block carries the id of the request."""
        outcome, label = Outcome(), "failed"
        try:
            yield outcome
        except ThothError as error:
            error.request_id = request_id
            label = _label(error)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            # The caller left. After the last event that is no cancellation.
            label = str(outcome.finish_reason or FinishReason.CANCELLED)
            raise
        else:
            label = str(outcome.finish_reason or FinishReason.CANCELLED)
        finally:
            self._requests.labels(label).inc()


def _label(error: ThothError) -> str:
    match error:
        case Refused():
            return "refused"
        case Unavailable():
            return "unavailable"
        case _:
            return "failed"
