"""Who is alive, against a naive model of leases."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.scheduling.membership import (
    Desired,
    LeasePolicy,
    Member,
    Membership,
    Role,
    ShutDown,
    Start,
)

POLICY = LeasePolicy(lease_s=5.0, start_s=20.0, idle_s=60.0, backoff_s=1.0, max_backoff_s=8.0)
WANTED = (
    Desired(Role.SCHEDULER, "scheduler"),
    Desired(Role.RETRIEVER, "retriever"),
    Desired(Role.GPU_WORKER, "gpu_worker-0"),
)
NAMES = [d.name for d in WANTED]


def member(name: str, incarnation: int = 1, *, is_ready: bool = True) -> Member:
    role = Role(name.split("-", maxsplit=1)[0])
    return Member(role, name, str(incarnation), f"{name}:{incarnation}", "", is_ready, pid=1)


def starts(membership: Membership, now_s: float) -> list[tuple[str, int]]:
    commands = membership.tick(now_s)
    return [(c.desired.name, c.attempt) for c in commands if isinstance(c, Start)]


class Leases(RuleBasedStateMachine):
    """The model: for each name, until when somebody answers for it or is on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.brain = Membership(WANTED, POLICY, 0.0)
        self.incarnations = dict.fromkeys(NAMES, 0)
        self.renewed_s: dict[str, float] = {}
        self.started_s: dict[str, float] = {}
        self.gateway_s = 0.0
        self.is_over = False

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.9, 6.0, 21.0]))
    def tick(self, seconds: float) -> None:
        self.now_s += seconds
        if self.is_over:
            return
        for command in self.brain.tick(self.now_s):
            if isinstance(command, ShutDown):
                assert self.now_s - self.gateway_s >= POLICY.idle_s
                self.is_over = True
                return
            name = command.desired.name
            # Nobody is started beside somebody whose lease holds, or who is still starting.
            assert self.now_s - self.renewed_s.get(name, -99) >= POLICY.lease_s
            assert name not in self.started_s or (
                self.now_s - self.started_s[name] >= POLICY.start_s
                or self.renewed_s.get(name, -1.0) >= self.started_s[name]
            )
            self.started_s[name] = self.now_s

    @rule(name=st.sampled_from(NAMES), is_new=st.booleans(), is_ready=st.booleans())
    def renew(self, name: str, is_new: bool, is_ready: bool) -> None:
        self.incarnations[name] += is_new
        self.renewed_s[name] = self.now_s
        said = member(name, self.incarnations[name], is_ready=is_ready)
        self.brain.renewed(said, self.now_s)

    @rule()
    def gateway_renews(self) -> None:
        self.gateway_s = self.now_s
        self.brain.renewed(member("gateway"), self.now_s)

    @invariant()
    def members_hold_leases(self) -> None:
        self.brain.check()
        if self.is_over:
            return
        for known in self.brain.members():
            if known.role is not Role.GATEWAY:
                assert known.incarnation == str(self.incarnations[known.name])


Leases.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLeases = Leases.TestCase


def test_everyone_wanted_is_started_once_at_first() -> None:
    membership = Membership(WANTED, POLICY, 0.0)
    assert starts(membership, 0.0) == [(name, 1) for name in NAMES]
    assert starts(membership, 1.0) == []


def test_who_is_to_stand_beside_another_is_started_on_its_node() -> None:
    beside = Desired(Role.ATTENTION_WORKER, "attention_worker-0", beside="gpu_worker-0")
    membership = Membership((*WANTED, beside), POLICY, 0.0)
    assert starts(membership, 0.0) == [(name, 1) for name in NAMES]
    there = replace(member("gpu_worker-0", is_ready=False), node="n7")
    membership.renewed(there, 1.0)
    (start,) = membership.tick(1.0)
    assert start == Start(beside, 1, "n7")
    # It goes on when its neighbour is lost, and waits for it when both are.
    membership.renewed(member("attention_worker-0"), 2.0)
    assert starts(membership, 6.5) == [("gpu_worker-0", 2)]
    assert starts(membership, 8.0) == []
    membership.renewed(replace(there, node="n8"), 9.0)
    (start,) = membership.tick(9.0)
    assert start == Start(beside, 2, "n8")


def test_a_member_that_falls_silent_is_started_again_and_counted() -> None:
    membership = Membership(WANTED, POLICY, 0.0)
    membership.tick(0.0)
    for name in NAMES:
        membership.renewed(member(name), 1.0)
    for name in NAMES[1:]:
        membership.renewed(member(name), 6.5)
    assert starts(membership, 6.5) == [("scheduler", 2)]
    assert {m.name for m in membership.members()} == set(NAMES[1:])
    membership.renewed(member("scheduler", 2), 8.0)
    status = {s.desired.name: s for s in membership.status()}
    assert status["scheduler"].num_restarts == 1
    assert status["retriever"].num_restarts == 0


def test_failures_in_a_row_are_tried_ever_later() -> None:
    membership = Membership(WANTED[:1], POLICY, 0.0)
    now_s, tries = 0.0, []
    for _ in range(400):
        if starts(membership, now_s):
            tries.append(now_s)
            membership.start_failed("scheduler", now_s)
        membership.renewed(member("gateway"), now_s)
        now_s += 0.25
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[:5] == [0.25, 2.0, 4.0, 8.0, 8.0]


def test_a_ready_member_clears_the_record_of_failures() -> None:
    membership = Membership(WANTED[:1], POLICY, 0.0)
    membership.tick(0.0)
    membership.start_failed("scheduler", 0.0)
    assert starts(membership, 0.0) == [("scheduler", 2)]
    membership.renewed(member("scheduler"), 1.0)
    assert starts(membership, 6.0) == [("scheduler", 3)]


def test_without_a_gateway_the_cluster_ends() -> None:
    membership = Membership(WANTED, POLICY, 0.0)
    membership.renewed(member("gateway"), 10.0)
    assert not any(isinstance(c, ShutDown) for c in membership.tick(74.9))
    (command,) = membership.tick(75.1)
    assert isinstance(command, ShutDown)
    assert "no gateway for 60 s" in command.why


def test_a_gateway_is_a_member_while_its_lease_holds() -> None:
    membership = Membership((), POLICY, 0.0)
    membership.renewed(member("gateway"), 1.0)
    assert [m.name for m in membership.members()] == ["gateway"]
    membership.tick(6.1)
    assert membership.members() == ()
