"""Values of a JSON object that somebody else wrote, each read with its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import InvalidArgument, Unsupported

FIELD = "model.source"

# No size of a model comes near; a damaged one must not be allocated.
LARGEST = 2**24


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of `config.json`. Null and absent are the same; what is neither and does not fit
    raises InvalidArgument."""

    raw: Mapping[str, Any]

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise invalid(name, value, f"{name} is {least} to {LARGEST}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise invalid(name, value, f"{name} is above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise invalid(name, value, f"{name} is true or false")
        return value

    def positives(self, name: str, length: int) -> tuple[float, ...]:
        """A list of `length` numbers above 0."""
        value = self._value(name, None)
        if not isinstance(value, list) or len(value) != length:
            raise invalid(name, value, f"{name} is a list of {length} numbers")
        return tuple(Fields({name: item}).positive(name) for item in value)

    def part(self, name: str) -> Fields | None:
        """The object called `name`, or None."""
        value = self._value(name, None)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise invalid(name, value, "a JSON object")
        return Fields(value)

    def require(self, name: str, expected: object) -> None:
        """Raises Unsupported where the object says something else, not where it says nothing."""
        value = self._value(name, None)
        if value is not None and value != expected:
            raise unsupported(name, value, f"{name} is {expected!r}")

    def _value(self, name: str, default: object) -> Any:
        found = self.raw.get(name)
        return default if found is None else found


def invalid(name: str, value: object, limit: str) -> InvalidArgument:
    return InvalidArgument(f"config.json says {name} = {value!r}", field=FIELD, limit=limit)


def unsupported(name: str, value: object, limit: str) -> Unsupported:
    return Unsupported(
        f"config.json says {name} = {value!r}, which is not computed here", field=FIELD, limit=limit
    )
