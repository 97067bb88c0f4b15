"""A process that is pinned, and one that may not be. Each test has a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from cluster.numa import pin_to, read_topology
from tests.house.source import ROOT

BEGIN = """
import mmap, os, subprocess, sys, threading
from cluster.numa import pin_to, read_topology, unpinned_after
topology = read_topology()
host = topology.hosts[-1]
node, cpu, before = topology.memory_node(host).id, host.cpus[-1], os.sched_getaffinity(0)

def policy():
    # Of a mapping that asked for none of its own: that of the process.
    if not os.path.exists("/proc/self/numa_maps"):
        return "none"
    with open("/proc/self/numa_maps") as maps:
        return next(maps).split()[1]
"""
NODES = read_topology()


def in_a_process(script: str) -> None:
    """Runs it to its end; what it asserts holds."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout:
        pytest.skip(done.stdout.strip())


def test_a_pinned_process_stays_on_its_cores_with_all_it_starts() -> None:
    in_a_process("""
assert pin_to(node, [cpu]).cpus_denied == ""
found = [os.sched_getaffinity(0)]
thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
thread.start()
thread.join()
child = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
found.append({int(subprocess.run(child, capture_output=True, text=True).stdout)})
assert found == [{cpu}] * 3, found
""")


def test_a_pinned_process_prefers_the_memory_of_its_node() -> None:
    in_a_process("""
denied = pin_to(node, [cpu]).memory_denied
if denied:
    sys.exit(print(f"the machine denies it: {denied}"))
assert policy() == f"prefer:{node}", policy()
""")


@pytest.mark.skipif(len(NODES.nodes) == 1, reason="with one node all memory is of that node")
def test_memory_that_is_first_touched_by_a_pinned_process_is_of_its_node() -> None:
    in_a_process("""
denied = pin_to(node, [cpu]).memory_denied
if denied:
    sys.exit(print(f"the machine denies it: {denied}"))
arena = os.memfd_create("arena")
os.truncate(arena, 2**24)
memory = mmap.mmap(arena, 2**24)
memory.write(bytes(2**24))
with open("/proc/self/numa_maps") as maps:
    [pages] = [line.split() for line in maps if "memfd:arena" in line]
placed = [page.split("=")[0] for page in pages if page.startswith("N")]
assert placed == [f"N{node}"], pages
""")


def test_a_cpu_that_is_not_there_is_told_and_the_process_runs_on() -> None:
    in_a_process("""
pinning = pin_to(node, [8191])
assert pinning.cpus_denied == "cpus 8191: Invalid argument", pinning
assert os.sched_getaffinity(0) == before
""")


def test_cpus_that_are_left_out_are_told() -> None:
    in_a_process("""
pinning = pin_to(node, [cpu, 8190, 8191])
assert pinning.cpus_denied == "cpus 8190-8191: not for this process", pinning
assert os.sched_getaffinity(0) == {cpu}
""")


@pytest.mark.parametrize("absent", [999, 1024, 10**9, -1])
def test_a_node_that_is_not_there_is_told_and_the_cores_are_pinned(absent: int) -> None:
    in_a_process(f"""
pinning = pin_to({absent}, [cpu])
assert pinning.memory_denied.startswith("node {absent}: "), pinning
assert pinning.cpus_denied == ""
assert os.sched_getaffinity(0) == {{cpu}}
""")


def test_what_was_pinned_is_unpinned_again() -> None:
    in_a_process("""
was = policy()
with unpinned_after():
    pin_to(node, [cpu])
assert os.sched_getaffinity(0) == before
assert policy() == was, (policy(), was)
pin_to(node, [cpu])
pinned = policy()
with unpinned_after():
    pin_to(topology.nodes[0].id, before)
assert os.sched_getaffinity(0) == {cpu}
assert policy() == pinned
""")


def test_a_machine_whose_system_calls_are_not_known_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    everything = [cpu for host in NODES.hosts for cpu in host.cpus]
    pinning = pin_to(NODES.hosts[0].id, everything)
    assert pinning.memory_denied.endswith(": set_mempolicy is not known on riscv64")
