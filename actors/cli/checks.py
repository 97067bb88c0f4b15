"""What `thoth doctor` looks at. Every check is a function from settings to findings."""

from __future__ import annotations

import platform
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import psutil

from actors.cli.findings import Check, Level
from actors.cli.machine import (
    check_cores,
    check_gpus,
    check_huge_pages,
    check_memory,
    check_numa,
    check_pinning,
)
from actors.cli.runfile import RunFile
from cluster.config import ThothConfig, ray_auth_mode
from cluster.errors import ThothError
from cluster.kernels import kernels, kernels_available, why_not
from cluster.numa import read_topology

_PACKAGES = ("torch", "ray", "grpcio", "protobuf", "tokenizers", "wordllama")
_DISK_BYTES = 2 * 2**30
_GIB = 2**30


def all_checks(config: ThothConfig) -> Iterator[Check]:
    yield check_python()
    yield from map(check_package, _PACKAGES)
    yield check_faiss()
    yield check_kernels(config)
    topology = read_topology()
    yield check_cores(config, topology)
    yield check_memory(topology.limits)
    yield check_numa(topology)
    yield check_huge_pages()
    yield check_gpus(config, topology.gpus)
    yield check_pinning(config, topology)
    yield check_ray_auth()
    yield check_home(config)
    yield from check_ports(config)
    yield check_model(config)


def check_python() -> Check:
    return Check("python", Level.OK, f"{platform.python_version()} at {sys.executable}")


def check_package(name: str) -> Check:
    found = _installed(name)
    if found is None:
        return Check(name, Level.FAIL, "not installed", f"pip install {name}")
    return Check(name, Level.OK, found)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_faiss() -> Check:
    """faiss-cpu and faiss-gpu write to the same folder: the later one breaks the earlier."""
    found = {name: _installed(name) for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12")}
    there = [f"{name} {number}" for name, number in found.items() if number is not None]
    if not there:
        return Check("faiss", Level.FAIL, "not installed", "pip install faiss-cpu")
    if len(there) > 1:
        names = " ".join(name for name, number in found.items() if number is not None)
        return Check(
            "faiss",
            Level.FAIL,
            f"{' and '.join(there)} overwrite each other",
            f"pip uninstall {names}, then install one of them",
        )
    return Check("faiss", Level.OK, there[0])


def check_kernels(config: ThothConfig) -> Check:
    if kernels_available():
        return Check("kernels", Level.OK, f"thoth_kernels for {kernels().isa()}")
    if config.attention_worker.count:
        return Check(
            "kernels",
            Level.FAIL,
            f"not built, and attention workers need them: {why_not()}",
            "set attention_worker.count to 0, or install a C++20 compiler, then the package again",
        )
    return Check(
        "kernels",
        Level.WARN,
        f"not built, torch computes instead, several times slower: {why_not()}",
        "install a C++20 compiler, then the package again",
    )


def check_ray_auth() -> Check:
    mode = ray_auth_mode()
    match mode:
        case "token":
            return Check("ray authentication", Level.OK, "RAY_AUTH_MODE=token")
        case "":
            return Check(
                "ray authentication",
                Level.OK,
                "RAY_AUTH_MODE is not set: `up` uses token",
                "set it before `ray start`, whose default differs between versions",
            )
        case _:
            return Check(
                "ray authentication",
                Level.WARN,
                f"RAY_AUTH_MODE={mode}",
                "whoever reaches Ray's ports can run code: set RAY_AUTH_MODE=token",
            )


def check_home(config: ThothConfig) -> Check:
    home = config.home_dir
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
        free = psutil.disk_usage(str(home)).free
    except OSError as error:
        return Check(
            "home", Level.FAIL, f"{home}: {error.strerror}", "set home to a writable folder"
        )
    found = f"{home}, {free / _GIB:.1f} GiB free"
    if free < _DISK_BYTES:
        return Check("home", Level.WARN, found, f"{_DISK_BYTES // _GIB} GiB are advised")
    return Check("home", Level.OK, found)


def check_ports(config: ThothConfig) -> Iterator[Check]:
    run = RunFile(config.home_dir).read()
    gateway = config.gateway
    for name, port in (("http port", gateway.http_port), ("grpc port", gateway.grpc_port)):
        if port == 0 or is_free(gateway.http_host, port):
            yield Check(name, Level.OK, f"{port} is free" if port else "any free one")
        elif run is not None and run.is_alive:
            yield Check(name, Level.OK, f"{port} is taken, a cluster is up ({run.process.pid})")
        else:
            setting = f"gateway.{name.replace(' ', '_')}"
            yield Check(name, Level.FAIL, f"{port} is taken", f"set {setting} to another port")


def is_free(host: str, port: int) -> bool:
    """Whether a server could bind there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check_model(config: ThothConfig) -> Check:
    """Finds the file, checks its hash, and converts it if that was never done."""
    # Imports torch, which no other check needs.
    from cluster.models.catalogue import resolve_model  # noqa: PLC0415

    source = config.model.source
    try:
        folder = resolve_model(source, config.models_dir)
    except ThothError as error:
        return Check("model", Level.FAIL, error.message, error.limit or "see model.source")
    return Check("model", Level.OK, f"{source}: {folder.path}, {folder.fingerprint[:12]}")
