"""Limits of control groups: of both versions, of every group above, and of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.numa import Limits
from tests.numa.machines import Machine, write


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_where_nothing_is_told_nothing_is_limited(machine: Machine) -> None:
    assert machine.limits() == Limits()


def test_a_group_of_version_2_limits_cores_and_memory(machine: Machine) -> None:
    machine.in_groups("0::/thoth")
    group = machine.version_2() / "thoth"
    write(group / "cpu.max", "150000 100000")
    write(group / "cpuset.cpus.effective", "0-3,8")
    write(group / "cpuset.mems.effective", "1")
    write(group / "memory.max", "1000")
    write(group / "memory.current", "400")
    assert machine.limits() == Limits(frozenset({0, 1, 2, 3, 8}), frozenset({1}), 1.5, 1000, 600)


def test_max_is_no_limit(machine: Machine) -> None:
    machine.in_groups("0::/thoth")
    group = machine.version_2() / "thoth"
    write(group / "cpu.max", "max 100000")
    write(group / "memory.max", "max")
    write(group / "memory.current", "400")
    assert machine.limits() == Limits()


def test_the_tightest_group_above_counts(machine: Machine) -> None:
    machine.in_groups("0::/pod/box/thoth")
    mount = machine.version_2()
    for name, quota, limit, used in (
        ("pod", "200000 100000", "2000", "1900"),
        ("pod/box", "max 100000", "1000", "300"),
        ("pod/box/thoth", "800000 100000", "max", "200"),
    ):
        write(mount / name / "cpu.max", quota)
        write(mount / name / "memory.max", limit)
        write(mount / name / "memory.current", used)
    write(mount / "pod" / "cpuset.cpus.effective", "0-7")
    write(mount / "pod" / "box" / "cpuset.cpus.effective", "0-3")
    limits = machine.limits()
    assert (limits.quota_cpus, limits.cpus) == (2.0, frozenset(range(4)))
    # The limit of the box is smaller; the pod has less left.
    assert (limits.memory_bytes, limits.memory_left_bytes) == (1000, 100)


def test_groups_beside_it_do_not_count(machine: Machine) -> None:
    machine.in_groups("0::/thoth")
    mount = machine.version_2()
    write(mount / "thoth" / "cpu.max", "max 100000")
    write(mount / "other" / "cpu.max", "100000 100000")
    write(mount / "thoth" / "below" / "cpu.max", "100000 100000")
    assert machine.limits().quota_cpus is None


def test_groups_of_version_1_are_one_for_each_controller(machine: Machine) -> None:
    machine.in_groups("9:name=systemd:/\n4:memory:/a\n3:cpuset:/b\n2:cpu,cpuacct:/c")
    write(machine.version_1("memory") / "a" / "memory.limit_in_bytes", "1000")
    write(machine.version_1("cpuset") / "b" / "cpuset.cpus", "0-1")
    write(machine.version_1("cpuset") / "b" / "cpuset.mems", "0")
    write(machine.version_1("cpu,cpuacct") / "c" / "cpu.cfs_quota_us", "50000")
    write(machine.version_1("cpu,cpuacct") / "c" / "cpu.cfs_period_us", "100000")
    limits = machine.limits()
    assert limits == Limits(frozenset({0, 1}), frozenset({0}), 0.5, 1000, 1000)


def test_version_1_has_its_own_words_for_no_limit(machine: Machine) -> None:
    machine.in_groups("4:memory:/\n2:cpu:/")
    write(machine.version_1("memory") / "memory.limit_in_bytes", "9223372036854771712")
    write(machine.version_1("cpu") / "cpu.cfs_quota_us", "-1")
    write(machine.version_1("cpu") / "cpu.cfs_period_us", "100000")
    assert machine.limits() == Limits()


def test_a_machine_may_have_both_versions(machine: Machine) -> None:
    machine.in_groups("2:cpu:/a\n0::/b")
    write(machine.version_1("cpu") / "a" / "cpu.cfs_quota_us", "400000")
    write(machine.version_1("cpu") / "a" / "cpu.cfs_period_us", "100000")
    write(machine.version_2() / "b" / "cpu.max", "300000 100000")
    assert machine.limits().quota_cpus == 3.0


def test_a_container_sees_its_own_group_at_the_mount(machine: Machine) -> None:
    machine.in_groups("2:cpu:/docker/abc/thoth")
    mount = machine.version_1("cpu", root="/docker/abc")
    write(mount / "thoth" / "cpu.cfs_quota_us", "200000")
    write(mount / "thoth" / "cpu.cfs_period_us", "100000")
    assert machine.limits().quota_cpus == 2.0


@pytest.mark.parametrize(
    ("root", "group"),
    [("/docker/abc", "/docker/other"), ("/docker/abc", "/"), ("/", "/../elsewhere")],
)
def test_a_group_that_cannot_be_seen_leaves_the_mount(
    machine: Machine, root: str, group: str
) -> None:
    machine.in_groups(f"0::{group}")
    mount = machine.version_2(root=root)
    write(mount / "cpu.max", "200000 100000")
    write(mount.parent / "cpu.max", "100000 100000")
    assert machine.limits().quota_cpus == 2.0


@pytest.mark.parametrize(
    "stat", ["anon 1\ninactive_file 250", "inactive_file 1\ntotal_inactive_file 250"]
)
def test_files_that_nobody_reads_leave_room(machine: Machine, stat: str) -> None:
    machine.in_groups("0::/")
    group = machine.version_2()
    write(group / "memory.max", "1000")
    write(group / "memory.current", "900")
    write(group / "memory.stat", stat)
    assert machine.limits().memory_left_bytes == 350


def test_a_group_over_its_limit_has_nothing_left(machine: Machine) -> None:
    machine.in_groups("0::/")
    write(machine.version_2() / "memory.max", "1000")
    write(machine.version_2() / "memory.current", "1200")
    assert machine.limits().memory_left_bytes == 0


def test_the_kernel_s_own_account_counts_too(machine: Machine) -> None:
    machine.status("0-1")
    assert machine.limits().memory_nodes == frozenset({0, 1})
    machine.in_groups("0::/")
    write(machine.version_2() / "cpuset.mems.effective", "1-3")
    assert machine.limits().memory_nodes == frozenset({1})


@pytest.mark.parametrize(
    ("name", "garbage"),
    [
        ("cpu.max", "lots"),
        ("cpu.max", "100000"),
        ("cpu.max", "100000 0"),
        ("memory.max", "1 GiB"),
        ("memory.current", "?"),
        ("cpuset.cpus.effective", "0-"),
        ("cpuset.mems.effective", "none"),
    ],
)
def test_what_makes_no_sense_limits_nothing_and_is_told(
    machine: Machine, name: str, garbage: str
) -> None:
    machine.in_groups("0::/thoth")
    group = machine.version_2() / "thoth"
    write(group / "memory.max", "1000")
    write(group / name, garbage)
    limits = machine.limits()
    assert limits == Limits(warning=limits.warning)
    assert str(group) in limits.warning


def test_a_torn_list_of_groups_is_told(machine: Machine) -> None:
    machine.in_groups("0:")
    assert "self/cgroup" in machine.limits().warning
