"""Tests of what runs on a GPU. The same bodies run on the cpu, in Triton's interpreter, where they
are small enough; those marked `gpu` are not, and need a device.

On a machine with PyTorch and Triton alone:
`python -m pytest -c /dev/null --rootdir . --confcutdir tests/gpu --import-mode importlib tests/gpu`
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    # As the conftest above this one does, which is not there without the project's settings.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """For runs without the project's settings."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    config.addinivalue_line("markers", "long: full counts")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA device, and torch {torch.__version__} finds none")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU, or the cpu and with it the interpreter."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
