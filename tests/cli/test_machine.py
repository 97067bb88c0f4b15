"""What the doctor says of machines of several kinds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from actors.cli.findings import Level
from actors.cli.machine import (
    check_cores,
    check_gpus,
    check_huge_pages,
    check_memory,
    check_numa,
    check_pinning,
)
from cluster.config import GpuWorkerConfig, ThothConfig
from cluster.numa import Limits, read_topology
from tests.numa.machines import Machine, two_sockets, write

# No machine has them, so nothing can be pinned to them.
ABSENT = "8188-8191"


def config(count: int = 1, device: Literal["cpu", "cuda"] = "cpu") -> ThothConfig:
    return ThothConfig(gpu_worker=GpuWorkerConfig(count=count, device=device))


def test_nodes_are_told_with_what_they_lack(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.node(0, "0-7", 32, "10 20 30")
    machine.node(1, "8-9,12", 0, "20 10 30")
    machine.node(2, "", 64, "30 30 10")
    check = check_numa(machine.read("0-12"))
    assert (check.level, check.found) == (
        Level.OK,
        "node 0: cores 0-7, 32.0 GiB; node 1: cores 8-9,12, no memory; node 2: no cores, 64.0 GiB",
    )


@pytest.mark.parametrize(
    ("private", "shared", "level"),
    [
        ("always [madvise] never", "always within_size [advise] never deny force", Level.OK),
        ("always [madvise] never", "always within_size advise [never] deny force", Level.WARN),
        ("always madvise [never]", "[always] within_size advise never deny force", Level.WARN),
        ("always [madvise] never", "always within_size advise never [deny] force", Level.WARN),
    ],
)
def test_memory_in_small_pages_is_told(
    private: str, shared: str, level: Level, tmp_path: Path
) -> None:
    folder = tmp_path / "kernel" / "mm" / "transparent_hugepage"
    write(folder / "enabled", private)
    write(folder / "shmem_enabled", shared)
    check = check_huge_pages(tmp_path)
    assert check.level is level
    assert bool(check.advice) is (level is Level.WARN)


def test_a_system_that_says_nothing_of_huge_pages_is_not_warned_of(tmp_path: Path) -> None:
    check = check_huge_pages(tmp_path)
    assert check.level is Level.OK
    assert check.found == "private memory unknown, shared memory unknown"


def test_a_machine_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    write(machine.nodes / "node1" / "distance", "21")
    check = check_numa(machine.read("0-7"))
    assert check.level is Level.WARN
    assert check.found == "node 0: cores 0-7, no memory"
    assert check.advice.startswith("the machine is taken as one node: ")


def test_a_quota_below_the_workers_is_told(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("0::/")
    write(machine.version_2() / "cpu.max", "150000 100000")
    topology = machine.read("0-7")
    assert check_cores(config(), topology).level is Level.OK
    check = check_cores(config(count=2), topology)
    assert (check.level, check.found, check.advice) == (
        Level.WARN,
        "8 cores, cgroup limit 1.5",
        "set gpu_worker.count to at most 1",
    )


def test_little_memory_is_told() -> None:
    check = check_memory(Limits(memory_bytes=2**31, memory_left_bytes=2**30))
    assert check.level is Level.WARN
    assert check.found.endswith(", 1.0 GiB left of the cgroup limit")


def test_devices_are_told_with_their_node(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    assert check_gpus(config(), machine.read("0-7").gpus).found.startswith("none")
    machine.gpu("0000:01:00.0", "1")
    assert check_gpus(config(), machine.read("0-7").gpus).found.startswith("1 that no driver")
    machine.gpu("0000:81:00.0", "1", "NVIDIA H100")
    machine.gpu("0000:c1:00.0", "-1", "NVIDIA T4")
    check = check_gpus(config(), machine.read("0-7").gpus)
    assert (check.level, check.found) == (Level.OK, "NVIDIA H100 on node 1; NVIDIA T4")
    assert check.advice.startswith("set gpu_worker.device to cuda")


def test_devices_that_are_wanted_and_not_there_are_told() -> None:
    check = check_gpus(config(device="cuda"), ())
    assert (check.level, check.found) == (Level.WARN, "none")


def test_pinning_is_tried_and_undone() -> None:
    before = os.sched_getaffinity(0)
    check = check_pinning(ThothConfig(), read_topology())
    if check.level is not Level.OK:
        pytest.skip(f"the machine denies it: {check.found}")
    assert check.found.startswith("attention on cpus ")
    assert os.sched_getaffinity(0) == before


def test_what_cannot_be_pinned_is_told_with_advice(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.node(0, ABSENT, 32, "10 20")
    machine.node(999, "", 32, "20 10")
    check = check_pinning(ThothConfig(), machine.read(ABSENT))
    assert check.level is Level.WARN
    assert "cpus 8191: Invalid argument" in check.found
    assert "--cap-add SYS_NICE" in check.advice
