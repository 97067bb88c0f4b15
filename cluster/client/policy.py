"""How a client behaves over time: deadlines, retries and what it says about itself in metadata.

Pure: the clock and the dice are handed in, and whoever calls does the sleeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc

from cluster.clock import Clock
from cluster.errors import DeadlineExceeded, InvalidArgument, ThothError, Unavailable
from cluster.wire.serving import MESSAGE_OPTIONS
from cluster.wire.status import DETAILS_KEY, from_rpc_error

DEFAULT_ENDPOINT = "127.0.0.1:9000"
DEFAULT_TIMEOUT_S = 300.0
GRACE_S = 1.0
# Serve's replicas do not see the deadline of a gRPC call.
TIMEOUT_KEY = "thoth-timeout-s"

# Retries are ours alone, and a connection that failed is tried again as soon as a retry asks.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client speaks to, and with which key."""

    endpoint: str
    api_key: str | None

    def __post_init__(self) -> None:
        host, colon, port = self.endpoint.rpartition(":")
        if not host or not colon or not port.isdecimal() or "/" in self.endpoint:
            raise InvalidArgument(
                f"endpoint is {self.endpoint!r}, not host:port (as in {DEFAULT_ENDPOINT})",
                field="endpoint",
            )

    @classmethod
    def of(cls, endpoint: str | None, api_key: str | None, environ: Mapping[str, str]) -> Target:
        """What is not given is taken from the variables, then from the defaults."""
        return cls(
            endpoint or environ.get("THOTH_ENDPOINT") or DEFAULT_ENDPOINT,
            api_key or environ.get("THOTH_API_KEY") or None,
        )

    def metadata(self, timeout_s: float) -> Metadata:
        """What goes with every call."""
        budget = (TIMEOUT_KEY, f"{timeout_s:.3f}")
        if self.api_key is None:
            return (budget,)
        return (budget, ("authorization", f"Bearer {self.api_key}"))

    def explain(self, error: grpc.RpcError) -> ThothError:
        """The typed error. A gateway that cannot be reached is named by its endpoint."""
        said_by_server = any(pair[0] == DETAILS_KEY for pair in _pairs(error))
        if error.code() is grpc.StatusCode.UNAVAILABLE and not said_by_server:
            return Unavailable(
                f"no answer from {self.endpoint}: {error.details()}", retry_after_s=0.1
            )
        return from_rpc_error(error)


def _pairs(error: grpc.RpcError) -> Iterable[Any]:
    return error.trailing_metadata() or ()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential pauses with full jitter: try n waits `uniform(0, min(max, first * 2^n))` seconds
    on top of the server's retry-after."""

    max_tries: int = 5
    first_pause_s: float = 0.1
    max_pause_s: float = 5.0


def transport_timeout_s(left_s: float) -> float:
    """The gateway keeps the deadline and says how the call ended by then; the transport waits a
    little longer for that word."""
    return left_s + GRACE_S


class Attempts:
    """The tries of one call, bounded by its deadline."""

    def __init__(self, policy: RetryPolicy, timeout_s: float, clock: Clock, random: Random) -> None:
        self._policy = policy
        self._clock = clock
        self._random = random
        self._timeout_s = timeout_s
        self._deadline_s = clock.now_s() + timeout_s
        self._num_failures = 0

    def remaining_s(self) -> float:
        """What is left of the deadline. Raises DeadlineExceeded when nothing is."""
        left_s = self._deadline_s - self._clock.now_s()
        if left_s <= 0:
            raise DeadlineExceeded(
                f"no answer within {self._timeout_s:g} s",
                field="timeout_s",
                limit=f"{self._timeout_s:g} s",
            )
        return left_s

    def pause_s(self, error: ThothError) -> float:
        """How long to wait before the next try. Raises `error` when another try is no use."""
        self._num_failures += 1
        if not error.retriable or self._num_failures >= self._policy.max_tries:
            raise error
        grown_s = self._policy.first_pause_s * 2 ** (self._num_failures - 1)
        jitter_s = self._random.uniform(0.0, min(self._policy.max_pause_s, grown_s))
        pause_s = (error.retry_after_s or 0.0) + jitter_s
        if pause_s >= self._deadline_s - self._clock.now_s():
            raise error
        return pause_s


def checked_timeout_s(timeout_s: float) -> float:
    """Raises InvalidArgument unless it is a positive finite number."""
    if not 0 < timeout_s < float("inf"):
        raise InvalidArgument(
            f"timeout_s is {timeout_s!r}, not a positive number of seconds",
            field="timeout_s",
            limit="more than 0 s",
        )
    return timeout_s
