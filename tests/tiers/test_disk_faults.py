"""A full or failing disk: each command says that it was not done, and the store goes on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.errors import Lost
from cluster.knowledge.commands import Delete, DiskCommand, Found, Read, Write
from tests.tiers.disks import Disk, new_disk
from tests.tiers.nodes import LAYOUT, blocks, contents, read, record_of, write

A, B = record_of("a", 40), record_of("b", 33)
SLOTS, OTHERS = blocks(4, 1, 2), blocks(0, 3, 5)


@contextmanager
def at_most(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this user may have one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    has_mount = shutil.which("mount") is not None
    if not has_mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def goes_on(disk: Disk) -> None:
    """What lay there before still does, and new nodes come."""
    assert disk.load(A, OTHERS)
    assert read(disk.arena, OTHERS) == contents(A)
    assert disk.save(B, SLOTS)
    assert {node.record for node in disk.store.scan()} == {A, B}


def leaves_nothing(disk: Disk) -> None:
    assert disk.files() == [disk.file(A.key)]


def test_a_full_disk_says_so_and_takes_more_when_there_is_room(small_disk: Path) -> None:
    records = [record_of(f"node {i}", 40) for i in range(30)]
    with new_disk(small_disk) as disk:
        were_good = [disk.save(record, SLOTS) for record in records]
        num_good = sum(were_good)
        assert 0 < num_good < 30
        assert were_good == [True] * num_good + [False] * (30 - num_good)
        assert {node.record for node in disk.store.scan()} == set(records[:num_good])
        assert all(path.suffix == ".kv" for path in disk.files())
        disk.do(*(Delete(record.key) for record in records[:3]))
        assert disk.save(records[-1], SLOTS)
        assert disk.load(records[-1], OTHERS)
        assert read(disk.arena, OTHERS) == contents(records[-1])


def test_no_space_left_leaves_no_file(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        temporary = disk.file(B.key).with_suffix(".tmp")
        temporary.parent.mkdir(exist_ok=True)
        temporary.symlink_to("/dev/full")
        assert not disk.save(B, SLOTS)
        assert not temporary.is_symlink()
        leaves_nothing(disk)
        goes_on(disk)


@pytest.mark.parametrize("limit", [0, 1, 2500, 3967])
def test_a_write_that_ends_in_the_midst_leaves_no_file(tmp_path: Path, limit: int) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        write(disk.arena, B, SLOTS)
        with at_most(resource.RLIMIT_FSIZE, limit):
            assert disk.do(Write(B, SLOTS)) == [False]
        leaves_nothing(disk)
        goes_on(disk)


def test_a_failed_write_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        write(disk.arena, A, SLOTS)
        with at_most(resource.RLIMIT_FSIZE, 3000):
            assert disk.do(Write(A, SLOTS)) == [False]
        goes_on(disk)


def test_no_descriptor_left_is_a_failed_command(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        write(disk.arena, B, SLOTS)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        with at_most(resource.RLIMIT_NOFILE, lowest_free):
            assert disk.do(Write(B, SLOTS), Read(A, OTHERS)) == [False, False]
        assert disk.arena.scan() == [Found(B, SLOTS)]
        goes_on(disk)


def test_a_folder_that_is_gone_fails_every_command_until_it_is_back(tmp_path: Path) -> None:
    root, away = tmp_path / "cache", tmp_path / "away"
    with new_disk(root) as disk:
        assert disk.save(A, SLOTS)
        write(disk.arena, B, SLOTS)
        root.rename(away)
        commands: list[DiskCommand] = [Write(B, SLOTS), Delete(A.key), Read(A, OTHERS)]
        assert disk.do(*commands) == [False, False]
        assert disk.store.scan() == []
        assert not root.exists()
        root.write_text("a file in its place")
        assert disk.do(*commands) == [False, False]
        assert disk.store.scan() == []
        root.unlink()
        away.rename(root)
        goes_on(disk)


def test_a_folder_in_a_files_place_is_a_failed_command(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        (disk.file(B.key) / "below").mkdir(parents=True)
        assert not disk.save(B, SLOTS)
        assert not disk.load(B, OTHERS)
        assert disk.do(Delete(B.key), Read(A, OTHERS)) == [True]
        assert {node.record for node in disk.store.scan()} == {A}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_became_read_only_is_a_failed_command(tmp_path: Path) -> None:
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        nodes = tmp_path / LAYOUT.fingerprint.hex()
        folders = [path for path in (nodes, *nodes.iterdir()) if path.is_dir()]
        for folder in folders:
            folder.chmod(0o500)
        assert not disk.save(B, SLOTS)
        assert disk.load(A, OTHERS)
        for folder in folders:
            folder.chmod(0o700)
        goes_on(disk)


def test_an_error_nobody_thought_of_is_answered_too(tmp_path: Path) -> None:
    """A command that is itself wrong: one block is missing, or none such exists."""
    with new_disk(tmp_path) as disk:
        assert disk.save(A, SLOTS)
        wrong: list[DiskCommand] = [
            Read(A, blocks(0, 3)),
            Read(A, blocks(0, 3, 99)),
            Write(A, blocks(99)),
        ]
        assert disk.do(*wrong) == [False, False, False]
        with pytest.raises(Lost):
            disk.arena.verify(A.key, blocks(0, 3))
        goes_on(disk)
