"""A process is killed while it writes. The next one finds whole nodes only, with their contents."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cluster.engine.tiers.host_arena import HostArena
from cluster.knowledge.commands import Found, NodeRecord, Read
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Blocks
from tests.tiers.disks import SOON_S, new_disk
from tests.tiers.nodes import LAYOUT, blocks, contents, new_arena, read
from tests.tiers.writers import NUM_BLOCKS, crossing, drawn, fill_arena, fill_disk

NODES: dict[NodeKey, NodeRecord] = {drawn(number).key: drawn(number) for number in range(20_000)}


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Children that share no lock and no thread with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiers.writers"])
    return context


def killed_in_the_midst(
    processes: ForkServerContext, work: Callable[..., None], place: Any, seed: int
) -> None:
    """Lets a process work for some milliseconds after its first nodes, and kills it."""
    ours, theirs = processes.Pipe(duplex=False)
    child = processes.Process(target=work, args=(place, theirs, seed), daemon=True)
    child.start()
    assert ours.poll(SOON_S), "the writer did not begin"
    time.sleep(Random(seed).uniform(0.0, 0.03))
    child.kill()
    child.join(SOON_S)
    assert child.exitcode == -9
    ours.close()
    theirs.close()


def is_as_written(record: NodeRecord, found: Found, arena: HostArena, host: Blocks) -> bool:
    arena.verify(record.key, host)
    return found.record == record and read(arena, host) == contents(record)


@pytest.mark.parametrize("seed", range(8))
def test_the_hosts_memory_outlives_its_writer(processes: ForkServerContext, seed: int) -> None:
    with new_arena(NUM_BLOCKS) as arena:
        killed_in_the_midst(processes, fill_arena, crossing(arena.fd), seed)
        heir = HostArena.attach(os.dup(arena.fd), LAYOUT)
        nodes = heir.scan()
        assert nodes
        for found in nodes:
            assert is_as_written(NODES[found.record.key], found, heir, found.host)
        held = [block for found in nodes for block in found.host]
        assert len(held) == len(set(held))
        assert heir.scan() == nodes
        heir.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_disk_outlives_its_writer(
    processes: ForkServerContext, tmp_path: Path, seed: int
) -> None:
    killed_in_the_midst(processes, fill_disk, tmp_path, seed)
    with new_disk(tmp_path) as disk:
        nodes = disk.store.scan()
        assert nodes
        for found in nodes:
            record = NODES[found.record.key]
            host = blocks(*range(-(-record.num_tokens // 16)))
            assert disk.do(Read(record, host)) == [True]
            assert is_as_written(record, found, disk.arena, host)
        assert {path.suffix for path in disk.files()} == {".kv"}
        assert len(disk.files()) == len(nodes)
