"""What comes through a worker's door: checked before it is used, and never left open."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from cluster.attention import descriptors
from cluster.attention.descriptors import Offer, answer, offer, peer_pidfd, receive
from cluster.attention.door import Door, enter, reclaim
from cluster.attention.native import NativeBackend
from cluster.attention.server import AttentionServer
from cluster.attention.shared_kv import read_only
from cluster.attention.shared_memory import ChannelEnds, ChannelSizes, SharedMemoryPort
from cluster.clock import ManualClock
from cluster.errors import InvalidArgument, Lost, Refused
from cluster.kernels import kernels, kernels_available
from tests.attention.shared_steps import SIZES, Rig, SharedBlocks, sealed_memory
from tests.attention.workers import PATIENCE_S, open_descriptors, wait_until, worker_at

KEEP_S = 30.0

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


@pytest.fixture
def blocks() -> Iterator[SharedBlocks]:
    made = SharedBlocks("float16", native())
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path, clock: ManualClock) -> Iterator[Path]:
    """A door in this process, which is as wide open as before when nobody is left."""
    before = open_descriptors()
    server = AttentionServer(1, spin_us=0)
    door = Door(tmp_path / "door", server, clock, keep_s=KEEP_S)
    visits = threading.Thread(target=door.run)
    visits.start()
    yield tmp_path / "door"
    door.stop()
    visits.join()
    door.close()
    server.close()
    del door, server
    assert open_descriptors() == before
    assert not (tmp_path / "door").exists()


@pytest.fixture
def ends() -> Iterator[ChannelEnds]:
    """Of a channel that nobody serves."""
    me = os.pidfd_open(os.getpid())
    line, other = socket.socketpair()
    port = SharedMemoryPort(SIZES, me, line, timeout_s=1.0)
    os.close(me)
    yield port.ends
    port.close()
    other.close()


def test_a_client_is_served_until_it_leaves(path: Path, blocks: SharedBlocks) -> None:
    for seed in range(3):
        port = enter(path, SIZES, blocks.kv, blocks.fd, timeout_s=PATIENCE_S)
        Rig(port, blocks, native()).check(Random(seed))
        port.close()


def test_an_offer_arrives_as_it_was_made(blocks: SharedBlocks, ends: ChannelEnds) -> None:
    received = crossed(ends, blocks)
    with closing(received):
        assert (received.kv, received.owner) == (blocks.kv, "somebody")
        assert received.ends.sizes == ends.sizes
        for ours, theirs in zip(ends.descriptors, received.ends.descriptors, strict=True):
            assert os.path.sameopenfile(ours, theirs) or is_eventfd(theirs)
            assert not os.get_inheritable(theirs)
        k, v = received.kv.views(read_only(received.kv_memory, received.kv.num_bytes))
        for ours_k, theirs_k in zip((*blocks.k, *blocks.v), (*k, *v), strict=True):
            assert torch.equal(ours_k.nan_to_num(7.0), theirs_k.nan_to_num(7.0))
        with pytest.raises(PermissionError):
            mmap.mmap(received.kv_memory, received.kv.num_bytes)


def crossed(ends: ChannelEnds, blocks: SharedBlocks) -> Offer:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = Offer(ends, blocks.kv, blocks.fd, "somebody")
        making = threading.Thread(target=offer, args=(ours, sent))
        making.start()
        received = receive(theirs)
        answer(theirs)
        making.join()
    assert isinstance(received, Offer)
    return received


def is_eventfd(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"


@pytest.mark.parametrize("option", [descriptors._SO_PEERPIDFD, 9999], ids=["asked", "by number"])
def test_the_peer_is_the_process_at_the_other_end(
    option: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system is too old to be asked for a pidfd."""
    monkeypatch.setattr(descriptors, "_SO_PEERPIDFD", option)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_pidfd(ours)
        content = Path(f"/proc/self/fdinfo/{peer}").read_text()
        os.close(peer)
    assert f"Pid:\t{os.getpid()}\n" in content


