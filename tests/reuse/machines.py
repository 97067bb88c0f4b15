"""Machines that are asked, disturbed and restarted at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from cluster.engine.tiers.copies import Copier
from cluster.errors import Overloaded
from cluster.ids import RequestId
from cluster.knowledge.cache import HostUse
from cluster.knowledge.counts import CacheCounts
from cluster.knowledge.node import Admission, Placement
from cluster.knowledge.policies import PolicyName
from cluster.models.config import DecoderConfig
from cluster.request import Request
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.plan import PlanKind
from tests.engines import Hands, Recorder
from tests.reuse.rigs import Build, Door, Rig, Tiers, beside_every_step
from tests.reuse.stories import Library, Story, assert_same_bits, random_ask, step


def random_tiers(random: Random) -> Tiers:
    host_blocks = random.choice([0, 6, 16])
    return Tiers(
        host_blocks=host_blocks,
        disk_blocks=random.choice([0, 15, 60]) if host_blocks else 0,
        policy=random.choice(list(PolicyName)),
        placement=random.choice(list(Placement)),
        admission=random.choice(list(Admission)),
        host_use=random.choice(list(HostUse)),
        kept_tokens=random.choice([0, 32]),
    )


def random_build(
    random: Random, config: DecoderConfig, hands: Hands, folder: Path, door: Door | None = None
) -> Build:
    max_running = random.randint(1, 5)
    limits = IterationLimits(
        step_tokens=random.choice([max_running, 20, 64, 512]),
        max_running=max_running,
        max_waiting=8,
        context_tokens=config.max_position,
    )
    num_blocks, tiers = random.choice([16, 18, 30]), random_tiers(random)
    if door is not None:
        tiers = replace(tiers, host_blocks=16, host_use=HostUse.ATTEND)
    return Build(config, hands, limits, num_blocks, tiers, folder, door)


@dataclass
class Case:
    """A machine that is asked, disturbed and restarted at random."""

    random: Random
    build: Build
    library: Library = field(init=False)
    requests: dict[RequestId, Request] = field(default_factory=dict)
    stories: dict[RequestId, Story] = field(default_factory=dict)
    recorder: Recorder = field(init=False)
    rig: Rig = field(init=False)
    counts: list[CacheCounts] = field(default_factory=list)
    kinds: Counter[PlanKind] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.library = Library.random(self.random, self.build.config, num_documents=5)
        self.start()

    def start(self) -> None:
        self.recorder = Recorder(self.build.hands.model(self.build.config))
        self.rig = self.build.rig(self.recorder)

    def run(self, num_requests: int) -> None:
        for number in range(num_requests):
            self.ask(f"r{number}")
            for _ in range(self.random.choice([0, 1, 3, 20])):
                self.step()
            self.disturb()
        while self.rig.engine.has_work:
            self.step()
        self.stop()

    def ask(self, name: str) -> None:
        request = random_ask(self.library, self.random, self.build.config, name)
        try:
            self.rig.engine.submit(request)
        except Overloaded:
            return
        self.requests[request.id] = request
        self.stories[request.id] = Story()

    def step(self) -> None:
        if self.rig.engine.has_work:
            report = step(self.rig.engine, self.recorder, self.stories)
            self.kinds[report.why.kind] += 1

    def disturb(self) -> None:
        match self.random.randrange(6):
            case 0 if self.stories:
                self.rig.engine.cancel(self.random.choice(list(self.stories)))
            case 1:
                self.damage_the_host()
            case 3:
                self.stop()
                self.start()

    def stop(self) -> None:
        self.counts.append(self.rig.shelves.cache.counts)
        self.rig.close()

    def damage_the_host(self) -> None:
        """One bit of every node that lies there alone. Who attends a copy now has verified it; a
        bit that flips afterwards is like one of the device."""
        arena = self.rig.shelves.arena
        for node in self.rig.shelves.cache.tree.nodes.values():
            is_alone = node.host and not node.device and not node.pins and node.job is None
            if arena is not None and is_alone:
                payload = arena.payload(self.random.choice(node.host))
                payload[self.random.randrange(len(payload))] ^= 1 << self.random.randrange(8)

    def assert_all_as_computed_whole(self) -> None:
        for request_id, request in self.requests.items():
            story = self.stories[request_id]
            assert_same_bits(story, self.alone(request))

    def alone(self, request: Request) -> Story:
        recorder = Recorder(self.build.hands.model(self.build.config))
        limits = IterationLimits(512, 1, 1, self.build.config.max_position)
        engine = self.build.hands.engine(self.build.config, limits, num_blocks=40, model=recorder)
        engine.submit(request)
        stories = {request.id: Story()}
        while engine.has_work:
            step(engine, recorder, stories)
        return stories[request.id]


def assert_promises(
    seed: int,
    config: DecoderConfig,
    hands: Hands,
    folder: Path,
    door: Door | None = None,
    copier: Callable[[], Copier] = beside_every_step,
) -> Case:
    """With a door, what lies on the host is attended by the process that is found there."""
    random = Random(seed)
    build = random_build(random, config, hands, folder, door)
    case = Case(random, replace(build, copier=copier))
    case.run(12)
    case.assert_all_as_computed_whole()
    for request_id, story in case.stories.items():
        if story.first is not None:
            counted = story.first.cached.total + story.first.num_computed
            assert counted == case.requests[request_id].num_prompt_tokens
    return case
