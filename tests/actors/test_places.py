"""Who computes where on a machine, and who attends for whom."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from actors.attention_link import partner
from actors.places import claimed, place_of_worker, places, threads_of_worker
from actors.supervisor import desired_members
from cluster.config import ThothConfig
from cluster.numa import format_ids
from cluster.scheduling.membership import Member, Role
from tests.numa.machines import two_sockets


def config(**sections: dict[str, object]) -> ThothConfig:
    return ThothConfig.model_validate({"attention_worker": {"count": 2}} | sections)


@pytest.mark.parametrize(
    ("worker", "rest", "gpu_worker", "attention"),
    [
        ({"device": "cpu"}, "0", "1-2", "3"),
        ({"device": "cpu", "threads": 1}, "0", "1", "2-3"),
        ({"device": "cuda"}, "0", "1", "2-3"),
        ({"device": "cuda", "count": 4}, "0", "1-2", "3"),
    ],
    ids=str,
)
def test_the_cores_of_a_node_are_shared_out(
    worker: dict[str, object], rest: str, gpu_worker: str, attention: str, tmp_path: Path
) -> None:
    topology = two_sockets(tmp_path).read("0-7")
    first, second = places(topology, config(gpu_worker=worker))
    plan = first.cores
    found = [format_ids(cpus) for cpus in (plan.rest, plan.gpu_worker, plan.attention)]
    assert found == [rest, gpu_worker, attention]
    assert (first.memory_node, second.memory_node) == (0, 1)
    assert set(second.host.cpus) == {4, 5, 6, 7}


def test_workers_take_the_nodes_in_turn_and_that_of_their_gpu(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.gpu("0000:01:00.0", "1", "H200")
    machine.gpu("0000:02:00.0", "-1", "H200")
    topology = machine.read("0-7")

    def hosts(device: str) -> list[int]:
        wanted = config(gpu_worker={"device": device, "count": 3})
        found = (place_of_worker(topology, wanted, f"gpu_worker-{i}") for i in range(3))
        return [place.host.id for place in found if place is not None]

    assert hosts("cpu") == [0, 1, 0]
    assert hosts("cuda") == [1, 1, 0]


def test_threads_are_a_share_of_the_cores_there_are(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    topology = machine.read("0-7")

    def threads(count: int, **more: object) -> int:
        wanted = config(gpu_worker={"count": count}, **more)  # type: ignore[arg-type]
        place = place_of_worker(topology, wanted, "gpu_worker-0")
        return threads_of_worker(topology, wanted, place)

    assert [threads(count) for count in (1, 2, 3, 8)] == [2, 2, 1, 1]
    alone = {"attention_worker": {"count": 0}}
    assert [threads(count, **alone) for count in (1, 2, 16)] == [8, 4, 1]


def test_a_quota_pays_for_fewer_threads(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    machine.in_groups("0::/pod")
    (machine.version_2() / "pod").mkdir(parents=True)
    (machine.version_2() / "pod" / "cpu.max").write_text("250000 100000\n")
    topology = machine.read("0-7")
    alone = ThothConfig()
    assert threads_of_worker(topology, alone, None) == 2


def test_a_node_is_claimed_by_one_as_long_as_there_are_others(tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = [stack.enter_context(claimed(tmp_path / "node", 1, 3)) for _ in range(5)]
        assert found == [1, 2, 0, 1, 1]
        with claimed(tmp_path / "another", 1, 3) as number:
            assert number == 1
    with claimed(tmp_path / "node", 1, 3) as number:
        assert number == 1


def member(name: str, node: str = "here", *, is_ready: bool = True) -> Member:
    role = Role(name.rpartition("-")[0])
    return Member(role, name, "i1", "", "", is_ready, pid=1, node=node)


def test_gpu_workers_share_the_attention_workers_of_their_node() -> None:
    near = [member("attention_worker-10"), member("attention_worker-2")]
    far = [member("attention_worker-0", "there"), member("attention_worker-3", "there")]
    absent = [member("attention_worker-1", is_ready=False), member("gpu_worker-5")]

    def chosen(*members: Member) -> list[str | None]:
        found = (partner(member(f"gpu_worker-{i}"), members) for i in range(3))
        return [None if each is None else each.name for each in found]

    two, ten = "attention_worker-2", "attention_worker-10"
    assert chosen(*near, *far, *absent) == [two, ten, two]
    assert chosen(*far, *absent) == [f"attention_worker-{i}" for i in (0, 3, 0)]
    assert chosen(*absent) == [None, None, None]


def test_attention_workers_stand_beside_gpu_workers_or_where_their_resource_is() -> None:
    def beside(**attention: object) -> list[str]:
        wanted = config(gpu_worker={"count": 2}, attention_worker=attention)
        return [d.beside for d in desired_members(wanted) if d.role is Role.ATTENTION_WORKER]

    assert beside(count=3) == ["gpu_worker-0", "gpu_worker-1", "gpu_worker-0"]
    assert beside(count=2, resource="attention") == ["", ""]
    assert beside() == []
