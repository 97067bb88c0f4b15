"""What was measured once, remembered in a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import InvalidArgument

log = logging.getLogger(__name__)

Known = TypeVar("Known")


def remembered(
    note: Path | None,
    measure: Callable[[], Known],
    write: Callable[[Known], Mapping[str, object]],
    read: Callable[[Mapping[str, Any]], Known],
) -> Known:
    """As the note says, or measured now, and written down. None: nothing is remembered. What cannot
    be understood is measured again, and a folder that cannot be written only costs time."""
    known = None if note is None else _read(note, read)
    if known is not None:
        return known
    measured = measure()
    if note is not None:
        _write(note, write(measured))
    return measured


def note_in(folder: Path | None, name: str) -> Path | None:
    """A note holds for the version that measured it."""
    return None if folder is None else folder / f"{name}-{version('thoth-cluster')}.json"


def _read(note: Path, read: Callable[[Mapping[str, Any]], Known]) -> Known | None:
    try:
        return read(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, InvalidArgument):
        return None


def _write(note: Path, content: Mapping[str, object]) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(".draft")
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(note)
    except OSError as error:
        log.info("the profile cannot be remembered: %s", error)
