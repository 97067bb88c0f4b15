"""What is shipped for deployment is what the code expects."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from actors.gateway.deployment import SERVICER_FUNCTIONS
from cluster.config import ThothConfig
from cluster.wire.serving import MAX_MESSAGE_BYTES
from protos.thoth.v1 import documents_pb2, gateway_pb2, prover_pb2
from tests.house.source import ROOT

SERVE = ROOT / "deploy" / "serve.yaml"
PRESETS = sorted((ROOT / "deploy" / "presets").glob("*.yaml"))
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    model: dict[str, Any] = yaml.safe_load(SERVE.read_text())
    return model


@pytest.fixture(scope="module")
def config(deployed: dict[str, Any]) -> ThothConfig:
    (application,) = deployed["applications"]
    return ThothConfig.model_validate(application["args"])


def resolve(path: str) -> Callable[..., object]:
    """`package.module.name` or `package.module:name`."""
    module, _, name = path.replace(":", ".").rpartition(".")
    found: Callable[..., object] = getattr(importlib.import_module(module), name)
    return found


class AllServices:
    """Has every public method; none is called."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class Registered:
    """Stands where Serve's server does, and remembers what is put on it."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Generated code says the same again in this newer way."""

    def serves(self, path: str) -> bool:
        details = Details(path)
        return any(handler.service(details) is not None for handler in self._handlers)


@dataclass
class Details:
    """What a server knows of a call before it is handled."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


def test_serve_accepts_the_file(deployed: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(deployed)
    assert schema.grpc_options.enable_reflection is False
    assert [app.import_path for app in schema.applications] == ["actors.launch:build_app"]


def test_the_application_builder_is_where_the_file_says(deployed: dict[str, Any]) -> None:
    (application,) = deployed["applications"]
    assert callable(resolve(application["import_path"]))


def test_ray_and_the_gateway_are_told_the_same_doors(
    deployed: dict[str, Any], config: ThothConfig
) -> None:
    http, grpc = deployed["http_options"], deployed["grpc_options"]
    assert (http["host"], http["port"]) == (config.gateway.http_host, config.gateway.http_port)
    assert grpc["port"] == config.gateway.grpc_port


def test_rays_deadlines_come_after_the_gateways(
    deployed: dict[str, Any], config: ThothConfig
) -> None:
    for options in (deployed["http_options"], deployed["grpc_options"]):
        assert options["request_timeout_s"] > config.gateway.max_timeout_s


def test_serve_is_told_of_every_public_method(deployed: dict[str, Any]) -> None:
    paths = deployed["grpc_options"]["grpc_servicer_functions"]
    assert paths == list(SERVICER_FUNCTIONS)
    registered = Registered()
    for path in paths:
        resolve(path)(AllServices(), registered)
    for module in (gateway_pb2, documents_pb2, prover_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert registered.serves(f"/{service.full_name}/{method.name}")
    assert not registered.serves("/thoth.v1.GatewayService/Nothing")


def test_the_message_limit_in_the_instructions_is_the_one_of_our_servers() -> None:
    for file in (SERVE, DOCKERFILE):
        (said,) = re.findall(r"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE=(\d+)", file.read_text())
        assert int(said) == MAX_MESSAGE_BYTES
        assert "RAY_AUTH_MODE=token" in file.read_text()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_every_preset_is_a_valid_configuration(preset: Any) -> None:
    ThothConfig.model_validate(yaml.safe_load(preset.read_text()))


def test_the_container_copies_and_runs_what_is_there() -> None:
    text = DOCKERFILE.read_text()
    for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() or name == "README.md", name
    (preset,) = re.findall(r"/etc/thoth/deploy/(\S+\.yaml)", text)
    assert (ROOT / "deploy" / preset).is_file()
    for variable in re.findall(r"THOTH_(\w+)=", text):
        section: Any = ThothConfig()
        for part in variable.lower().split("__"):
            section = getattr(section, part)
