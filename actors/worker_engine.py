"""What a gpu_worker is made of: an engine built from the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from actors.places import Place, keep_to, place_of_worker, threads_of_worker
from cluster.clock import Clock
from cluster.config import ThothConfig
from cluster.engine.assemble import assemble_engine
from cluster.engine.engine import Engine
from cluster.engine.options import Backend, Device, EngineOptions, KvFormat, WeightFormat
from cluster.engine.sampling import Sampler
from cluster.engine.shelves import Shelving
from cluster.knowledge.cache import HostUse
from cluster.knowledge.node import Admission, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.models.catalogue import resolve_model
from cluster.numa import read_topology, unpinned_after
from cluster.scheduling.offload import OffloadMode, OffloadOptions
from cluster.text.grammar import Grammars
from cluster.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Built:
    """An engine and what is to be said of it: `backend` says what computes, and `place` where its
    thread is to keep to. `close` is called on that thread after the last step."""

    engine: Engine
    close: Callable[[], None]
    model_name: str
    context_tokens: int
    grammars: Grammars
    backend: str
    block_bytes: int
    place: Place | None


def build_engine(config: ThothConfig, clock: Clock, name: str, kept: int | None = None) -> Built:
    """Loads the weights: seconds. Workers of one home keep their documents apart, by `name`; `kept`
    is the host's memory of the one that had this name before.

    Raises Refused for a model that cannot be served.
    """
    folder = resolve_model(config.model.source, config.models_dir)
    topology = read_topology()
    place = place_of_worker(topology, config, name)
    options = engine_options(config, threads_of_worker(topology, config, place), name)
    with unpinned_after():
        keep_to(place)
        assembled = assemble_engine(folder.path, options, clock, folder.fingerprint, kept)
    engine = assembled.engine
    grammars = Grammars(Tokenizer.from_folder(folder.path), engine.vocab_size)
    return Built(
        replace(engine, sampler=Sampler(grammars)),
        partial(assembled.close, clock),
        config.model.name or folder.name,
        assembled.context_tokens,
        grammars,
        assembled.backend,
        assembled.block_bytes,
        place,
    )


def engine_options(config: ThothConfig, threads: int, name: str) -> EngineOptions:
    worker = config.gpu_worker
    return EngineOptions(
        device=Device(worker.device),
        backend=Backend(worker.backend),
        weights=WeightFormat(worker.weights),
        kv=KvFormat(worker.kv_dtype),
        threads=threads,
        deterministic=worker.deterministic,
        kv_blocks=worker.kv_blocks,
        step_tokens=worker.step_tokens,
        max_running=worker.max_running,
        max_waiting=worker.max_waiting,
        context_tokens=config.model.context_tokens,
        shelving=_shelving(config, name),
        offload=OffloadOptions(
            mode=OffloadMode(config.offload.mode),
            progress_steps=config.offload.progress_steps,
            host_share=config.offload.host_share,
        ),
    )


def _shelving(config: ThothConfig, name: str) -> Shelving:
    cache = config.cache
    return Shelving(
        tiers=tuple(Tier[tier.upper()] for tier in cache.tiers),
        policy=PolicyName(cache.policy),
        placement=Placement(cache.placement),
        admission=Admission(cache.admission),
        host_use=HostUse(cache.host_use),
        host_bytes=cache.host_bytes,
        disk_bytes=cache.disk_bytes,
        kept_tokens=cache.pin_system_tokens,
        disk_folder=config.cache_dir / name,
        notes=config.home_dir / "profiles",
    )