def message(ends: ChannelEnds, blocks: SharedBlocks) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        json.dumps({"owner": "", "sizes": asdict(ends.sizes), "kv": asdict(blocks.kv)})
    )
    return content


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("kv"),
        lambda m: m.pop("owner"),
        lambda m: m.update(owner="x" * 201),
        lambda m: m["kv"].pop("stride"),
        lambda m: m["kv"].update(dtype="int8"),
        lambda m: m["kv"].update(dtype=3),
        lambda m: m["kv"].update(num_blocks=10**9),
        lambda m: m["kv"].update(num_blocks=True),
        lambda m: m["kv"].update(stride=1),
        lambda m: m["kv"].update(starts=[]),
        lambda m: m["kv"].update(starts=[[0, 1, 2]]),
        lambda m: m["kv"].update(starts=[[0, 2**47]]),
        lambda m: m["kv"].update(starts=7),
        lambda m: m["kv"].update(num_bytes=m["kv"]["num_bytes"] + 1),
        lambda m: m["kv"].update(kv_heads=4),
        lambda m: m["sizes"].update(heads=0),
        lambda m: m["sizes"].update(heads=2**31),
        lambda m: m["sizes"].update(heads=2**31 - 1),
        lambda m: m["sizes"].update(more=1),
        lambda m: m["sizes"].update(max_parts=1.5),
        lambda m: m["sizes"].update(lanes=-1),
    ],
)
def test_a_wrong_offer_is_refused(
    path: Path, blocks: SharedBlocks, ends: ChannelEnds, damage: Damage
) -> None:
    content = message(ends, blocks)
    damage(content)
    assert "refused" in talked(path, framed(content), [*ends.descriptors, blocks.fd])
    enter(path, SIZES, blocks.kv, blocks.fd, timeout_s=PATIENCE_S).close()


def framed(content: object) -> bytes:
    packed = json.dumps(content).encode()
    return struct.pack("<I", len(packed)) + packed


