"""Which class plays which role."""

from __future__ import annotations

from actors.attention_worker import AttentionWorker
from actors.gpu_worker import GpuWorker
from actors.prover import Prover
from actors.retriever import Retriever
from actors.roles import Body, Site
from actors.scheduler import Scheduler
from cluster.config import ThothConfig
from cluster.scheduling.membership import Desired, Role


def make_body(desired: Desired, site: Site, config: ThothConfig) -> Body:
    """The body of an actor that the supervisor starts; gateways are started by Ray Serve."""
    match desired.role:
        case Role.SCHEDULER:
            return Scheduler(site=site, config=config)
        case Role.RETRIEVER:
            return Retriever(site=site, config=config)
        case Role.PROVER:
            return Prover(site=site, config=config)
        case Role.GPU_WORKER:
            return GpuWorker(site=site, config=config)
        case Role.ATTENTION_WORKER:
            return AttentionWorker(site=site, config=config)
        case Role.GATEWAY | Role.SUPERVISOR:
            raise ValueError(f"no supervisor starts a {desired.role}")
