"""Machines of many shapes, whole and torn."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.numa import Limits, Node, Topology, read_topology
from tests.numa.machines import Machine, two_sockets, write

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def single(*cpus: int) -> tuple[tuple[int], ...]:
    """Cores without hyperthreads."""
    return tuple((cpu,) for cpu in cpus)


def test_one_node_has_everything(machine: Machine) -> None:
    machine.node(0, "0-3", 16, "10")
    topology = machine.read("0-3")
    assert topology == Topology((Node(0, single(0, 1, 2, 3), 16 * GIB, {0: 10}),), (), Limits())
    assert topology.hosts == topology.nodes
    assert topology.memory_node(topology.nodes[0]) == topology.nodes[0]


def test_a_kernel_that_tells_of_no_nodes_is_one_with_everything(machine: Machine) -> None:
    machine.whole_memory(16)
    topology = machine.read("0-3")
    assert topology.nodes == (Node(0, single(0, 1, 2, 3), 16 * GIB, {0: 10}),)
    assert topology.warnings == ()


def test_two_sockets_are_two_nodes(tmp_path: Path) -> None:
    first, second = two_sockets(tmp_path).read("0-7").nodes
    assert (first.cpus, second.cpus) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert (first.distances, second.distances) == ({0: 10, 1: 21}, {0: 21, 1: 10})


def test_eight_nodes_know_how_far_the_others_are(machine: Machine) -> None:
    for node in range(8):
        far = [10 if other == node else 12 if other // 4 == node // 4 else 32 for other in range(8)]
        first = node * 8
        machine.node(node, f"{first}-{first + 7}", 32, " ".join(map(str, far)))
    topology = machine.read("0-63")
    assert [node.id for node in topology.hosts] == list(range(8))
    assert topology.nodes[5].distances[6] == 12
    assert topology.nodes[5].distances[3] == 32


def test_nodes_need_not_be_numbered_without_gaps(machine: Machine) -> None:
    machine.node(0, "0-1", 8, "10 40")
    machine.node(8, "2-3", 8, "40 10")
    assert [node.distances for node in machine.read("0-3").nodes] == [
        {0: 10, 8: 40},
        {0: 40, 8: 10},
    ]


def test_a_node_without_memory_works_on_its_nearest_neighbour_s(machine: Machine) -> None:
    machine.node(0, "0-1", 8, "10 32 32")
    machine.node(1, "2-3", 0, "32 10 12")
    machine.node(2, "4-5", 8, "32 12 10")
    topology = machine.read("0-5")
    assert [topology.memory_node(host).id for host in topology.hosts] == [0, 2, 2]


def test_memory_without_cores_hosts_nobody_and_is_the_last_resort(machine: Machine) -> None:
    machine.node(0, "0-1", 8, "10 20 14")
    machine.node(1, "2-3", 8, "20 10 24")
    machine.node(2, "", 256, "14 24 10")
    topology = machine.read("0-3")
    assert (topology.nodes[2].cores, topology.nodes[2].memory_bytes) == ((), 256 * GIB)
    assert [host.id for host in topology.hosts] == [0, 1]
    assert [topology.memory_node(host).id for host in topology.hosts] == [0, 1]


def test_cores_that_are_offline_are_not_there(machine: Machine) -> None:
    machine.node(0, "0-2,4-7", 16, "10")
    assert machine.read("0-7").nodes[0].cpus == (0, 1, 2, 4, 5, 6, 7)


def test_cores_that_the_thread_may_not_use_are_not_there(tmp_path: Path) -> None:
    topology = two_sockets(tmp_path).read("1-2")
    assert [node.cpus for node in topology.nodes] == [(1, 2), ()]
    assert [host.id for host in topology.hosts] == [0]


def test_a_cpuset_may_cut_a_node(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("0::/thoth")
    group = machine.version_2() / "thoth"
    write(group / "cpuset.cpus.effective", "2-5")
    write(group / "cpuset.mems.effective", "1")
    topology = machine.read("0-7")
    assert [node.cpus for node in topology.nodes] == [(2, 3), (4, 5)]
    assert [node.memory_bytes for node in topology.nodes] == [0, 32 * GIB]
    assert topology.memory_node(topology.nodes[0]).id == 1


def test_a_cpuset_of_version_1_counts_as_well(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("3:cpuset:/thoth")
    write(machine.version_1("cpuset") / "thoth" / "cpuset.cpus", "0,4")
    assert [node.cpus for node in machine.read("0-7").nodes] == [(0,), (4,)]


def test_a_cpuset_that_leaves_nothing_is_not_ours(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("0::/")
    write(machine.version_2() / "cpuset.cpus.effective", "8-15")
    assert machine.read("0-3").nodes[0].cpus == (0, 1, 2, 3)


def test_hyperthreads_are_one_core(machine: Machine) -> None:
    machine.node(0, "0-7", 16, "10")
    machine.hyperthreads("0,4")
    machine.hyperthreads("1,5")
    machine.hyperthreads("2,6")
    assert machine.read("0-6").nodes[0].cores == ((0, 4), (1, 5), (2, 6), (3,))


@pytest.mark.parametrize(
    ("quota", "cores"), [("max", 4), ("800000", 4), ("400000", 2), ("250000", 1), ("1000", 1)]
)
def test_a_quota_is_shared_by_the_hosts(tmp_path: Path, quota: str, cores: int) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("0::/")
    write(machine.version_2() / "cpu.max", f"{quota} 100000")
    topology = machine.read("0-7")
    assert [len(topology.affordable_cores(host)) for host in topology.hosts] == [cores, cores]


def test_devices_tell_their_node(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.gpu("0000:81:00.0", "1", "NVIDIA H100")
    machine.gpu("0000:01:00.0", "-1", "NVIDIA T4")
    machine.gpu("0000:c1:00.0", "7")
    other = machine.sysfs / "bus" / "pci" / "devices" / "0000:02:00.0"
    write(other / "vendor", "0x10de")
    write(other / "class", "0x0c0330")
    assert [(gpu.model, gpu.node) for gpu in machine.read("0-7").gpus] == [
        ("NVIDIA T4", None),
        ("NVIDIA H100", 1),
        # There is no node 7.
        ("", None),
    ]


def assert_is_taken_as_one_node(topology: Topology, why: str) -> None:
    assert topology.nodes == (Node(0, single(0, 1, 2, 3, 4, 5, 6, 7), 64 * GIB, {0: 10}),)
    [warning] = topology.warnings
    assert warning.startswith("the machine is taken as one node: ")
    assert why in warning


@pytest.mark.parametrize("name", ["cpulist", "meminfo", "distance"])
def test_a_missing_file_makes_it_one_node(tmp_path: Path, name: str) -> None:
    machine = two_sockets(tmp_path)
    machine.whole_memory(64)
    (machine.nodes / "node1" / name).unlink()
    assert_is_taken_as_one_node(machine.read("0-7"), f"node1/{name}")


@pytest.mark.parametrize(
    ("name", "garbage", "why"),
    [
        ("cpulist", "4-", "'4-' is neither a number nor a range"),
        ("cpulist", "7-4", "'7-4' runs backwards"),
        ("cpulist", "3-7", "a cpu is in two nodes"),
        ("meminfo", "", "meminfo has no MemTotal"),
        ("meminfo", "Node 1 MemTotal: lots kB", "meminfo has no MemTotal"),
        ("distance", "10", "shorter"),
        ("distance", "21 10 30", "longer"),
        ("distance", "far near", "far"),
    ],
)
def test_a_torn_file_makes_it_one_node(tmp_path: Path, name: str, garbage: str, why: str) -> None:
    machine = two_sockets(tmp_path)
    machine.whole_memory(64)
    write(machine.nodes / "node1" / name, garbage)
    assert_is_taken_as_one_node(machine.read("0-7"), why)


def test_nodes_that_could_run_nothing_make_it_one_node(machine: Machine) -> None:
    machine.whole_memory(64)
    machine.node(0, "8-15", 8, "10")
    assert_is_taken_as_one_node(machine.read("0-7"), "no node has a cpu")
    machine.node(0, "0-7", 0, "10")
    assert_is_taken_as_one_node(machine.read("0-7"), "no node has memory")


def test_a_folder_without_nodes_is_one_node(machine: Machine) -> None:
    machine.whole_memory(64)
    write(machine.nodes / "online", "0")
    assert_is_taken_as_one_node(machine.read("0-7"), "no node has a cpu")


@given(
    st.sampled_from(
        [
            "sys/devices/system/node/node1/cpulist",
            "sys/devices/system/node/node1/meminfo",
            "sys/devices/system/node/node1/distance",
            "sys/devices/system/node/node1x/cpulist",
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
            "sys/bus/pci/devices/0000:01:00.0/numa_node",
            "sys/fs/cgroup/unified/cpu.max",
            "sys/fs/cgroup/unified/memory.stat",
            "proc/meminfo",
            "proc/self/cgroup",
            "proc/self/mountinfo",
            "proc/self/status",
        ]
    ),
    st.binary(max_size=40),
)
def test_whatever_a_file_says_there_is_a_machine_to_run_on(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = two_sockets(Path(folder))
        machine.in_groups("0::/")
        machine.gpu("0000:01:00.0", "1")
        write(machine.version_2() / "memory.max", "1000")
        write(machine.root / name, "")
        (machine.root / name).write_bytes(content)
        topology = machine.read("0-7")
        assert topology.num_cpus == 8 or not topology.warnings
        assert topology.hosts
        for host in topology.hosts:
            topology.memory_node(host)
            assert topology.affordable_cores(host)


def test_this_machine_has_a_host_for_every_cpu_of_this_process() -> None:
    topology = read_topology()
    assert topology.warnings == ()
    assert {cpu for host in topology.hosts for cpu in host.cpus} == os.sched_getaffinity(0)
    assert all(topology.memory_node(host).memory_bytes for host in topology.hosts)
