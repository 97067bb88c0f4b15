"""The error tree is as drawn, and no class of it lacks a code."""

from __future__ import annotations

import inspect

from cluster import errors
from cluster.errors import ThothError
from cluster.wire.status import CODES

STEP = len("├── ")


def tree() -> dict[str, str]:
    """Class to its parent, as Python sees them."""
    classes = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, ThothError)
    ]
    return {each.__name__: each.__mro__[1].__name__ for each in classes if each is not ThothError}


def drawing() -> dict[str, str]:
    """Class to its parent, as the docstring of the module draws them."""
    found: dict[str, str] = {}
    branch: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        name = line.lstrip("│├└─ ").split(" ")[0]
        if not name or not line.startswith(("├", "│", "└", "ThothError")):
            continue
        depth = (len(line) - len(line.lstrip("│├└─ "))) // STEP
        branch[depth:] = [name]
        if depth:
            found[name] = branch[depth - 1]
    return found


def test_the_drawing_is_the_tree() -> None:
    assert drawing() == tree()


def test_every_error_has_a_row_of_codes() -> None:
    assert {kind.__name__ for kind in CODES} == tree().keys()


def test_the_sdk_and_the_wire_call_an_error_the_same() -> None:
    assert {kind.__name__: kind.code for kind in CODES} == {
        kind.__name__: code.grpc.name for kind, code in CODES.items()
    }
    assert len({kind.reason for kind in CODES}) == len(CODES)