def talked(path: Path, sent: bytes, descriptors: Sequence[int]) -> str:
    """What the door says to that; nothing when it hangs up."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(PATIENCE_S)
        line.connect(str(path))
        socket.send_fds(line, [sent], descriptors)
        line.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            return line.recv(4096)[4:].decode()
        return ""


def test_what_is_no_message_is_refused_or_hung_up_on(
    path: Path, blocks: SharedBlocks, ends: ChannelEnds
) -> None:
    fds = [*ends.descriptors, blocks.fd]
    whole = framed(message(ends, blocks))
    assert "refused" in talked(path, struct.pack("<I", 2**31) + b"x", fds)
    assert "refused" in talked(path, framed([1]), fds)
    assert "refused" in talked(path, struct.pack("<I", 3) + b"{{{", fds)
    assert "refused" in talked(path, struct.pack("<I", 40_000) + b"[" * 40_000, fds)
    assert "refused" in talked(path, whole, fds[:3])
    assert "refused" in talked(path, whole, [*fds, *fds])
    assert "refused" in talked(path, framed({"claim": 3}), [])
    assert "refused" in talked(path, framed({"claim": "x"}), fds)
    assert talked(path, whole[:-1], fds) == ""
    assert talked(path, b"x", fds) == ""
    enter(path, SIZES, blocks.kv, blocks.fd, timeout_s=PATIENCE_S).close()


def test_descriptors_of_another_kind_are_refused(
    path: Path, blocks: SharedBlocks, ends: ChannelEnds
) -> None:
    whole = framed(message(ends, blocks))
    channel, work, answers = ends.descriptors
    reading, writing = os.pipe()
    loose = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(loose, blocks.kv.num_bytes)
    short = sealed_memory(64)
    for fds, said in (
        ([channel, work, writing, blocks.fd], "no eventfd"),
        ([channel, channel, answers, blocks.fd], "no eventfd"),
        ([channel, work, answers, loose], "cut off"),
        ([channel, work, answers, reading], "sealed"),
        ([channel, work, answers, short], "64 bytes"),
        ([loose, work, answers, blocks.fd], "cut off"),
        ([blocks.fd, work, answers, blocks.fd], "bytes, not"),
        ([work, work, answers, blocks.fd], "cut off"),
    ):
        assert said in talked(path, whole, fds)
    for fd in (reading, writing, loose, short):
        os.close(fd)
    enter(path, SIZES, blocks.kv, blocks.fd, timeout_s=PATIENCE_S).close()


def test_nobody_behind_the_door_is_a_loss(tmp_path: Path, blocks: SharedBlocks) -> None:
    before = open_descriptors()
    with pytest.raises(Lost, match="no attention worker at"):
        enter(tmp_path / "door", SIZES, blocks.kv, blocks.fd, timeout_s=1.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(Lost, match="gone: timed out"):
            enter(tmp_path / "silent", SIZES, blocks.kv, blocks.fd, timeout_s=0.1)
    assert open_descriptors() == before


def test_a_refused_client_keeps_nothing_open(path: Path, blocks: SharedBlocks) -> None:
    before = open_descriptors()
    with pytest.raises(Refused, match="7 heads"):
        enter(path, ChannelSizes(7, 24), blocks.kv, blocks.fd, timeout_s=PATIENCE_S)
    wait_until(lambda: open_descriptors() == before)


def same_memory(fd: int, other: int) -> bool:
    ours, theirs = os.fstat(fd), os.fstat(other)
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def test_what_an_owner_left_is_handed_to_the_next_under_its_name_and_once(
    path: Path, blocks: SharedBlocks
) -> None:
    def claimed(owner: str) -> int | None:
        return reclaim(path, owner, timeout_s=PATIENCE_S)

    def visit(owner: str) -> SharedMemoryPort:
        return enter(path, SIZES, blocks.kv, blocks.fd, owner=owner, timeout_s=PATIENCE_S)

    assert claimed("a") is None
    port = visit("a")
    # As long as it is there nobody else may write to its memory.
    assert claimed("a") is None
    port.close()
    assert claimed("b") is None
    kept = claimed("a")
    assert kept is not None
    assert same_memory(kept, blocks.fd)
    with mmap.mmap(kept, blocks.kv.num_bytes) as memory:
        memory[0] = 7
    os.close(kept)
    assert os.pread(blocks.fd, 1, 0) == b"\x07"
    assert claimed("a") is None
    visit("").close()
    assert claimed("") is None
    visit("a").close()
    visit("a").close()
    again = claimed("a")
    assert again is not None
    os.close(again)


def test_what_nobody_claims_is_let_go_of(
    path: Path, blocks: SharedBlocks, clock: ManualClock
) -> None:
    before = open_descriptors()
    for wait_s, is_kept in ((KEEP_S - 1, True), (KEEP_S, False)):
        port = enter(path, SIZES, blocks.kv, blocks.fd, owner="a", timeout_s=PATIENCE_S)
        port.close()
        wait_until(lambda: open_descriptors() == before + 1)
        clock.advance(wait_s)
        kept = reclaim(path, "a", timeout_s=PATIENCE_S)
        assert (kept is not None) is is_kept
        if kept is not None:
            os.close(kept)
        wait_until(lambda: open_descriptors() == before)


def test_a_door_may_be_deep_in_a_folder(tmp_path: Path, blocks: SharedBlocks) -> None:
    folder = tmp_path / ("f" * 100) / ("f" * 100)
    folder.mkdir(parents=True)
    with worker_at(folder / "door") as worker:
        worker.port(blocks).close()
        assert worker.end() == 0
    assert not (folder / "door").exists()


def test_views_never_leave_the_memory(blocks: SharedBlocks) -> None:
    memory = torch.zeros(blocks.kv.num_bytes, dtype=torch.uint8)
    blocks.kv.views(memory)
    for wrong in (
        replace(blocks.kv, num_blocks=blocks.kv.num_blocks + 1),
        replace(blocks.kv, stride=blocks.kv.stride + 1),
        replace(blocks.kv, starts=((0, blocks.kv.num_bytes),)),
        replace(blocks.kv, num_blocks=0),
    ):
        with pytest.raises(InvalidArgument):
            wrong.views(memory)
    with pytest.raises(InvalidArgument):
        blocks.kv.views(memory[:-1])


def test_a_block_is_one_piece_of_the_memory(blocks: SharedBlocks) -> None:
    before = [layer.clone() for layer in (*blocks.k, *blocks.v)]
    place = blocks.kv.block_bytes(3)
    memory = torch.frombuffer(blocks.memory, dtype=torch.uint8)
    memory[place] = torch.bitwise_not(memory[place])
    for old, new in zip(before, (*blocks.k, *blocks.v), strict=True):
        is_other = (old.view(torch.uint8) != new.view(torch.uint8)).flatten(1)
        assert is_other.all(1).tolist() == [block == 3 for block in range(len(old))]
        assert is_other.any(1).sum() == 1
    (k, v), *rest = blocks.kv.starts
    apart = replace(blocks.kv, starts=((k, v + blocks.kv.stride), *rest))
    with pytest.raises(InvalidArgument, match="further apart"):
        apart.block_bytes(0)
