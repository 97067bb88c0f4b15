"""Keeps a process on some cores, and its memory on a node.

Linux keeps both for each thread, and what a thread starts inherits them: a process is pinned before
anything in it has threads. Memory is placed when it is first touched; what was touched before stays
where it is.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.numa.kernel_files import format_ids

# linux/mempolicy.h. Bound memory would end the process when the node is full. Preferred memory then
# comes from the next node, and is slow; a node filled with cached files is full to it.
_DEFAULT, _PREFERRED = 0, 1
_SYSCALLS = {
    "x86_64": {"set_mempolicy": 238, "get_mempolicy": 239},
    "aarch64": {"set_mempolicy": 237, "get_mempolicy": 236},
}
# As many as a kernel can be built for. It takes one off the number of bits that it is told.
_MAX_NODES = 1024
_BITS = ctypes.c_ulong(_MAX_NODES + 1)
_NodeMask = ctypes.c_uint64 * (_MAX_NODES // 64)


@dataclass(frozen=True, slots=True)
class Pinning:
    """Why cpus and memory are not pinned; empty where they are."""

    cpus_denied: str
    memory_denied: str


def pin_to(memory_node: int, cpus: Collection[int]) -> Pinning:
    """The calling thread and those it starts from now on. Where it may not, it runs on unpinned."""
    return Pinning(_pin_cpus(cpus), _pin_memory(memory_node))


@contextmanager
def unpinned_after() -> Iterator[None]:
    """At the end the calling thread may run, and gets its memory, where it did before."""
    cpus = os.sched_getaffinity(0)
    policy, nodes = ctypes.c_int(_DEFAULT), _NodeMask()
    _call("get_mempolicy", ctypes.byref(policy), nodes, _BITS, None, ctypes.c_ulong(0))
    try:
        yield
    finally:
        _pin_cpus(cpus)
        _call("set_mempolicy", policy, nodes, _BITS)


def _pin_cpus(cpus: Collection[int]) -> str:
    """Linux takes from a list what the process may use, and refuses it when that is nothing."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        return f"cpus {format_ids(cpus)}: {error.strerror}"
    left_out = set(cpus) - os.sched_getaffinity(0)
    return f"cpus {format_ids(left_out)}: not for this process" if left_out else ""


def _pin_memory(node: int) -> str:
    if not 0 <= node < _MAX_NODES:
        return f"node {node}: no kernel has so many"
    nodes = _NodeMask()
    nodes[node // 64] = 1 << node % 64
    denied = _call("set_mempolicy", ctypes.c_int(_PREFERRED), nodes, _BITS)
    return f"node {node}: {denied}" if denied else ""


def _call(name: str, *arguments: object) -> str:
    """Why a system call failed; empty when it did not."""
    numbers = _SYSCALLS.get(platform.machine())
    if numbers is None:
        return f"{name} is not known on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(numbers[name]), *arguments) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
