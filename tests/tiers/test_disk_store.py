"""A disk gives back what was written whole, to this process or the next, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random
from threading import Event

import pytest
from xxhash import xxh3_64_intdigest

from cluster.engine.kv_cache import KvShape
from cluster.engine.tiers.disk_store import DiskStore
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.records import RECORD_BYTES
from cluster.errors import InvariantBroken, Lost, Unavailable
from cluster.knowledge.commands import Delete, Found, NodeRecord, Read, Write
from tests.tiers.disks import SOON_S, Disk, new_disk
from tests.tiers.nodes import (
    LAYOUT,
    OTHER_LAYOUT,
    blocks,
    contents,
    new_arena,
    read,
    record_of,
    write,
)

A, B = record_of("a", 40), record_of("b", 33)
SLOTS, OTHERS = blocks(4, 1, 2), blocks(0, 3, 5)
NUM_HEAD_BYTES = 40
NUM_HEADER_BYTES = NUM_HEAD_BYTES + RECORD_BYTES + 4 * 8


def found(nodes: list[Found]) -> set[NodeRecord]:
    """On disk, so without blocks; each once."""
    records = {node.record for node in nodes}
    assert len(records) == len(nodes)
    assert not any(node.host for node in nodes)
    return records


def must_not_be_read(disk: Disk, record: NodeRecord) -> None:
    assert not disk.load(record, OTHERS)
    with pytest.raises(Lost):
        disk.arena.verify(record.key, OTHERS)


def test_what_was_written_is_read_into_other_blocks(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        assert disk.load(A, OTHERS)
        assert read(disk.arena, OTHERS) == contents(A)
        assert disk.arena.scan() == [Found(A, OTHERS)]
        assert len(disk.notified) == 2


def test_the_next_process_finds_what_this_one_wrote(tmp_path: Path) -> None:
    child = record_of("child", 16, A.key)
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        assert disk.save(child, blocks(0))
    with new_disk(tmp_path) as disk:
        assert found(disk.store.scan()) == {A, child}
        assert disk.load(A, SLOTS)
        assert disk.load(child, blocks(5))
        assert read(disk.arena, (*SLOTS, *blocks(5))) == contents(A) + contents(child)


def test_commands_are_done_in_their_order(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        write(disk.arena, A, SLOTS)
        put, get, drop = Write(A, SLOTS), Read(A, OTHERS), Delete(A.key)
        assert disk.do(put, drop, get, put, get) == [True, False, True, True]
        assert disk.do(Delete(A.key), Delete(A.key), Read(A, OTHERS)) == [False]
        assert disk.files() == []


def test_a_name_is_given_only_to_what_is_on_disk_and_then_kept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had in a test; the order of what guards against it can be seen."""
    done: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.replace

    def seen_sync(fd: int) -> None:
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        sync(fd)

    def seen_rename(path: Path, target: Path) -> Path:
        done.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(Path, "replace", seen_rename)
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
    name, prefix = f"{A.key.hex()}.tmp", A.key.hex()[:2]
    new_folder = ("sync", LAYOUT.fingerprint.hex())
    assert done == [new_folder, ("sync", name), ("rename", name), ("sync", prefix)]


