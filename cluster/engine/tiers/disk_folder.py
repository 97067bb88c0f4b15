"""The folder of a disk tier: which file is a node's, and how one comes to be there all at once.

folder/lock                                held by the one process that uses the folder
folder/<fingerprint>/<2 digits>/<key>.kv   a node
folder/<fingerprint>/<2 digits>/<key>.tmp  one that is being written, or never was to its end
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cluster.errors import Unavailable
from cluster.knowledge.keys import KEY_BYTES, NodeKey

_FILE = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\.(kv|tmp)")


class DiskFolder:
    """What lies in it is for the owner's eyes only. Every method may raise OSError."""

    def __init__(self, folder: Path, fingerprint: bytes) -> None:
        """Raises Unavailable when the folder cannot be used, or another process uses it."""
        self._nodes = folder / fingerprint.hex()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be a cache: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._nodes.mkdir(mode=0o700, exist_ok=True)
        except BlockingIOError:
            os.close(self._lock)
            raise Unavailable(f"another process has its cache in {folder}") from None
        except OSError as error:
            os.close(self._lock)
            raise Unavailable(f"{folder} cannot be a cache: {error}") from error

    def path(self, key: NodeKey) -> Path:
        name = key.hex()
        return self._nodes / name[:2] / f"{name}.kv"

    def write(self, key: NodeKey, parts: Iterable[bytes | memoryview]) -> None:
        """The parts become the node's file whole, or not at all, whatever happens meanwhile."""
        path = self.path(key)
        temporary = path.with_suffix(".tmp")
        self._make(path.parent)
        try:
            with open(temporary, "wb", opener=_private) as stream:
                for part in parts:
                    stream.write(part)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync(path.parent)

    def _make(self, folder: Path) -> None:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _sync(self._nodes)

    def delete(self, key: NodeKey) -> None:
        self.path(key).unlink(missing_ok=True)

    def files(self) -> Iterator[Path]:
        """Nodes, and what is left of unfinished ones; nothing that somebody else put there."""
        for folder in self._nodes.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                yield from (path for path in folder.iterdir() if _is_ours(path))

    def close(self) -> None:
        """Another process may use the folder from now on."""
        os.close(self._lock)


def _is_ours(path: Path) -> bool:
    is_named = _FILE.fullmatch(path.name) and path.name[:2] == path.parent.name
    return bool(is_named) and path.is_file() and not path.is_symlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _sync(folder: Path) -> None:
    """A name in a folder is on disk when the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
