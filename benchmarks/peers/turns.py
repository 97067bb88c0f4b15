"""Engines started side by side and measured in turn, cell by cell, round after round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.peers.catalogue import FOLDER, PACKAGED, Places, Variant
from benchmarks.peers.cells import Cell, Point, Rate, count_of
from benchmarks.peers.child import Child, Command, EngineFailed, cores_for
from benchmarks.peers.install import packaged_gguf
from benchmarks.peers.protocol import EngineRefused, Sample, Spec


@dataclass(frozen=True, slots=True)
class Size:
    """Thread counts in order, cells in order, and how often each is measured."""

    threads: tuple[int, ...]
    cells: tuple[Cell, ...]
    num_rounds: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What does not change during a run: where the peers are, the model as a float32 folder, and
    the ids that prompts are cut from."""

    places: Places
    folder: Path
    text: tuple[int, ...]
    console: Console

    def start(self, variant: Variant, threads: int) -> Child:
        """Returns when it is warm. Raises EngineRefused, EngineFailed."""
        absent = self.places.absent(variant)
        if absent:
            raise EngineRefused(f"{absent[0].name} is not installed: python -m benchmarks.peers")
        python = self.places.python(variant.environment)
        spec = Spec(
            model=str(self._model(variant)),
            weights=variant.weights,
            threads=threads,
            cores=tuple(cores_for(threads)),
            text=self.text,
            programs=str(self.places.programs),
        )
        return Child(Command(python, f"benchmarks.peers.{variant.module}"), spec)

    def _model(self, variant: Variant) -> Path:
        if variant.source == FOLDER:
            return self.folder
        if variant.source == PACKAGED:
            return packaged_gguf()
        return self.places.models / variant.source


@dataclass(slots=True)
class Found:
    """Everything measured so far. An engine that is `missing` for a reason is not started again."""

    samples: dict[str, dict[Point, list[Sample]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def rates(self) -> Mapping[str, Mapping[Point, Rate]]:
        return {
            name: {point: Rate.of(samples) for point, samples in points.items()}
            for name, points in self.samples.items()
        }


def take_turns(
    bench: Bench, size: Size, threads: int, variants: Sequence[Variant], found: Found
) -> None:
    """Adds to `found`. An engine that fails is left out from there on."""
    with ExitStack() as stack:
        engines = _started(bench, threads, variants, found, stack)
        for cell in size.cells:
            point = Point(threads, cell.name)
            names = [v.name for v in variants if cell.name not in v.skips]
            for number in range(size.num_rounds):
                bench.console.print(f"{point}: round {number + 1} of {size.num_rounds}")
                for name in names:
                    _sample(cell, point, name, engines, found)


def _started(
    bench: Bench, threads: int, variants: Sequence[Variant], found: Found, stack: ExitStack
) -> dict[str, Child]:
    engines = {}
    for variant in (v for v in variants if v.name not in found.missing):
        try:
            engine = stack.enter_context(bench.start(variant, threads))
        except (EngineRefused, EngineFailed) as error:
            found.missing[variant.name] = str(error)
            bench.console.print(f"left out: {variant.name}: {error}", markup=False)
        else:
            engines[variant.name] = engine
            found.versions[variant.name] = engine.version
            bench.console.print(f"started: {variant.name}, {count_of(threads, 'thread')}")
    return engines


def _sample(cell: Cell, point: Point, name: str, engines: dict[str, Child], found: Found) -> None:
    if name not in engines:
        return
    try:
        sample = cell.sample(engines[name])
    except EngineFailed as error:
        found.missing[name] = f"{point}: {error}"
        engines.pop(name).close()
    else:
        found.samples.setdefault(name, {}).setdefault(point, []).append(sample)
