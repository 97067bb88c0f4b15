"""Where clients come to an attention worker of their host: a unix socket.

A client stays connected for as long as it wants to be served, and its end, whatever its kind, ends
the connection too. What it had in memory is kept for a while: whoever comes next under its name may
claim it, and finds its documents there.

    enter --served--> the line breaks --kept--> reclaimed under its name, or let go of after a while
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cluster.attention.descriptors import (
    Claim,
    Offer,
    answer,
    claim,
    hand_over,
    offer,
    peer_pidfd,
    receive,
)
from cluster.attention.kept import KeptMemories
from cluster.attention.server import AttentionServer
from cluster.attention.shared_kv import SharedKv, read_only
from cluster.attention.shared_memory import ChannelSizes, SharedMemoryPort
from cluster.clock import Clock
from cluster.errors import InvalidArgument, Lost, ThothError

# Everybody else waits meanwhile.
_MOST_PATIENCE_S = 2.0
_QUEUE = 16
_KEEP_S = 60.0


def enter(
    path: Path,
    sizes: ChannelSizes,
    kv: SharedKv,
    kv_memory: int,
    *,
    owner: str = "",
    timeout_s: float,
) -> SharedMemoryPort:
    """A port to the worker behind this door. `kv_memory` is the descriptor of what `kv` describes,
    and stays the caller's; it is kept for the `owner`, if one is named. Raises Lost when nobody is
    there, Refused when the worker does not want it."""
    line = _line(path, timeout_s)
    try:
        port = _port(line, sizes, timeout_s)
    except ThothError:
        line.close()
        raise
    try:
        offer(line, Offer(port.ends, kv, kv_memory, owner))
    except ThothError:
        port.close()
        raise
    return port


def reclaim(path: Path, owner: str, *, timeout_s: float) -> int | None:
    """The descriptor of the memory that the worker behind this door has kept for the owner since it
    left; the caller's from now on, and kept no more. None where there is none, as long as the one
    before is still connected too. Raises Lost when nobody is there."""
    with _line(path, timeout_s) as line:
        return claim(line, owner)


def _line(path: Path, timeout_s: float) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(timeout_s)
        with _short(path) as short:
            line.connect(short)
    except OSError as error:
        line.close()
        raise Lost(f"no attention worker at {path}: {error}") from error
    return line


def _port(line: socket.socket, sizes: ChannelSizes, timeout_s: float) -> SharedMemoryPort:
    peer = peer_pidfd(line)
    try:
        return SharedMemoryPort(sizes, peer, line, timeout_s=timeout_s)
    finally:
        os.close(peer)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another name of the same place: a socket's has 107 bytes at most, wherever its folder is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@dataclass(slots=True)
class _Client:
    """`memory` is a descriptor of what is kept for the owner; None without one."""

    channel: int
    owner: str
    memory: int | None


class Door:
    """Listens at `path`, which must not exist, from its creation on. What clients leave is kept for
    `keep_s`. Raises OSError."""

    def __init__(
        self, path: Path, server: AttentionServer, clock: Clock, *, keep_s: float = _KEEP_S
    ) -> None:
        self._server = server
        self._path = path
        self._kept = KeptMemories(clock, keep_s)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(path) as short:
            self._listener.bind(short)
        self._listener.listen(_QUEUE)
        self._listener.setblocking(False)
        # By the lines over which they came.
        self._clients: dict[socket.socket, _Client] = {}

    @property
    def num_clients(self) -> int:
        return len(self._clients)

    def run(self) -> None:
        """Lets clients in and out until `stop`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(self._kept.patience_s)]
                self._kept.forget_old()
                if self._stop in ready:
                    return
                # Who has left is let out first: what it left may be what the next one asks for.
                for each in ready:
                    if isinstance(each, socket.socket) and each is not self._listener:
                        selector.unregister(each)
                        self._let_out(each)
                if self._listener in ready:
                    self._let_in(selector)

    def stop(self) -> None:
        """From any thread; `run` returns."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """After `run` has returned. Nobody is served any more, and nothing is kept."""
        for line in list(self._clients):
            self._let_out(line)
        self._kept.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        os.close(self._stop)

    def _let_in(self, selector: selectors.BaseSelector) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        line.settimeout(_MOST_PATIENCE_S)
        try:
            if self._heard(line):
                selector.register(line, selectors.EVENT_READ)
            else:
                line.close()
        except Lost:
            self._let_out(line)

    def _heard(self, line: socket.socket) -> bool:
        """Whether the client stays. Raises Lost when it has gone, or was refused."""
        try:
            with closing(receive(line)) as received:
                match received:
                    case Claim(owner):
                        self._hand_over(line, owner)
                        return False
                    case Offer():
                        self._serve(line, received)
        except Lost:
            raise
        except ThothError as error:
            answer(line, refused=error.message)
            raise Lost(error.message) from error
        answer(line)
        return True

    def _serve(self, line: socket.socket, offered: Offer) -> None:
        channel = self._server.add(offered.ends, *views(offered))
        memory = os.dup(offered.kv_memory) if offered.owner else None
        self._clients[line] = _Client(channel, offered.owner, memory)
        self._kept.forget(offered.owner)

    def _hand_over(self, line: socket.socket, owner: str) -> None:
        """Two who write to one memory destroy it: as long as the one lives, the other gets none."""
        is_there = any(client.owner == owner for client in self._clients.values())
        hand_over(line, None if is_there else self._kept.of(owner))
        self._kept.forget(owner)

    def _let_out(self, line: socket.socket) -> None:
        """Its last word is that it goes, whatever it says."""
        client = self._clients.pop(line, None)
        line.close()
        if client is None:
            return
        self._server.remove(client.channel)
        if client.memory is not None:
            self._kept.keep(client.owner, client.memory)


def views(offered: Offer) -> tuple[list[Tensor], list[Tensor]]:
    """k and v of each layer of the client, layer by layer."""
    try:
        memory = read_only(offered.kv_memory, offered.kv.num_bytes)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the memory cannot be mapped: {error}", field="kv") from error
    return offered.kv.views(memory)
