"""The machines, models and loads of NEO's evaluation (arXiv 2411.01142, section 6), as data."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cache_traces import data_folder
from benchmarks.catalogue import Scale
from benchmarks.hardware import (
    A10G,
    G4DN_4XLARGE,
    G5,
    H100,
    H200,
    LLAMA_2_7B,
    LLAMA_3_8B,
    LLAMA_3_70B,
    P5_EIGHTH,
    P5_QUARTER,
    T4,
    Device,
    Host,
    Model,
    copied_block_s,
    device_blocks,
    host_blocks,
    stage_costs,
)
from benchmarks.offload_sim_clock import Bus, SimulatedEngine
from benchmarks.offload_sim_load import Found, Lengths, Load, Traced, served
from benchmarks.result import CannotRun
from cluster.blocks.pool import BLOCK_TOKENS, BlockPool
from cluster.knowledge.cache import no_cache
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.stages import StageCosts

STEP_TOKENS = 2048
CONTEXT_TOKENS = 2**17
# The T4 of the paper's figure has so many tokens for keys and values.
T4_TOKENS = 864
# Of the answers a second that gpu_only reaches when all come at once.
MODERATE = 0.7


@dataclass(frozen=True, slots=True)
class Machine:
    """`pool_tokens` 0: what the device's memory holds beside the weights. So many may run as make
    several times what fits the device, and few enough that a load replaces all of them: else its
    prompts are all computed before its answers, and no rate between them says anything."""

    device: Device
    host: Host
    model: Model
    pool_tokens: int = 0
    max_running: int = 128

    def costs(self) -> StageCosts:
        """A value of its own: measurements change it."""
        return stage_costs(self.device, self.host, self.model)

    @property
    def num_blocks(self) -> int:
        return self.pool_tokens // BLOCK_TOKENS or device_blocks(self.device, self.model)

    @property
    def bus(self) -> Bus:
        return Bus(copied_block_s(self.device, self.model))

    def __str__(self) -> str:
        return f"{self.device.name}, {self.host.name}, {self.model.name}"


@dataclass(frozen=True, slots=True)
class Cell:
    machine: Machine
    lengths: Lengths | Traced
    count: int

    def __str__(self) -> str:
        return f"{self.machine}: {self.lengths}"


@dataclass(frozen=True, slots=True)
class Run:
    """A load of a cell in a mode; `rate` None: all come at once."""

    cell: Cell
    mode: OffloadMode
    rate: float | None = None

    def found(self) -> Found:
        machine = self.cell.machine
        engine = engine_of(machine, self.mode)
        done = served(engine, self.load)
        engine.scheduler.check()
        return done

    @property
    def load(self) -> Load:
        if self.rate is None:
            return Load(self.cell.lengths, self.cell.count, begun=self.cell.machine.max_running)
        return Load(self.cell.lengths, self.cell.count, self.rate)


def engine_of(
    machine: Machine, mode: OffloadMode, believed: StageCosts | None = None
) -> SimulatedEngine:
    """What it believes is true, unless something else is said."""
    limits = IterationLimits(STEP_TOKENS, machine.max_running, 2**17, CONTEXT_TOKENS)
    cache = no_cache(BlockPool(machine.num_blocks), host_blocks(machine.host, machine.model))
    offload = Offload(mode, host_share=1.0, costs=believed or machine.costs())
    scheduler = IterationScheduler(limits, cache, offload)
    return SimulatedEngine(scheduler, machine.costs(), mode, machine.bus)


ON_T4 = Machine(T4, G4DN_4XLARGE, LLAMA_2_7B, T4_TOKENS, max_running=64)
ON_A10G = {name: Machine(A10G, host, LLAMA_3_8B) for name, host in G5.items()}
# Two devices as one of doubled numbers: what they tell each other is left out.
ON_2XH100 = Machine(H100.times(2), P5_QUARTER, LLAMA_3_70B)
ON_H200 = Machine(H200, P5_EIGHTH, LLAMA_3_8B, max_running=1024)

# The summaries of the paper.
T4_LENGTHS = Lengths(373, 45)
ANSWERS = (50, 150, 400)
COUNTS = {Scale.QUICK: 300, Scale.FULL: 500}
H200_COUNT = 1500


def cells(scale: Scale) -> list[Cell]:
    """In full also the machine without pressure, and, where the trace of a service is there, its
    lengths."""
    count = COUNTS[scale]
    if scale is Scale.QUICK:
        ends = [ON_A10G["g5.2xlarge"], ON_A10G["g5.16xlarge"]]
        return [
            Cell(ON_T4, T4_LENGTHS, count),
            *(Cell(machine, Lengths(1000, 150), count) for machine in ends),
            Cell(ON_2XH100, Lengths(1000, 150), count),
        ]
    lengths = [Lengths(1000, answer) for answer in ANSWERS]
    return [
        Cell(ON_T4, T4_LENGTHS, count),
        *(Cell(machine, each, count) for machine in ON_A10G.values() for each in lengths),
        Cell(ON_2XH100, Lengths(1000, 150), count),
        Cell(ON_H200, Lengths(1000, 150), H200_COUNT),
        *_traced(count),
    ]


def _traced(count: int) -> list[Cell]:
    try:
        file = data_folder("azure-llm-2023") / "AzureLLMInferenceTrace_code.csv"
    except CannotRun:
        return []
    lengths = Traced(file, most_tokens=8192)
    return [Cell(ON_A10G["g5.4xlarge"], lengths, count), Cell(ON_2XH100, lengths, count)]
