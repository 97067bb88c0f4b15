"""What every test stands on, and fixtures that several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from cluster.models.catalogue import CATALOGUE, resolve_model
from cluster.models.folder import ModelFolder
from tests.tiny_model import write_tiny_model

if not torch.cuda.is_available():
    # Read by Triton when a kernel's module is imported: without a device its interpreter runs it.
    os.environ["TRITON_INTERPRET"] = "1"

# On shared cores a second thread spends its time waiting; tests about threads ask for them.
torch.set_num_threads(1)


# How long drawing an example takes says what else the machine does.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Folders whose tests start processes that listen, and wait for each other: one test at a time.
CLUSTERS = ("actors", "cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, a file's stay together for the sake of its fixtures."""
    for item in items:
        group = "clusters" if item.path.parent.name in CLUSTERS else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA device, and torch {torch.__version__} finds none")


@pytest.fixture(scope="session")
def smollm(pytestconfig: pytest.Config) -> ModelFolder:
    """SmolLM2, converted once and kept in pytest's cache between runs."""
    assert pytestconfig.cache is not None
    return resolve_model("smollm2-135m-instruct", pytestconfig.cache.mkdir("models"))


@pytest.fixture(scope="session")
def smollm_gguf() -> Path:
    """The file SmolLM2 is converted from."""
    return CATALOGUE["smollm2-135m-instruct"].locate()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, shared: to be read, not changed."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))
