"""Documents are copied while the step that uses them computes, and every bit is what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch import Tensor

from cluster.engine.engine import DiskHands
from cluster.engine.forward import Model
from cluster.engine.tiers.copies import Copier, Copies
from cluster.engine.tiers.host_arena import HostArena
from cluster.ids import BlockId
from cluster.knowledge.commands import DiskCommand, DiskDone, Write
from cluster.models.config import decoder_config
from cluster.request import CachedTokens, Request
from cluster.scheduling.limits import IterationLimits
from tests.engines import Hands, PassedOn, Recorder
from tests.reuse.machines import assert_promises
from tests.reuse.rigs import Build, Rig, Tiers, beside_every_step
from tests.reuse.stories import Story, assert_same_bits
from tests.reuse.test_in_place import sink
from tests.reuse.test_sharing import DOCUMENT, HANDS, LIBRARY, SYSTEM, ask, cached
from tests.tiers.copiers import (
    Broken,
    Hold,
    WatchedCopier,
    before_the_step,
    breaks,
    by_slots,
    by_stream,
)
from tests.tiny_model import tiny_config

CONFIG = decoder_config({**tiny_config(), "num_hidden_layers": 4})
HELD_LAYER = 2
# The documents 0 and 1 with their system prompt, or document 2 with another, and an answer.
NUM_BLOCKS = 9
NOBODY = -1


@dataclass
class LettingGo:
    """A model that lets go of what is held when it has computed the layer before."""

    model: Model
    hold: Hold
    layers: list[int] = field(default_factory=list)

    def begin(self, token_ids: Tensor, positions: Tensor, /) -> LettingGoPass:
        return LettingGoPass(self.model.begin(token_ids, positions), self)


@dataclass
class LettingGoPass(PassedOn):
    model: LettingGo

    def finish(self, layer: int, o: Tensor, /) -> None:
        self.model.layers.append(layer)
        if layer == HELD_LAYER - 1:
            self.model.hold.let_go()
        self.inner.finish(layer, o)


def machine(
    folder: Path, copier: Copier, model: Model | None = None, tiers: Tiers | None = None
) -> tuple[Rig, Recorder]:
    limits = IterationLimits(64, 4, 16, CONFIG.max_position)
    tiers = tiers or Tiers(host_blocks=32)
    build = Build(CONFIG, HANDS, limits, NUM_BLOCKS, tiers, folder, copier=lambda: copier)
    recorder = Recorder(model or HANDS.model(CONFIG))
    return build.rig(recorder), recorder


OLD = LIBRARY.request("old", [2], (3, 4), salt=b"another")
OLD_AGAIN = LIBRARY.request("old again", [2], (5,), salt=b"another")
NEW = LIBRARY.request("new", [0, 1], (9, 3))


def fill(rig: Rig, recorder: Recorder) -> Story:
    """The documents 0 and 1 lie on the host alone; document 2 fills the device."""
    ask(rig, recorder, LIBRARY.request("first", [0, 1], (7, 8)))
    sink(rig)
    (story,) = ask(rig, recorder, OLD)
    return story


def whole(request: Request, folder: Path) -> Story:
    (story,) = ask(*machine(folder, before_the_step(), tiers=Tiers()), request)
    return story


def test_the_first_layers_are_computed_while_a_later_one_is_still_copied(tmp_path: Path) -> None:
    hold = Hold()
    copier = WatchedCopier(beside_every_step(), NOBODY, hold)
    model = LettingGo(HANDS.model(CONFIG), hold)
    rig, recorder = machine(tmp_path, copier, model)
    fill(rig, recorder)
    hold.event.clear()
    copier.number, copier.num_begun = HELD_LAYER, 0
    model.layers.clear()
    (story,) = ask(rig, recorder, NEW)
    assert cached(story) == CachedTokens(host=SYSTEM + 2 * DOCUMENT)
    assert model.layers[: CONFIG.num_layers] == list(range(CONFIG.num_layers))
    assert copier.num_begun == 1

    before, its_recorder = machine(tmp_path / "before", before_the_step())
    fill(before, its_recorder)
    (expected,) = ask(before, its_recorder, NEW)
    assert_same_bits(story, expected)
    assert_same_bits(story, whole(NEW, tmp_path / "whole"))
    assert len(story.tokens) == len(expected.tokens) == 4


def test_what_leaves_in_the_step_that_writes_its_blocks_again_is_what_it_was(
    tmp_path: Path,
) -> None:
    hold = Hold()
    copier = WatchedCopier(beside_every_step(), NOBODY, hold)
    rig, recorder = machine(tmp_path, copier, LettingGo(HANDS.model(CONFIG), hold))
    fill(rig, recorder)
    hold.event.clear()
    copier.number = HELD_LAYER
    ask(rig, recorder, NEW)
    (again,) = ask(rig, recorder, OLD_AGAIN)
    assert cached(again) == CachedTokens(device=SYSTEM, host=DOCUMENT)
    assert_same_bits(again, whole(OLD_AGAIN, tmp_path / "whole"))
    assert len(again.tokens) == 4


def test_an_engine_whose_copy_fails_in_the_middle_dies_and_leaves_nothing_half_written(
    tmp_path: Path,
) -> None:
    copier = WatchedCopier(beside_every_step(), NOBODY, breaks)
    rig, recorder = machine(tmp_path, copier)
    fill(rig, recorder)
    arena = rig.shelves.arena
    assert arena is not None
    were_there = {found.record.key for found in arena.scan()}
    copier.number = HELD_LAYER
    rig.engine.submit(NEW)
    with pytest.raises(Broken):
        rig.engine.step()
    assert {found.record.key for found in arena.scan()} == were_there
    rig.close()


@dataclass
class Counted:
    """Knows the host's blocks that were copied last, and how often there were any."""

    copier: Copier
    blocks: set[BlockId] = field(default_factory=set)
    num_begun: int = 0

    def begin(self, copies: Copies, /) -> None:
        self.num_begun += 1
        self.blocks = {
            BlockId(block) for block in (*copies.outs.target.tolist(), *copies.ins.source.tolist())
        }
        self.copier.begin(copies)

    def wait(self, layer: int, /) -> None:
        self.copier.wait(layer)

    def finish(self) -> None:
        self.copier.finish()

    def close(self) -> None:
        self.copier.close()


