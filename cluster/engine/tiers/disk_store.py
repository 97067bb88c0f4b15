"""Nodes on disk, written and read beside the steps by a thread of its own.

engine thread --submit--> mailbox --> disk thread --DiskDone--> completed
                                      |      ^
                                      arena blocks

A disk fails in many ways, and all mean the same here: the command was not done, and the next one
may be. A node that is not whole is never brought to the host.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.engine.tiers.disk_folder import DiskFolder
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.node_file import pack_header, read_header, read_payload
from cluster.engine.tiers.records import pack_record
from cluster.errors import InvariantBroken, Lost
from cluster.knowledge.commands import Delete, DiskCommand, DiskDone, Found, Read, Write
from cluster.knowledge.keys import NodeKey

log = logging.getLogger(__name__)


class DiskStore:
    """The folder's and the arena's layout are one. `submit`, `completed` and `close` are called by
    one thread; `notify`, which raises nothing, by the store's, after each `DiskDone`."""

    def __init__(self, folder: Path, arena: HostArena, notify: Callable[[], None]) -> None:
        """Raises Unavailable when the folder cannot be used, or another process uses it."""
        self._folder = DiskFolder(folder, arena.layout.fingerprint)
        self._arena = arena
        self._notify = notify
        self._mailbox: queue.SimpleQueue[DiskCommand | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[DiskDone] = queue.SimpleQueue()
        self._num_in_flight = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._live, name="disk", daemon=True)
        self._thread.start()

    def submit(self, commands: Iterable[DiskCommand]) -> None:
        """They are done in this order."""
        for command in commands:
            if self._is_closed:
                raise InvariantBroken("a command for a disk that was closed")
            self._num_in_flight += not isinstance(command, Delete)
            self._mailbox.put(command)

    def completed(self, timeout_s: float = 0.0) -> tuple[DiskDone, ...]:
        """What has ended since the last call, in order. Waits so long for the first, if there is
        one to come."""
        done: list[DiskDone] = []
        is_waiting = timeout_s > 0
        while self._num_in_flight:
            try:
                done.append(self._done.get(is_waiting and not done, timeout_s))
            except queue.Empty:
                break
            self._num_in_flight -= 1
        return tuple(done)

    def close(self, timeout_s: float = 10.0) -> None:
        """Does what was submitted, and gives the folder back. A disk that does not answer for so
        long is left to itself, and keeps the folder."""
        if self._is_closed:
            return
        self._is_closed = True
        self._mailbox.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("the disk did not finish within %.0f s", timeout_s)
        else:
            self._folder.close()

    def scan(self) -> list[Found]:
        """The nodes that lie there whole; payloads are verified when they are read. Everything else
        of ours is removed. To be called before the first command."""
        found, num_removed = [], 0
        try:
            for path in self._folder.files():
                node = self._look(path)
                if node is not None:
                    found.append(node)
                else:
                    num_removed += _remove(path)
        except OSError as error:
            log.warning("the scan of the disk ended early: %s", error)
        if num_removed:
            log.warning("%d files on disk were no whole nodes and were removed", num_removed)
        return found

    def _look(self, path: Path) -> Found | None:
        """None: the file is no whole node."""
        if path.suffix != ".kv":
            return None
        try:
            with path.open("rb") as stream:
                record, _ = read_header(stream, self._arena.layout)
        except (Lost, OSError):
            return None
        return Found(record) if self._folder.path(record.key) == path else None

    def _live(self) -> None:
        while (command := self._mailbox.get()) is not None:
            if isinstance(command, Delete):
                self._is_done(command, command.key)
                continue
            is_good = self._is_done(command, command.record.key)
            self._done.put(DiskDone(command.record.key, is_good))
            self._notify()

    def _is_done(self, command: DiskCommand, key: NodeKey) -> bool:
        verb = type(command).__name__.lower()
        try:
            self._do(command)
        except (OSError, Lost) as error:
            log.warning("the disk could not %s node %s: %s", verb, key.hex(), error)
            return False
        except Exception:
            # Somebody waits for an answer, whatever it is.
            log.exception("the disk could not %s node %s", verb, key.hex())
            return False
        return True

    def _do(self, command: DiskCommand) -> None:
        match command:
            case Write():
                self._write(command)
            case Read():
                self._read(command)
            case Delete(key):
                self._folder.delete(key)

    def _write(self, command: Write) -> None:
        record, blocks = command.record, command.host
        payload_sums = self._arena.verify(record.key, blocks)
        header = pack_header(self._arena.layout, record, payload_sums)
        self._folder.write(record.key, [header, *map(self._arena.payload, blocks)])

    def _read(self, command: Read) -> None:
        record, blocks = command.record, command.host
        with self._folder.path(record.key).open("rb") as stream:
            found, payload_sums = read_header(stream, self._arena.layout)
            if pack_record(found) != pack_record(record):
                raise Lost(f"the file of node {record.key.hex()} is another node's")
            with self._arena.writing((record, blocks)):
                for block, payload_sum in zip(blocks, payload_sums, strict=True):
                    read_payload(stream, self._arena.payload(block), payload_sum)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError as error:
        log.warning("%s is no whole node and stays: %s", path, error)
        return False
    return True
