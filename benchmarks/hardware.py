"""Machines and models as their published sheets describe them, and what a step costs there.

No number here is measured, and none is fitted to what it is compared with: peaks are those of the
sheets, and one set of efficiencies, the same for all machines, says what of a peak is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.blocks.pool import BLOCK_TOKENS
from cluster.scheduling.curves import Curve, Trend, line
from cluster.scheduling.stages import StageCosts

GIB = 2**30
VALUE_BYTES = 2
MOST_ROWS = 2**16

# Of a sheet's dense peak: what large products of half precision reach with common libraries.
FLOP_SHARE = 0.6
# Of a sheet's bandwidth: what a kernel that only reads reaches, weights and keys alike.
BANDWIDTH_SHARE = 0.8
# Of the host's bandwidth: several cores that read blocks of pages here and there, and compute.
HOST_SHARE = 0.7
# Of the bus: long copies from page-locked memory, headers and acknowledgements taken off.
BUS_SHARE = 0.8
# For a layer that is attended on the host, the device's stream starts about five more copies and
# kernels of some 5 us. Over 32 layers that is the 0.8 ms that NEO adds as T_launch.
LAUNCH_S = 25e-6
# Deciding, drawing and handing out, once a step.
STEP_S = 1e-3
# Of the device's memory, the usual limit of engines; the rest is for what a step computes with.
MEMORY_SHARE = 0.9
# Of the host's memory, keys and values: the other half is the system's and the weights' loader's.
ARENA_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU's sheet: dense half precision, memory, and its bus in one direction."""

    name: str
    flops: float
    bandwidth: float
    memory_bytes: float
    bus: float

    def times(self, count: int) -> Device:
        """So many as if they were one: what they tell each other costs nothing."""
        return Device(
            f"{count}x{self.name}",
            self.flops * count,
            self.bandwidth * count,
            self.memory_bytes * count,
            self.bus * count,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """An instance's share of a machine's memory and of its bandwidth."""

    name: str
    bandwidth: float
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder's shape, of its published configuration; two bytes a value."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @property
    def layer_values(self) -> int:
        """Weights of the linear operators of all layers."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_values(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def weight_bytes(self) -> int:
        """With the embeddings, which are as large as the head."""
        return VALUE_BYTES * (self.layer_values + 2 * self.head_values)

    @property
    def token_bytes(self) -> int:
        """Of a token's keys and values."""
        return VALUE_BYTES * self.layers * 2 * self.kv_heads * self.head_dim

    @property
    def exchanged_bytes(self) -> int:
        """Of a row that is attended on the host: its q, k and v there, its o back."""
        return VALUE_BYTES * self.layers * self.head_dim * 2 * (self.heads + self.kv_heads)


# NVIDIA's data sheets: tensor cores, dense (half of what is said of sparse ones). A bus of
# generation 3, 4 and 5 with 16 lanes carries 16, 32 and 64 GB/s in one direction. The A10G is
# Amazon's variant of the A10: the same memory, and of the tensor cores' 125 TFLOP/s only 70.
T4 = Device("T4", 65e12, 320e9, 16 * GIB, 16e9)
A10G = Device("A10G", 70e12, 600e9, 24 * GIB, 32e9)
H100 = Device("H100", 989e12, 3350e9, 80 * GIB, 64e9)
H200 = Device("H200", 989e12, 4800e9, 141e9, 64e9)


def _share(bandwidth: float, num_cpus: int, of_cpus: int) -> float:
    return bandwidth * num_cpus / of_cpus


# Amazon's pages of instance types, and the processors' sheets.
# g4dn: Xeon Platinum 8259CL, 6 channels of DDR4-2933, 24 cores (48 virtual).
G4DN_4XLARGE = Host("g4dn.4xlarge", _share(140.8e9, 16, 48), 64 * GIB)
# g5: EPYC 7R32, 8 channels of DDR4-3200, 48 cores (96 virtual).
G5 = {
    f"g5.{size}xlarge": Host(f"g5.{size}xlarge", _share(204.8e9, 4 * size, 96), 16 * size * GIB)
    for size in (2, 4, 8, 16)
}
# p5: two EPYC 7R13 of 8 channels of DDR4-3200, 192 virtual cores and 2 TiB for eight GPUs.
P5_QUARTER = Host("p5 / 4", _share(409.6e9, 48, 192), 512 * GIB)
P5_EIGHTH = Host("p5 / 8", _share(409.6e9, 24, 192), 256 * GIB)

# The models' published configurations.
LLAMA_2_7B = Model("Llama-2-7B", 32, 4096, 32, 32, 128, 11008, 32000)
LLAMA_3_8B = Model("Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256)
LLAMA_3_70B = Model("Llama-3.1-70B", 80, 8192, 64, 8, 128, 28672, 128256)


def device_blocks(device: Device, model: Model) -> int:
    """Blocks of keys and values that the device's memory holds beside the weights."""
    free_bytes = MEMORY_SHARE * device.memory_bytes - model.weight_bytes
    return max(0, int(free_bytes // (BLOCK_TOKENS * model.token_bytes)))


def host_blocks(host: Host, model: Model) -> int:
    return int(ARENA_SHARE * host.memory_bytes // (BLOCK_TOKENS * model.token_bytes))


def copied_block_s(device: Device, model: Model) -> float:
    """Of a block, all its layers, between the device and the host."""
    return BLOCK_TOKENS * model.token_bytes / (BUS_SHARE * device.bus)


def stage_costs(device: Device, host: Host, model: Model) -> StageCosts:
    """Of a step's parts, each by the roofline of what it is bound by. A copy between device and
    host runs beside the step, and costs it nothing."""
    bandwidth, flops = BANDWIDTH_SHARE * device.bandwidth, FLOP_SHARE * device.flops
    return StageCosts(
        linear=_linear(flops, bandwidth, model),
        prefill=line(4 * model.heads * model.head_dim * model.layers / flops),
        decode=line(model.token_bytes / bandwidth),
        host=line(model.token_bytes / (HOST_SHARE * host.bandwidth)),
        host_row_s=model.exchanged_bytes / (BUS_SHARE * device.bus),
        exchange=line(0.0, LAUNCH_S * model.layers),
        rest=Trend(STEP_S),
    )


def _linear(flops: float, bandwidth: float, model: Model) -> Curve:
    """Every weight is read once, and multiplied with every row; the head only with drawn ones."""
    read_s = VALUE_BYTES * (model.layer_values + model.head_values) / bandwidth
    row_s = 2 * model.layer_values / flops
    points = tuple(2**i for i in range(MOST_ROWS.bit_length()))
    return Curve(points, [max(read_s, row_s * rows) for rows in points])
