"""How a client makes a request: fields that may be absent, and refusals that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message as ProtobufMessage

from cluster.errors import InvalidArgument

Reply = TypeVar("Reply")
ReplyMessage = TypeVar("ReplyMessage", bound=ProtobufMessage)


@dataclass(frozen=True, slots=True)
class Call(Generic[Reply]):
    """A method, the bytes of its request, and how to read one message of its reply."""

    method: str
    request: bytes
    read: Callable[[bytes], Reply]


def make_call(
    method: str,
    request: ProtobufMessage,
    reply: type[ReplyMessage],
    read: Callable[[ReplyMessage], Reply],
) -> Call[Reply]:
    return Call(method, request.SerializeToString(), lambda data: read(reply.FromString(data)))


def put(message: ProtobufMessage, name: str, value: object, field: str = "") -> None:
    """Sets a field unless the value is None: absent stays absent."""
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise _unfit(error, field or name, value) from None


def extend(message: ProtobufMessage, name: str, values: Sequence[str] | Sequence[int]) -> None:
    if isinstance(values, str):
        raise InvalidArgument(f"{name} is a list, not one string", field=name)
    for i, value in enumerate(values):
        try:
            getattr(message, name).append(value)
        except (TypeError, ValueError) as error:
            raise _unfit(error, f"{name}[{i}]", value) from None


def put_pairs(place: object, pairs: Mapping[Any, object], field: str) -> None:
    for key, value in pairs.items():
        try:
            place[key] = value  # type: ignore[index]
        except (TypeError, ValueError) as error:
            raise _unfit(error, f"{field}[{key!r}]", value) from None


def _unfit(error: TypeError | ValueError, field: str, value: object) -> InvalidArgument:
    """What protobuf would not take, without repeating a whole document."""
    if isinstance(error, UnicodeError):
        return InvalidArgument(f"{field} is not valid Unicode: {error}", field=field)
    said = repr(value)
    shown = said if len(said) <= 60 else f"{said[:57]}..."
    return InvalidArgument(f"{field} is {shown}: {error}", field=field)