@dataclass
class Whole:
    """A disk that is told to write what is whole when it is told, and nothing else."""

    disk: DiskHands
    arena: HostArena
    last: Counted
    num_held_back: int = 0

    def submit(self, commands: Sequence[DiskCommand], /) -> None:
        for command in commands:
            if isinstance(command, Write):
                self.arena.verify(command.record.key, command.host)
                self.num_held_back += not self.last.blocks.isdisjoint(command.host)
        self.disk.submit(commands)

    def completed(self, timeout_s: float, /) -> tuple[DiskDone, ...]:
        return self.disk.completed(timeout_s)


def test_what_leaves_in_a_step_is_written_to_disk_after_it(tmp_path: Path) -> None:
    copier = Counted(beside_every_step())
    rig, recorder = machine(tmp_path, copier, tiers=Tiers(host_blocks=12, disk_blocks=60))
    assert rig.engine.disk is not None
    assert rig.shelves.arena is not None
    disk = Whole(rig.engine.disk, rig.shelves.arena, copier)
    rig.engine.disk = disk
    for turn in range(4):
        for number in range(6):
            salt = bytes([number])
            request = LIBRARY.request(f"{turn} {number}", [number], (turn, number), salt=salt)
            (story,) = ask(rig, recorder, request)
            assert len(story.tokens) == 4
    assert disk.num_held_back
    assert not rig.shelves.cache.counts.failed_writes
    rig.close()


@pytest.mark.parametrize("copier_of", [before_the_step, by_stream, by_slots])
@pytest.mark.parametrize("hands", [Hands("torch"), HANDS], ids=str)
def test_every_copier_keeps_the_promises(
    copier_of: Callable[[], Copier], hands: Hands, tmp_path: Path
) -> None:
    begun: list[Counted] = []

    def counted() -> Copier:
        begun.append(Counted(copier_of()))
        return begun[-1]

    for seed in range(4000, 4006):
        assert_promises(seed, CONFIG, hands, tmp_path / str(seed), copier=counted)
    assert sum(copier.num_begun for copier in begun) > 10
