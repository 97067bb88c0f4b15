"""What the control groups leave to this process.

A group is held to its own limits and to those of every group above it, so each of them is asked,
from the process's own up to the mount. Version 1 has a hierarchy for each controller, version 2 one
for all, and some machines have both. What no file limits is not limited, and of two limits the
smaller one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.numa.kernel_files import naming, parse_ids, read_if_there

# The controller of version 2, as /proc/self/cgroup writes it: all of them.
_ALL = ""
# Version 1 has no word for "none": it writes as many bytes as it can count.
_BOUNDLESS_BYTES = 2**60


@dataclass(frozen=True, slots=True)
class Limits:
    """None where nothing limits. `quota_cpus` is how many may be busy at a time.

    `memory_left_bytes` counts pages of files that nobody has read lately as free. A `warning` says
    what could not be understood; then no limit is known.
    """

    cpus: frozenset[int] | None = None
    memory_nodes: frozenset[int] | None = None
    quota_cpus: float | None = None
    memory_bytes: int | None = None
    memory_left_bytes: int | None = None
    warning: str = ""


def read_limits(proc: Path = Path("/proc")) -> Limits:
    """Of the process that is `self` in there; its groups are where its `mountinfo` says."""
    try:
        return _limits(proc)
    except ValueError as error:
        return Limits(warning=f"the limits of the control groups are not known: {error}")


def _limits(proc: Path) -> Limits:
    sets = _groups(proc, "cpuset")
    cpus = (_ids(group, "cpuset.cpus.effective", "cpuset.cpus") for group in sets)
    memory_nodes = (_ids(group, "cpuset.mems.effective", "cpuset.mems") for group in sets)
    quotas = [quota for group in _groups(proc, "cpu") if (quota := _quota(group)) is not None]
    rooms = [room for group in _groups(proc, "memory") if (room := _room(group)) is not None]
    return Limits(
        cpus=_common(cpus),
        memory_nodes=_common([_allowed_memory(proc), *memory_nodes]),
        quota_cpus=min(quotas, default=None),
        memory_bytes=min((limit for limit, _ in rooms), default=None),
        memory_left_bytes=min((left for _, left in rooms), default=None),
    )


def _groups(proc: Path, controller: str) -> tuple[Path, ...]:
    """The folders of this process's group and of those above it, as far as they can be seen."""
    own = _own_groups(proc)
    return tuple(
        folder
        for controllers, root, mount in _mounts(proc)
        for name in (_ALL, controller)
        if name in controllers and name in own
        for folder in _upwards(own[name], root, mount)
    )


def _own_groups(proc: Path) -> dict[str, PurePosixPath]:
    """By controller. Lines are `4:cpu,cpuacct:/path`, and `0::/path` in version 2."""
    own: dict[str, PurePosixPath] = {}
    with naming(proc / "self" / "cgroup"):
        for line in read_if_there(proc / "self" / "cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), PurePosixPath(path))
    return own


def _mounts(proc: Path) -> Iterator[tuple[frozenset[str], PurePosixPath, Path]]:
    """Controllers, the group at the root of the mount, and the folder it is seen in.

    Lines are `id parent device root folder ... - type source options`.
    """
    for line in read_if_there(proc / "self" / "mountinfo").splitlines():
        match line.split():
            case [_, _, _, root, folder, *_, "-", "cgroup2", _, _]:
                yield frozenset({_ALL}), PurePosixPath(root), Path(folder)
            case [_, _, _, root, folder, *_, "-", "cgroup", _, options]:
                yield frozenset(options.split(",")), PurePosixPath(root), Path(folder)
            case _:
                pass


def _upwards(group: PurePosixPath, root: PurePosixPath, mount: Path) -> Iterator[Path]:
    """A group outside of what is mounted leaves the mount itself: a container sees no more."""
    is_inside = group.is_relative_to(root) and ".." not in group.parts
    names = group.relative_to(root).parts if is_inside else ()
    for depth in range(len(names), -1, -1):
        yield mount.joinpath(*names[:depth])


def _first(group: Path, *names: str) -> str:
    """What the first file that is there says."""
    return next((text for name in names if (text := read_if_there(group / name))), "")


def _common(sets: Iterable[frozenset[int]]) -> frozenset[int] | None:
    """What is in each that has anything: a set for nobody is one that was not filled in."""
    filled = [each for each in sets if each]
    return frozenset.intersection(*filled) if filled else None


def _ids(group: Path, *names: str) -> frozenset[int]:
    with naming(group):
        return parse_ids(_first(group, *names))


def _allowed_memory(proc: Path) -> frozenset[int]:
    """The kernel's own account of the process, where no group can be seen."""
    status = proc / "self" / "status"
    with naming(status):
        return parse_ids(_field(read_if_there(status), "Mems_allowed_list:") or "")


def _field(text: str, name: str) -> str | None:
    """What follows a name at the beginning of a line."""
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return next((words[1] for words in lines if len(words) == 2 and words[0] == name), None)


def _quota(group: Path) -> float | None:
    with naming(group):
        told = _first(group, "cpu.max").split() or [
            _first(group, "cpu.cfs_quota_us"),
            _first(group, "cpu.cfs_period_us"),
        ]
        if told[0] in {"", "max", "-1"}:
            return None
        quota, period = map(int, told)
        return quota / period


def _room(group: Path) -> tuple[int, int] | None:
    """The limit, and what is left of it."""
    with naming(group):
        told = _first(group, "memory.max", "memory.limit_in_bytes")
        limit = _BOUNDLESS_BYTES if told in {"", "max"} else int(told)
        if limit >= _BOUNDLESS_BYTES:
            return None
        used = int(_first(group, "memory.current", "memory.usage_in_bytes") or 0)
        return limit, max(0, limit - max(0, used - _reclaimable_bytes(group)))


def _reclaimable_bytes(group: Path) -> int:
    """Of the group with all below it, which version 1 calls `total_`."""
    told = read_if_there(group / "memory.stat")
    return int(_field(told, "total_inactive_file") or _field(told, "inactive_file") or 0)
