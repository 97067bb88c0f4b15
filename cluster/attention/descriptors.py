"""How a channel and the memory behind it come to another process: descriptors over a unix socket.

    client    ---- an offer: length, JSON; four descriptors with its first byte --->    server
              <--- an answer: length, JSON; empty, or what is wrong ----------------

    client    ---- a claim: length, JSON ------------------------------------------>    server
              <--- an answer; the memory's descriptor with it, where it is kept ----

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
_MOST_NAME = 200
# Linux 6.5: a pidfd of the peer, which cannot have become another process meanwhile.
_SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("<iII")
_INT = array("i").itemsize


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's channel, and its keys and values in `kv_memory`, which can only be read. The
    descriptors are the receiver's. Whoever comes later under the name of the `owner` may claim the
    memory; without a name nobody may."""

    ends: ChannelEnds
    kv: SharedKv
    kv_memory: int
    owner: str = ""

    def close(self) -> None:
        _close((*self.ends.descriptors, self.kv_memory))


@dataclass(frozen=True, slots=True)
class Claim:
    """A client wants the memory that was kept for this owner."""

    owner: str

    def close(self) -> None:
        """Nothing came with it."""


def offer(peer: socket.socket, offered: Offer) -> None:
    """Until the server serves the channel. Raises Refused when it does not, Lost when it is gone or
    says nothing before the socket's timeout."""
    ends, kv = offered.ends, offered.kv
    message = {"owner": offered.owner, "sizes": asdict(ends.sizes), "kv": asdict(kv)}
    # Whoever gets this one cannot map it to be written.
    readable = _opened_again(offered.kv_memory, os.O_RDONLY)
    try:
        with _lost_with_the_peer():
            _send(peer, message, [*ends.descriptors, readable])
            answered, came = _next(peer)
    finally:
        os.close(readable)
    _close(came)
    if answered:
        raise Refused(f"the attention worker refused the channel: {answered.get('refused')}")


def claim(peer: socket.socket, owner: str) -> int | None:
    """The memory that was kept for the owner, to be read and written; None where none was. The
    descriptor is the caller's. Raises Lost."""
    with _lost_with_the_peer():
        _send(peer, {"claim": owner}, [])
        _, came = _next(peer)
    try:
        return _opened_again(came[0], os.O_RDWR) if came else None
    except OSError as error:
        raise Lost(f"what was kept cannot be written to: {error}") from error
    finally:
        _close(came)


def answer(peer: socket.socket, refused: str = "") -> None:
    """Raises Lost."""
    with _lost_with_the_peer():
        _send(peer, {"refused": refused[:1000]} if refused else {}, [])


def hand_over(peer: socket.socket, kept: int | None) -> None:
    """The answer to a claim; the descriptor stays the caller's. Raises Lost."""
    with _lost_with_the_peer():
        _send(peer, {}, [] if kept is None else [kept])


def receive(peer: socket.socket) -> Offer | Claim:
    """Raises InvalidArgument for what is neither, and Lost when the peer is gone or says nothing
    before the socket's timeout; then no descriptor is left."""
    with _lost_with_the_peer():
        message, descriptors = _next(peer)
    try:
        if "claim" not in message:
            return _offer(message, descriptors)
        if descriptors:
            raise InvalidArgument(f"{len(descriptors)} descriptors came with a claim")
        return Claim(_name(message["claim"]))
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


def _send(peer: socket.socket, content: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    message = _framed(content)
    sent = socket.send_fds(peer, [message], descriptors)
    if sent < len(message):
        peer.sendall(message[sent:])


def _next(peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message, and the descriptors that came with it."""
    first, descriptors = _begun(peer)
    try:
        first += _exactly(peer, _LENGTH.size - len(first))
        return _message(peer, _LENGTH.unpack(first)[0]), descriptors
    except BaseException:
        _close(descriptors)
        raise


def _opened_again(memory: int, mode: int) -> int:
    return os.open(f"/proc/self/fd/{memory}", mode | os.O_CLOEXEC)


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
    owner = _name(message.get("owner"))
    return Offer(ChannelEnds(memory, work_bell, answer_bell, sizes), kv, kv_memory, owner)


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


def _name(said: object) -> str:
    if not isinstance(said, str) or len(said) > _MOST_NAME:
        raise InvalidArgument(
            f"{said!r:.80} is no owner's name", field="owner", limit=f"{_MOST_NAME} characters"
        )
    return said


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