def test_a_node_written_again_is_the_newer_one(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        with disk.arena.writing((A, SLOTS)):
            disk.arena.payload(SLOTS[0])[:3] = b"new"
        assert disk.do(Write(A, SLOTS)) == [True]
        assert disk.load(A, OTHERS)
        assert read(disk.arena, OTHERS)[0][:3] == b"new"


def test_waiting_ends_when_nothing_is_to_come(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        disk.store.submit([Delete(A.key)])
        began = time.monotonic()
        assert disk.store.completed(SOON_S) == ()
        assert time.monotonic() - began < SOON_S / 2


def test_waiting_ends_when_its_time_is_over(tmp_path: Path) -> None:
    may_go_on = Event()
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        store = DiskStore(tmp_path, arena, lambda: _wait(may_go_on))
        store.submit([Write(A, SLOTS), Read(A, OTHERS)])
        assert [event.is_good for event in store.completed(SOON_S)] == [True]
        assert store.completed() == store.completed(0.02) == ()
        may_go_on.set()
        assert [event.is_good for event in store.completed(SOON_S)] == [True]
        store.close(SOON_S)


def _wait(event: Event) -> None:
    event.wait(SOON_S)


def test_a_closed_store_has_done_everything_and_takes_nothing_more(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        write(disk.arena, A, SLOTS)
        disk.store.submit([Write(A, SLOTS)])
        disk.store.close(SOON_S)
        assert disk.file(A.key).exists()
        with pytest.raises(InvariantBroken):
            disk.store.submit([Delete(A.key)])


def test_a_store_that_hangs_does_not_hold_up_its_owner(tmp_path: Path) -> None:
    may_go_on = Event()
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        store = DiskStore(tmp_path, arena, lambda: _wait(may_go_on))
        store.submit([Write(A, SLOTS)])
        store.close(0.05)
        with pytest.raises(Unavailable):
            DiskStore(tmp_path, arena, may_go_on.set)
        may_go_on.set()
        store._thread.join(SOON_S)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk, pytest.raises(Unavailable, match="another process"):
        DiskStore(tmp_path, disk.arena, lambda: None)
    with new_disk(tmp_path):
        pass


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / LAYOUT.fingerprint.hex()).write_text("not a folder")
    with new_arena(1) as arena:
        for name in ("file", "file/below", "taken", "taken"):
            with pytest.raises(Unavailable, match="cannot be a cache"):
                DiskStore(tmp_path / name, arena, lambda: None)


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    with new_disk(tmp_path / "new") as disk:
        assert disk.save(A, SLOTS)
        modes = {path.stat().st_mode & 0o077 for path in (disk.root, *disk.root.rglob("*"))}
    assert modes == {0}


def test_a_damaged_source_is_not_written(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        write(disk.arena, A, SLOTS)
        disk.arena.payload(SLOTS[2])[5] ^= 1
        write(disk.arena, B, OTHERS)
        assert disk.do(Write(A, SLOTS), Write(A, OTHERS), Write(B, OTHERS)) == [False, False, True]
        assert disk.files() == [disk.file(B.key)]


def test_a_turned_bit_anywhere_in_a_file_is_noticed(tmp_path: Path) -> None:
    """Every byte of the numbers in the header, and of the rest a sample."""
    random = Random(1)
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        whole = disk.file(A.key).read_bytes()
        assert len(whole) == NUM_HEADER_BYTES + 3 * LAYOUT.payload_bytes
        places = [*range(NUM_HEAD_BYTES + 56), *range(NUM_HEADER_BYTES - 32, NUM_HEADER_BYTES + 8)]
        places += random.sample(range(len(whole)), 400)
        for at in places:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << random.randrange(8)
            disk.file(A.key).write_bytes(damaged)
            must_not_be_read(disk, A)
        disk.file(A.key).write_bytes(whole)
        assert disk.load(A, OTHERS)


def test_a_file_of_any_other_length_is_neither_read_nor_found(tmp_path: Path) -> None:
    random = Random(2)
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        whole = disk.file(A.key).read_bytes()
        lengths = [0, 1, 39, 40, NUM_HEADER_BYTES - 1, NUM_HEADER_BYTES, len(whole) - 1]
        lengths += random.sample(range(len(whole)), 60)
        for wrong in [whole[:length] for length in lengths] + [whole + b"\0", whole * 2]:
            disk.file(A.key).write_bytes(wrong)
            must_not_be_read(disk, A)
            assert disk.store.scan() == []
            assert disk.files() == []


def test_a_file_with_a_damaged_header_is_not_found(tmp_path: Path) -> None:
    random = Random(3)
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        disk.save(B, SLOTS)
        whole = disk.file(A.key).read_bytes()
        for at in [*range(96), *random.sample(range(NUM_HEADER_BYTES), 100)]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << random.randrange(8)
            disk.file(A.key).write_bytes(damaged)
            assert found(disk.store.scan()) == {B}
            assert disk.files() == [disk.file(B.key)]


def test_a_file_under_another_nodes_name_is_neither_read_nor_found(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        disk.save(B, SLOTS)
        disk.file(B.key).write_bytes(disk.file(A.key).read_bytes())
        must_not_be_read(disk, B)
        assert found(disk.store.scan()) == {A}


def test_what_was_left_unfinished_is_removed(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        whole = disk.file(A.key).read_bytes()
        disk.file(A.key).rename(disk.file(A.key).with_suffix(".tmp"))
        disk.file(B.key).parent.mkdir(exist_ok=True)
        disk.file(B.key).with_suffix(".tmp").write_bytes(whole[:100])
        assert disk.store.scan() == []
        assert disk.files() == []


def test_a_newer_format_is_not_found_even_when_it_is_whole(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        newer = bytearray(disk.file(A.key).read_bytes())
        newer[8] += 1
        newer[NUM_HEADER_BYTES - 8 : NUM_HEADER_BYTES] = xxh3_64_intdigest(
            newer[: NUM_HEADER_BYTES - 8]
        ).to_bytes(8, "little")
        disk.file(A.key).write_bytes(newer)
        must_not_be_read(disk, A)
        assert disk.store.scan() == []


def test_another_models_nodes_stay_and_are_not_seen(tmp_path: Path) -> None:
    with new_disk(tmp_path, layout=OTHER_LAYOUT) as disk:
        assert disk.save(A, SLOTS)
        theirs = disk.files()
    with new_disk(tmp_path) as disk:
        assert disk.store.scan() == []
        must_not_be_read(disk, A)
        disk.file(A.key).parent.mkdir(exist_ok=True)
        disk.file(A.key).write_bytes(theirs[0].read_bytes())
        must_not_be_read(disk, A)
        assert disk.store.scan() == []
        assert disk.files() == theirs


def test_what_others_put_into_the_folder_stays(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        disk.save(A, SLOTS)
        folder = disk.file(A.key).parent
        strange = [folder / "notes.kv", folder / "x.tmp", folder.parent / "readme"]
        strange += [folder.parent / "zz" / disk.file(B.key).name]
        for path in strange:
            path.parent.mkdir(exist_ok=True)
            path.write_text("somebody else's")
        (folder / f"{'0' * 32}.kv").symlink_to(disk.file(A.key))
        (folder.parent / "link").symlink_to(folder)
        assert found(disk.store.scan()) == {A}
        assert all(path.exists() for path in strange)


def test_a_real_shape_goes_to_disk_and_back(tmp_path: Path) -> None:
    layout = KvLayout(KvShape(30, 3, 64), b"smollm2 in float")
    with new_disk(tmp_path, layout=layout) as disk:
        assert disk.save(A, SLOTS)
        assert disk.load(A, OTHERS)
        assert read(disk.arena, OTHERS) == contents(A, layout)
        (path,) = disk.files()
        assert os.stat(path).st_size > 3 * layout.shape.block_bytes
