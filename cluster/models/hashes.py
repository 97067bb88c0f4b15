"""SHA-256 of large files, remembered while a file is what it was.

A file counts as unchanged while path, inode, size, time of change and time of last write are the
same. The time of change is the kernel's own and cannot be set back. A file that was written in the
last moments is not remembered: another write in the same tick of the clock would not show.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_SETTLED_S = 2.0


@dataclass(frozen=True, slots=True)
class RememberedHashes:
    """Keeps one small JSON file in `folder` for every file that was hashed."""

    folder: Path

    def sha256(self, file: Path) -> str:
        """64 hexadecimal digits. Raises OSError when the file cannot be read."""
        path = file.resolve()
        before = path.stat()
        seen = _seen(path, before)
        note = self.folder / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
        remembered = _read(note)
        if remembered is not None and remembered.get("file") == seen:
            return str(remembered["sha256"])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        is_settled = time.time() - max(before.st_mtime, before.st_ctime) > _SETTLED_S
        if is_settled and _seen(path, path.stat()) == seen:
            self._write(note, {"file": seen, "sha256": digest})
        return digest

    def _write(self, note: Path, content: object) -> None:
        """Whole or not at all. A folder that cannot be written only costs time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            Path(draft).replace(note)
        except OSError as error:
            log.info("hashes cannot be remembered: %s", error)


def _seen(path: Path, stat: os.stat_result) -> dict[str, object]:
    return {
        "path": str(path),
        "inode": stat.st_ino,
        "size": stat.st_size,
        "changed_ns": stat.st_ctime_ns,
        "written_ns": stat.st_mtime_ns,
    }


def _read(note: Path) -> dict[str, object] | None:
    """None where there is no note, or none that can be understood."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "sha256" in content else None
