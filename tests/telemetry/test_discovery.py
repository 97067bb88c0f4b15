"""The list that Prometheus reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.scheduling.membership import Member, Role
from cluster.telemetry.discovery import targets, write_targets


def member(role: Role, name: str, metrics_address: str) -> Member:
    return Member(role, name, "i1", "127.0.0.1:1", metrics_address, True, 1, node="n1")


def test_every_member_is_one_group_with_its_name_and_role() -> None:
    worker = member(Role.GPU_WORKER, "gpu_worker-0", "127.0.0.1:41234")
    labels = {"actor": "gpu_worker-0", "actor_role": "gpu_worker", "node": "n1"}
    assert targets([worker]) == [{"targets": ["127.0.0.1:41234"], "labels": labels}]


def test_a_member_without_a_page_is_left_out() -> None:
    assert targets([member(Role.GATEWAY, "gateway-a", "")]) == []


def test_the_order_of_members_does_not_change_the_list() -> None:
    pair = [member(Role.GPU_WORKER, f"gpu_worker-{n}", f"127.0.0.1:{n + 1}") for n in range(2)]
    assert targets(pair) == targets(pair[::-1])


def test_the_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "targets.json"
    pair = [member(Role.GPU_WORKER, f"gpu_worker-{n}", f"127.0.0.1:{n + 1}") for n in range(2)]
    write_targets(path, pair)
    write_targets(path, pair[:1])
    assert json.loads(path.read_text()) == targets(pair[:1])
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="run"):
        write_targets(tmp_path / "run" / "targets.json", [])
