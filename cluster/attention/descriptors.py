"""How a channel and the memory behind it come to another process: descriptors over a unix socket.

    client    ---- an offer: length, JSON; four descriptors with its first byte --->    server
              <--- an answer: length, JSON; empty, or what is wrong ----------------

Each side has checked what it got before it is used: memory that cannot be cut off under its reader,
of the size that was said, and eventfds.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from cluster.attention.shared_kv import SharedKv
from cluster.attention.shared_memory import ChannelEnds, ChannelSizes
from cluster.errors import InvalidArgument, Lost, Refused

_LENGTH = struct.Struct("<I")
_MOST_BYTES = 2**16
# More than the four that are wanted, so that what comes too many is closed.
_MOST_DESCRIPTORS = 16
_NUM_DESCRIPTORS = 4
# Linux 6.5: a pidfd of the peer, which cannot have become another process meanwhile.
_SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("<iII")
_INT = array("i").itemsize


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's channel, and its keys and values in `kv_memory`, which can only be read. The
    descriptors are the receiver's."""

    ends: ChannelEnds
    kv: SharedKv
    kv_memory: int

    def close(self) -> None:
        _close((*self.ends.descriptors, self.kv_memory))


def offer(peer: socket.socket, ends: ChannelEnds, kv: SharedKv, kv_memory: int) -> None:
    """Until the server serves the channel. Raises Refused when it does not, Lost when it is gone or
    says nothing before the socket's timeout."""
    message = _framed({"sizes": asdict(ends.sizes), "kv": asdict(kv)})
    # Whoever gets this one cannot map it to be written.
    readable = os.open(f"/proc/self/fd/{kv_memory}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _lost_with_the_peer():
            sent = socket.send_fds(peer, [message], [*ends.descriptors, readable])
            if sent < len(message):
                peer.sendall(message[sent:])
            answered = _message(peer, _LENGTH.unpack(_exactly(peer, _LENGTH.size))[0])
    finally:
        os.close(readable)
    if answered:
        raise Refused(f"the attention worker refused the channel: {answered.get('refused')}")


def answer(peer: socket.socket, refused: str = "") -> None:
    """Raises Lost."""
    with _lost_with_the_peer():
        peer.sendall(_framed({"refused": refused[:1000]} if refused else {}))


def receive(peer: socket.socket) -> Offer:
    """Raises InvalidArgument for what is no offer, and Lost when the peer is gone or says nothing
    before the socket's timeout; then no descriptor is left."""
    with _lost_with_the_peer():
        first, descriptors = _begun(peer)
    try:
        with _lost_with_the_peer():
            first += _exactly(peer, _LENGTH.size - len(first))
            message = _message(peer, _LENGTH.unpack(first)[0])
        return _offer(message, descriptors)
    except BaseException:
        _close(descriptors)
        raise


def peer_pidfd(peer: socket.socket) -> int:
    """A pidfd of the process at the other end: who connected, or who listened. Raises Lost when it
    has ended already."""
    with suppress(OSError):
        return peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(packed)
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise Lost(f"the process {pid} has ended, or cannot be seen: {error}") from error


def _framed(content: Mapping[str, Any]) -> bytes:
    packed = json.dumps(content).encode()
    return _LENGTH.pack(len(packed)) + packed


def _begun(peer: socket.socket) -> tuple[bytes, list[int]]:
    """A message's first bytes, and what came with them. `socket.recv_fds` would have it inherited
    by whatever process is started meanwhile."""
    descriptors = array("i")
    room = socket.CMSG_LEN(_MOST_DESCRIPTORS * _INT)
    first, ancillary, _, _ = peer.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) // _INT * _INT])
    return first, descriptors.tolist()


def _message(peer: socket.socket, length: int) -> dict[str, Any]:
    if length > _MOST_BYTES:
        raise InvalidArgument(f"a message of {length} bytes", limit=f"{_MOST_BYTES} bytes")
    try:
        content = json.loads(_exactly(peer, length))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"no message: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument("no message: it is no object")
    return content


def _exactly(peer: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = peer.recv(count - len(received))
        if not more:
            raise Lost("the other end of the socket was closed")
        received += more
    return received


@contextmanager
def _lost_with_the_peer() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Lost(f"the other end of the socket is gone: {error}") from error


def _offer(message: Mapping[str, Any], descriptors: Sequence[int]) -> Offer:
    if len(descriptors) != _NUM_DESCRIPTORS:
        raise InvalidArgument(f"{len(descriptors)} descriptors came, not {_NUM_DESCRIPTORS}")
    memory, work_bell, answer_bell, kv_memory = descriptors
    said = _fields(message.get("sizes"), ChannelSizes)
    sizes = ChannelSizes(**{name: _number(size, 2**31) for name, size in said.items()})
    kv = _kv(_fields(message.get("kv"), SharedKv))
    for bell in (work_bell, answer_bell):
        if os.readlink(f"/proc/self/fd/{bell}") != "anon_inode:[eventfd]":
            raise InvalidArgument("a bell is no eventfd", field="channel")
    _check_memory(kv_memory, kv.num_bytes)
    return Offer(ChannelEnds(memory, work_bell, answer_bell, sizes), kv, kv_memory)


def _check_memory(fd: int, num_bytes: int) -> None:
    """The channel's own is checked by the server's loop, in the same way."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise InvalidArgument("the memory is none that can be sealed", field="kv") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise InvalidArgument("the memory may be cut off", field="kv")
    found = os.fstat(fd).st_size
    if found != num_bytes:
        raise InvalidArgument(f"the memory has {found} bytes, not {num_bytes}", field="kv")


def _fields(said: object, kind: type) -> dict[str, object]:
    names = {each.name for each in fields(kind)}
    if not isinstance(said, dict) or said.keys() != names:
        raise InvalidArgument(f"an offer has {', '.join(sorted(names))}")
    return said


def _kv(said: dict[str, object]) -> SharedKv:
    dtype, starts = said.pop("dtype"), said.pop("starts")
    if not isinstance(dtype, str):
        raise InvalidArgument(f"{dtype!r} is no type of numbers", field="kv")
    pairs = [tuple(map(_number, _list(each))) for each in _list(starts)]
    if any(len(pair) != 2 for pair in pairs):
        raise InvalidArgument("a layer begins with k and with v", field="kv")
    numbers = {name: _number(size) for name, size in said.items()}
    return SharedKv(dtype=dtype, starts=tuple((pair[0], pair[1]) for pair in pairs), **numbers)


def _number(said: object, end: int = 2**48) -> int:
    if type(said) is not int or not 0 <= said < end:
        raise InvalidArgument(f"{said!r} is no size")
    return said


def _list(said: object) -> list[object]:
    if not isinstance(said, list):
        raise InvalidArgument(f"{said!r} is no list")
    return said


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
