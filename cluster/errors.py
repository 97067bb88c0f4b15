"""Everything that can go wrong, as one tree::

ThothError
├── Refused               the caller's fault: the same call will fail again
│   ├── InvalidArgument   a field is malformed or out of its range
│   ├── NotFound          the named thing does not exist
│   ├── Unauthenticated   no key, or a wrong one
│   ├── PermissionDenied  a good key, or none, that may not do this
│   ├── TooLarge          a field is longer than its limit
│   └── Unsupported       understood, and not offered
├── Unavailable           try again after `retry_after_s`
│   ├── Overloaded        a bounded queue is full
│   ├── Starting          a part of the cluster is not up yet, or is being restarted
│   └── DeadlineExceeded  the time the caller gave has passed
├── Lost                  a peer or its data is gone: compute it again
└── InvariantBroken       our fault: the actor that raises it dies and is restarted
"""

from __future__ import annotations

from typing import ClassVar


class ThothError(Exception):
    """The root. `field` is spelled as the caller spelled it; `limit` says in words what was passed.

    `reason` is the class's name in upper snake case, the same on every wire; `code` is the
    canonical gRPC code; `retriable` says whether the same call, made again, may succeed.
    """

    reason: ClassVar[str] = "THOTH_ERROR"
    code: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init_subclass__(cls) -> None:
        name = cls.__name__
        cls.reason = "".join(
            f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)
        ).upper()

    def __init__(self, message: str, *, field: str = "", limit: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.limit = limit
        # Filled in where the error meets a request that has a name.
        self.request_id = ""


class Refused(ThothError):
    """The caller's fault: the same call will fail again."""

    code = "FAILED_PRECONDITION"


class InvalidArgument(Refused):
    """A field is malformed or out of its range."""

    code = "INVALID_ARGUMENT"


class NotFound(Refused):
    """The named thing does not exist."""

    code = "NOT_FOUND"


class Unauthenticated(Refused):
    """No key, or a wrong one."""

    code = "UNAUTHENTICATED"


class PermissionDenied(Refused):
    """A good key, or none, that may not do this."""

    code = "PERMISSION_DENIED"


class TooLarge(Refused):
    """A field is longer than its limit."""

    code = "INVALID_ARGUMENT"


class Unsupported(Refused):
    """Understood, and not offered."""

    code = "UNIMPLEMENTED"


class Unavailable(ThothError):
    """Try again after `retry_after_s` seconds."""

    code = "UNAVAILABLE"
    retriable = True

    retry_after_s: float

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, field: str = "", limit: str = ""
    ) -> None:
        super().__init__(message, field=field, limit=limit)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A bounded queue is full."""

    code = "RESOURCE_EXHAUSTED"


class Starting(Unavailable):
    """A part of the cluster is not up yet, or is being restarted."""


class DeadlineExceeded(Unavailable):
    """The time the caller gave has passed."""

    code = "DEADLINE_EXCEEDED"
    retriable = False


class Lost(ThothError):
    """A peer or its data is gone: compute it again."""

    code = "ABORTED"
    retriable = True


class InvariantBroken(ThothError):
    """Our fault: carries the story of what was broken; the actor dies and is restarted."""
