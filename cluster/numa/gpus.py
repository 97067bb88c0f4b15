"""NVIDIA devices, and the node each of them is plugged into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.numa.kernel_files import read_if_there

_NVIDIA = "0x10de"
_DISPLAY_CONTROLLER = "0x03"


@dataclass(frozen=True, slots=True)
class Gpu:
    """`model` is empty where no driver speaks for the device, as in a container it was not given
    to; `node` is None where the machine does not tell."""

    address: str
    model: str
    node: int | None


def read_gpus(sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> tuple[Gpu, ...]:
    """By their address on the bus, which is CUDA's order too under CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    devices = sysfs / "bus" / "pci" / "devices"
    drivers = proc / "driver" / "nvidia" / "gpus"
    addresses = {device.name for device in devices.glob("*") if _is_gpu(device)}
    addresses |= {driver.name for driver in drivers.glob("*")}
    return tuple(
        Gpu(address, _model(drivers / address), _node(devices / address))
        for address in sorted(addresses)
    )


def _is_gpu(device: Path) -> bool:
    is_display = read_if_there(device / "class").startswith(_DISPLAY_CONTROLLER)
    return is_display and read_if_there(device / "vendor") == _NVIDIA


def _model(driver: Path) -> str:
    """Lines are `Model: \\t\\t NVIDIA H100`."""
    for line in read_if_there(driver / "information").splitlines():
        name, _, value = line.partition(":")
        if name == "Model":
            return value.strip()
    return ""


def _node(device: Path) -> int | None:
    """Linux writes -1 where the firmware said nothing."""
    told = read_if_there(device / "numa_node")
    return int(told) if told.isdecimal() else None
