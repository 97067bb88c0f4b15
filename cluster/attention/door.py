"""Where clients come to an attention worker of their host: a unix socket.

A client stays connected for as long as it wants to be served, and its end, whatever its kind, ends
the connection too.
"""

from __future__ import annotations

import os
import selectors
import socket
from contextlib import closing
from pathlib import Path

from torch import Tensor

from cluster.attention.descriptors import Offer, answer, offer, peer_pidfd, receive
from cluster.attention.server import AttentionServer
from cluster.attention.shared_kv import SharedKv, read_only
from cluster.attention.shared_memory import ChannelSizes, SharedMemoryPort
from cluster.errors import InvalidArgument, Lost, ThothError

# Everybody else waits meanwhile.
_MOST_PATIENCE_S = 2.0
_QUEUE = 16


def enter(
    path: Path, sizes: ChannelSizes, kv: SharedKv, kv_memory: int, *, timeout_s: float
) -> SharedMemoryPort:
    """A port to the worker behind this door. `kv_memory` is the descriptor of what `kv` describes,
    and stays the caller's. Raises Lost when nobody is there, Refused when the worker does not want
    it."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(timeout_s)
        line.connect(str(path))
        port = _port(line, sizes, timeout_s)
    except OSError as error:
        line.close()
        raise Lost(f"no attention worker at {path}: {error}") from error
    except ThothError:
        line.close()
        raise
    try:
        offer(line, port.ends, kv, kv_memory)
    except ThothError:
        port.close()
        raise
    return port


def _port(line: socket.socket, sizes: ChannelSizes, timeout_s: float) -> SharedMemoryPort:
    peer = peer_pidfd(line)
    try:
        return SharedMemoryPort(sizes, peer, line, timeout_s=timeout_s)
    finally:
        os.close(peer)


class Door:
    """Listens at `path`, which must not exist, from its creation on. Raises OSError."""

    def __init__(self, path: Path, server: AttentionServer) -> None:
        self._server = server
        self._path = path
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(_QUEUE)
        self._listener.setblocking(False)
        # The channels, by the lines of their clients.
        self._channels: dict[socket.socket, int] = {}

    def run(self) -> None:
        """Lets clients in and out until `stop`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._stop in ready:
                    return
                for each in ready:
                    if each is self._listener:
                        self._let_in(selector)
                    elif isinstance(each, socket.socket):
                        selector.unregister(each)
                        self._let_out(each)

    def stop(self) -> None:
        """From any thread; `run` returns."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """After `run` has returned. Nobody is served any more."""
        for line in list(self._channels):
            self._let_out(line)
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
            self._channels[line] = self._served(line)
            answer(line)
            selector.register(line, selectors.EVENT_READ)
        except Lost:
            self._let_out(line)

    def _served(self, line: socket.socket) -> int:
        """Raises Lost when the client has gone, or was refused."""
        try:
            with closing(receive(line)) as offered:
                return self._server.add(offered.ends, *views(offered))
        except Lost:
            raise
        except ThothError as error:
            answer(line, refused=error.message)
            raise Lost(error.message) from error

    def _let_out(self, line: socket.socket) -> None:
        """Its last word is that it goes, whatever it says."""
        number = self._channels.pop(line, None)
        line.close()
        if number is not None:
            self._server.remove(number)


def views(offered: Offer) -> tuple[list[Tensor], list[Tensor]]:
    """k and v of each layer of the client, layer by layer."""
    try:
        memory = read_only(offered.kv_memory, offered.kv.num_bytes)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the memory cannot be mapped: {error}", field="kv") from error
    return offered.kv.views(memory)
