"""From a kernel to a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch


def launch(kernel: Callable[..., None], grid: tuple[int, ...]) -> Callable[..., None]:
    """The kernel over a grid: what is left is to call it with its arguments."""
    compiled: Any = kernel
    return cast(Callable[..., None], compiled[grid])


def num_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 of the interpreter."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
