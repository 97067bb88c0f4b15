"""Promises (a) and (b) in every mode: wherever requests decode, and whichever sub-batch they are
in, an answer has the bits of one that was computed whole on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cluster.engine.tiers.copies import Copier
from cluster.ids import RequestId
from cluster.models.config import decoder_config
from cluster.request import Request, Sampling
from cluster.scheduling.curves import line
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageCosts, StageTimes, Work
from tests.engines import Hands, hands_of_every_backend
from tests.reuse.machines import Case, random_build
from tests.reuse.rigs import Build, Tiers, beside_every_step
from tests.reuse.stories import Story
from tests.tiers.copiers import LateSends
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())
FAST = hands_of_every_backend()[min(1, len(hands_of_every_backend()) - 1)]
MODES = [OffloadMode.NEO, OffloadMode.ADAPTIVE]


class Known(StageCosts):
    """Not corrected by what is measured, so that a test has one story."""

    def observed(
        self, works: Collection[Work], times: Collection[StageTimes], rest_s: float | None = None
    ) -> None:
        pass


def offload(mode: OffloadMode, random: Random) -> Callable[[], Offload]:
    """Hosts that are hidden easily or hardly, operators that are dear for few rows or not."""
    host_s, least_s = random.choice([1e-6, 1e-4]), random.choice([0.0, 1e-2])

    def make() -> Offload:
        costs = Known(line(1e-3, at_least=least_s), line(1e-8), line(1e-6), line(host_s))
        return Offload(mode, 4, 1.0, costs)

    return make


def crowded(
    seed: int,
    mode: OffloadMode,
    hands: Hands,
    folder: Path,
    copier: Callable[[], Copier] = beside_every_step,
) -> Case:
    """Requests without documents, all at once, for whom the device is much too small."""
    random = Random(seed)
    build = Build(
        CONFIG,
        hands,
        IterationLimits(64, 12, 64, CONFIG.max_position),
        num_blocks=random.randint(8, 12),
        tiers=Tiers(host_blocks=48),
        folder=folder,
        offload=offload(mode, random),
        copier=copier,
    )
    case = Case(random, build)
    for number in range(16):
        ids = tuple(random.randrange(CONFIG.vocab_size) for _ in range(random.randint(1, 60)))
        sampling = Sampling(max_tokens=random.randint(1, 24))
        request = Request(RequestId(f"r{number}"), (ids,), sampling, deadline_s=1e9)
        case.rig.engine.submit(request)
        case.requests[request.id] = request
        case.stories[request.id] = Story()
    while case.rig.engine.has_work:
        case.step()
        if random.random() < 0.02:
            case.rig.engine.cancel(random.choice(list(case.requests)))
    case.stop()
    case.assert_all_as_computed_whole()
    return case


@pytest.mark.parametrize("mode", MODES)
def test_a_crowd_is_answered_as_each_would_be_alone(mode: OffloadMode, tmp_path: Path) -> None:
    cases = [crowded(seed, mode, FAST, tmp_path / str(seed)) for seed in range(12)]
    kinds = sum((case.kinds for case in cases), Counter[PlanKind]())
    # Crowds that never used the host would show nothing.
    assert kinds.keys() == set(PlanKind)
    assert kinds[PlanKind.TWO_BATCH] > 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)
def test_every_backend_answers_a_crowd(mode: OffloadMode, hands: Hands, tmp_path: Path) -> None:
    for seed in range(100, 102):
        crowded(seed, mode, hands, tmp_path / str(seed))


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_late_to_the_host_is_not_attended_before(
    mode: OffloadMode, tmp_path: Path
) -> None:
    for seed in range(200, 206):
        crowded(seed, mode, FAST, tmp_path / str(seed), LateSends)


@pytest.mark.parametrize("mode", MODES)
def test_machines_with_documents_answer_as_if_all_were_computed(
    mode: OffloadMode, tmp_path: Path
) -> None:
    kinds: Counter[PlanKind] = Counter()
    for seed in range(20):
        random = Random(seed)
        build = random_build(random, CONFIG, FAST, tmp_path / str(seed))
        limits = replace(build.limits, step_tokens=64, max_running=8)
        tiers = replace(build.tiers, host_blocks=20)
        build = replace(build, limits=limits, tiers=tiers, offload=offload(mode, random))
        case = Case(random, build)
        case.run(12)
        case.assert_all_as_computed_whole()
        kinds += case.kinds
    assert kinds[PlanKind.ONE_BATCH] + kinds[PlanKind.TWO_BATCH] > 0
