"""What the rows say of NEO's figures, and of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.offload_sim_cells import ON_2XH100, ON_A10G, ON_T4, Cell, Run
from benchmarks.offload_sim_load import Found
from benchmarks.offload_sim_pays import Grid, Point
from benchmarks.result import Verdict
from cluster.scheduling.offload import OffloadMode

# The gains that the paper reports: at best, with the hosts of four sizes, and with two H100.
T4_GAIN = 7.5
HOST_GAINS = {"g5.2xlarge": 0.12, "g5.4xlarge": 0.13, "g5.8xlarge": 0.30, "g5.16xlarge": 0.79}
H100_GAIN = 0.14
# A gain is met within a factor of two either way: the machines are sheets, not the paper's.
FACTOR = 2.0
LEAST_OF_GPU_ONLY = 0.99
MOST_OF_LATENCY = 1.02
LEAST_OF_NEO = 0.99


@dataclass(frozen=True, slots=True)
class Results:
    """Of every cell in every mode, with all requests at once and with a moderate rate of them."""

    at_once: Mapping[Run, Found]
    moderate: Mapping[Run, Found]
    rates: Mapping[Cell, float]

    @property
    def cells(self) -> list[Cell]:
        return list(self.rates)

    def moderate_of(self, cell: Cell, mode: OffloadMode) -> Found:
        return self.moderate[Run(cell, mode, self.rates[cell])]

    def ratio(self, cell: Cell, mode: OffloadMode) -> float:
        """Throughput to gpu_only's."""
        alone = self.at_once[Run(cell, OffloadMode.GPU_ONLY)].tokens_per_s
        return self.at_once[Run(cell, mode)].tokens_per_s / alone

    def whole_ratio(self, cell: Cell, mode: OffloadMode, other: OffloadMode) -> float:
        """Of all tokens in all the time: what is between the marks may be more of prompts in one
        mode and more of answers in another."""
        found = (self.at_once[Run(cell, each)].whole_tokens_per_s for each in (mode, other))
        return next(found) / next(found)

    def best_gain(self, machine: object, mode: OffloadMode) -> float:
        return max(self.ratio(c, mode) for c in self.cells if c.machine == machine) - 1


def verdicts(results: Results, grid: Grid) -> list[Verdict]:
    return [*_published(results), *_ours(results), *_pays(grid)]


def _published(results: Results) -> Iterator[Verdict]:
    """Each of `neo` beside the paper's figure."""
    neo = OffloadMode.NEO
    yield _near("T4 with 7B, a pool of 864 tokens", T4_GAIN - 1, results.best_gain(ON_T4, neo))
    machines = {cell.machine for cell in results.cells}
    there = {name: machine for name, machine in ON_A10G.items() if machine in machines}
    gains = {name: results.best_gain(machine, neo) for name, machine in there.items()}
    yield Verdict(
        "neo on an A10G: the gain rises with the host's bandwidth",
        ", ".join(f"{name} {gain:+.0%}" for name, gain in gains.items()),
        list(gains.values()) == sorted(gains.values()),
    )
    for name, gain in gains.items():
        yield _near(f"A10G with 8B, {name}", HOST_GAINS[name], gain)
    yield _near("2xH100 with 70B", H100_GAIN, results.best_gain(ON_2XH100, neo))


def _near(where: str, reported: float, gain: float) -> Verdict:
    return Verdict(
        f"neo on {where}: the reported gain of {reported:.0%}, within a factor of {FACTOR:.0f}",
        f"{gain:+.0%} at best",
        reported / FACTOR <= gain <= reported * FACTOR,
    )


def _ours(results: Results) -> Iterator[Verdict]:
    adaptive, neo, alone = OffloadMode.ADAPTIVE, OffloadMode.NEO, OffloadMode.GPU_ONLY
    for other, least in ((neo, LEAST_OF_NEO), (alone, LEAST_OF_GPU_ONLY)):
        yield _least(
            f"adaptive has {least} of {other}'s throughput or more in every cell",
            {cell: results.whole_ratio(cell, adaptive, other) for cell in results.cells},
            least,
        )
    latencies = {
        cell: results.moderate_of(cell, alone).latency_s
        / results.moderate_of(cell, adaptive).latency_s
        for cell in results.cells
    }
    yield _least(
        f"at a moderate rate a token of adaptive takes {MOST_OF_LATENCY} of gpu_only's seconds or "
        "less in every cell (their inverse)",
        latencies,
        1 / MOST_OF_LATENCY,
    )


def _least(aim: str, values: Mapping[Cell, float], least: float) -> Verdict:
    cell = min(values, key=lambda each: values[each])
    num_met = sum(value >= least for value in values.values())
    return Verdict(
        aim,
        f"{num_met} of {len(values)}; least {values[cell]:.3f} ({cell})",
        num_met == len(values),
    )


def _pays(grid: Grid) -> Iterator[Verdict]:
    neo, adaptive = grid[OffloadMode.NEO], grid[OffloadMode.ADAPTIVE]
    yield from sides("neo", "2 T_l / T_a + 3 + T_a / T_l", [(p, p.border) for p in neo])
    yield from sides("adaptive", "2 T_l / T_a + 1", [(p, p.border_of_one) for p in adaptive])
    for other in (OffloadMode.NEO, OffloadMode.GPU_ONLY):
        pairs = list(zip(grid[OffloadMode.ADAPTIVE], grid[other], strict=True))
        behind = [p for p, q in pairs if p.rows_per_s < LEAST_OF_GPU_ONLY * q.rows_per_s]
        yield Verdict(
            f"adaptive, decoding alone: {LEAST_OF_GPU_ONLY} of {other}'s rows a second or more at "
            "every N_G / N_C",
            f"{len(pairs) - len(behind)} of {len(pairs)}{_said(behind)}",
            not behind,
        )


def sides(mode: str, formula: str, points: list[tuple[Point, float]]) -> Iterator[Verdict]:
    """What is planned on either side of a border."""
    clear = [(point, border) for point, border in points if point.is_clear_of(border)]
    for pays in (True, False):
        side = [point for point, border in clear if (point.ratio < border) is pays]
        wrong = [point for point in side if point.is_two_batch is not pays]
        yield Verdict(
            f"{mode}, decoding alone: {'two sub-batches' if pays else 'one'} where N_G / N_C is "
            f"{'less' if pays else 'more'} than {formula}",
            f"{len(side) - len(wrong)} of {len(side)}{_said(wrong)}",
            not wrong,
        )


def _said(points: list[Point]) -> str:
    return "".join(f"; not at {p.ratio:g} with T_a / T_l {p.share:g}" for p in points)
