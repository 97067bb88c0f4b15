"""Every setting, and where its value comes from: flags > `THOTH_*` > file > defaults."""

from cluster.config.load import load_config, load_file, parse_overrides, ray_auth_mode
from cluster.config.schema import (
    AttentionWorkerConfig,
    GatewayConfig,
    GpuWorkerConfig,
    ModelConfig,
    ProverConfig,
    RetrieverConfig,
    SupervisorConfig,
    ThothConfig,
)
from cluster.config.section import Section

__all__ = [
    "AttentionWorkerConfig",
    "GatewayConfig",
    "GpuWorkerConfig",
    "ModelConfig",
    "ProverConfig",
    "RetrieverConfig",
    "Section",
    "SupervisorConfig",
    "ThothConfig",
    "load_config",
    "load_file",
    "parse_overrides",
    "ray_auth_mode",
]
