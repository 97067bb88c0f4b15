"""The one schema of every setting: the file, the `args:` of the Serve YAML and `THOTH_*` variables.

Unknown keys are errors. What is measured at start is a fact, not a setting, and is never written
back here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.config.section import Count, Names, Port, Seconds, Section, Tiers


class ModelConfig(Section):
    """Which model is served."""

    source: str = Field(
        "smollm2-135m-instruct",
        description="A name from the catalogue (`smollm2-135m-instruct`); a .gguf file (Llama, "
        "Qwen2, Qwen3); a Hugging Face folder (Llama, Mistral, Qwen2, Qwen3) with config.json, "
        "safetensors and tokenizer.json; or `organisation/name[@revision]` of the Hub.",
    )
    name: str | None = Field(
        None,
        description="What clients call it; by default the catalogue's name or the file's stem.",
    )
    context_tokens: Count | None = Field(
        None, description="Longest prompt plus answer; by default what the model was trained for."
    )


class GpuWorkerConfig(Section):
    """Workers that hold the model, one per device."""

    count: Count = Field(1, description="Number of workers.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the model runs.")
    backend: Literal["auto", "native", "torch"] = Field(
        "auto",
        description="native: the compiled kernels on the cpu, Triton on cuda; torch: slower, "
        "everywhere; auto: native where it is to be had.",
    )
    weights: Literal["auto", "float32", "int8", "float16", "bfloat16"] = Field(
        "auto",
        description="How weights are multiplied: float32 or int8 on the cpu, float32, float16 or "
        "bfloat16 on cuda; auto: the best that the device and backend offer for speed.",
    )
    kv_dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="How keys and values are kept; sums are float32 always."
    )
    threads: Count | None = Field(
        None, description="Threads that compute, per worker; by default the cores shared out."
    )
    kv_blocks: Count | None = Field(
        None,
        description="KV pool in blocks of 16 tokens, shared by all running requests; by default "
        "2048 on the cpu, and what memory is left for on cuda.",
    )
    max_running: Count = Field(32, description="Requests computed together.")
    max_waiting: int = Field(
        128, ge=0, description="Requests that may wait; one more is refused with retry-after."
    )
    step_tokens: Count = Field(
        512, description="Rows computed per step: decodes first, the rest is a chunk of prompts."
    )
    deterministic: bool = Field(
        True,
        description="With torch products on the cpu, rows are padded so that logits do not depend "
        "on the batch, bit for bit; the compiled kernels never let them.",
    )


class AttentionWorkerConfig(Section):
    """Processes beside the gpu_workers that attend what lies in the host tier."""

    count: int = Field(
        0,
        ge=0,
        description="Number of workers, best one for each NUMA node with a gpu_worker. Without one "
        "each gpu_worker attends what it has on the host by itself.",
    )
    threads: Count | None = Field(
        None, description="Threads that compute, per worker; by default one for each of its cpus."
    )
    timeout_s: Seconds = Field(
        3.0,
        description="A worker that owes an answer for so long is lost: the gpu_worker goes on by "
        "itself, until it finds one that answers.",
    )
    keep_s: Seconds = Field(
        60.0,
        description="The host tier of a gpu_worker that died is kept so long for the one that is "
        "started in its place.",
    )
    copy_bytes: Count = Field(
        2**32,
        description="Memory for copies of what it attends for one gpu_worker of another node.",
    )
    resource: str | None = Field(
        None,
        description="A custom resource of Ray, one of which each worker takes: they run on the "
        "nodes that have it. By default they run on the nodes of the gpu_workers.",
    )


class CacheConfig(Section):
    """The knowledge cache of every gpu_worker: documents' keys and values, kept for reuse."""

    tiers: Tiers = Field(
        ("device", "host"),
        description="Where documents are kept, the nearest first: device; device and host; or all "
        "three. Empty: nothing is kept and every prompt is computed whole.",
    )
    policy: Literal["pgdsf", "gdsf", "lfu", "lru"] = Field(
        "pgdsf", description="Who leaves a tier first; pgdsf knows what computing it again costs."
    )
    placement: Literal["tree", "segment"] = Field(
        "tree",
        description="tree: a document lies no nearer than the ones before it; segment: it may.",
    )
    admission: Literal["reused", "all"] = Field(
        "reused",
        description="What leaves the device for the host, and the host for disk: all, or, when "
        "there is no free room, only what was used more than once.",
    )
    host_use: Literal["auto", "load", "attend", "recompute"] = Field(
        "auto",
        description="What a request does with a document on the host: whatever takes the least "
        "time, or always the same. attend: it is read where it lies, and takes no device memory.",
    )
    host_bytes: Count = Field(2**30, description="Memory of the host tier, per worker.")
    disk_bytes: Count = Field(8 * 2**30, description="Size of the disk tier, per worker.")
    disk_dir: Path | None = Field(
        None, description="Folder of the disk tier; by default `cache` in the home."
    )
    pin_system_tokens: int = Field(
        0, ge=0, description="System prompts of so many tokens together are the last to leave."
    )
    shared_collections: Names = Field(
        (),
        description="Collections whose documents' keys and values serve every API key; all others "
        "serve only the key that brought them there.",
    )

    @field_validator("tiers")
    @classmethod
    def _in_order(cls, tiers: tuple[str, ...]) -> tuple[str, ...]:
        if tiers != ("device", "host", "disk")[: len(tiers)]:
            raise ValueError("tiers are device, then host, then disk, none left out in between")
        return tiers


class OffloadConfig(Section):
    """Requests whose own keys and values lie in the host tier of their gpu_worker, and are attended
    there, while the device has no room for them."""

    mode: Literal["gpu_only", "neo", "adaptive"] = Field(
        "gpu_only",
        description="gpu_only: never; who finds no room waits, or is computed again. neo: as "
        "published. adaptive: where it is worth it, by what was measured at start and by every "
        "step since.",
    )
    progress_steps: Count = Field(
        32, description="Who decodes on the host computes a token at least every so many steps."
    )
    host_share: float = Field(
        0.5, ge=0, le=1, description="Share of the host tier that requests may take of documents."
    )


class RetrieverConfig(Section):
    """Documents, their chunks and the index."""

    chunk_chars: int = Field(
        1200, ge=100, le=20000, description="Longest chunk, in Unicode code points."
    )
    max_document_bytes: int = Field(
        8 * 2**20, ge=1, description="Largest document, in bytes of UTF-8."
    )
    max_batch_documents: Count = Field(256, description="Documents in one upsert.")
    candidates: Count = Field(50, description="Chunks taken from each ranking before fusion.")


class ProverConfig(Section):
    """Proofs that functional programs are equal. Each goal is searched in a process of its own."""

    count: int = Field(1, ge=0, description="Number of provers; without one proofs are refused.")
    processes: Count | None = Field(
        None,
        description="Goals searched side by side, per prover; by default half of the cores.",
    )
    max_waiting: int = Field(
        64, ge=0, description="Problems that may wait; one more is refused with retry-after."
    )
    time_limit_s: Seconds = Field(10.0, description="For each goal, when a call gives none.")
    max_time_limit_s: Seconds = Field(
        300.0, description="Longest time that a call may ask for each goal."
    )
    memory_bytes: Count = Field(2**30, description="For each goal, when a call gives none.")
    max_memory_bytes: Count = Field(
        2**31, description="Most memory that a call may ask for each goal."
    )
    max_problem_bytes: int = Field(
        2**18, ge=1, le=2**18, description="Largest problem, in bytes of UTF-8."
    )
    max_lemmas_bytes: int = Field(
        0,
        ge=0,
        description="Lemmas kept for later problems of the same tenant, in bytes; 0 keeps none.",
    )
    lemmas_dir: Path | None = Field(
        None, description="Folder of the kept lemmas; by default `lemmas` in the home."
    )
    nice: int = Field(
        10, ge=0, le=19, description="How far searches stand back for others who need the cores."
    )

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for name in ("time_limit_s", "memory_bytes"):
            if getattr(self, name) > getattr(self, f"max_{name}"):
                raise ValueError(f"{name} is above max_{name}")
        return self


class GatewayConfig(Section):
    """The public door: HTTP and gRPC."""

    http_host: str = Field("127.0.0.1", description="Bind address. A public one needs API keys.")
    http_port: Port = Field(8000, description="HTTP port; 0 takes a free one (local mode).")
    grpc_port: Port = Field(9000, description="gRPC port; 0 takes a free one (local mode).")
    api_keys_file: Path | None = Field(
        None, description="Lines `name:sha256-of-key`; without it only loopback peers are served."
    )
    replicas: Count = Field(1, description="Gateway replicas under Ray Serve.")
    max_requests: Count = Field(
        160, description="Answers in progress per replica; one more gets 429 with Retry-After."
    )
    default_max_tokens: Count = Field(256, description="Used when a call gives no max_tokens.")
    default_timeout_s: Seconds = Field(600.0, description="Used when a call gives no timeout.")
    max_timeout_s: Seconds = Field(3600.0, description="Longest time a call may ask for.")
    max_top_k: Count = Field(64, description="Most documents one call may retrieve.")
    max_body_bytes: Count = Field(16 * 2**20, description="Largest HTTP body.")
    system_prompt: str = Field(
        "You answer questions using the documents given. Be brief.",
        description="Used with retrieval when a call brings no system message of its own.",
    )


class SupervisorConfig(Section):
    """Leases, and when the cluster ends by itself."""

    heartbeat_s: Seconds = Field(1.0, description="How often members renew their lease.")
    lease_s: Seconds = Field(5.0, description="A member that was silent for so long is lost.")
    start_s: Seconds = Field(180.0, description="How long an actor may take to come up.")
    idle_s: Seconds = Field(60.0, description="Without a gateway for so long, all actors stop.")


class ThothConfig(Section):
    """Everything that can be set."""

    home: Path = Field(
        Path("~/.thoth"), description="Where documents, converted models and run files live."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line written."
    )
    model: ModelConfig = Field(default_factory=ModelConfig)
    gpu_worker: GpuWorkerConfig = Field(default_factory=GpuWorkerConfig)
    attention_worker: AttentionWorkerConfig = Field(default_factory=AttentionWorkerConfig)
    cache: CacheConfig = Field(default_factory=CacheConfig)
    offload: OffloadConfig = Field(default_factory=OffloadConfig)
    retriever: RetrieverConfig = Field(default_factory=RetrieverConfig)
    prover: ProverConfig = Field(default_factory=ProverConfig)
    gateway: GatewayConfig = Field(default_factory=GatewayConfig)
    supervisor: SupervisorConfig = Field(default_factory=SupervisorConfig)

    @property
    def home_dir(self) -> Path:
        return self.home.expanduser()

    @property
    def run_dir(self) -> Path:
        return self.home_dir / "run"

    @property
    def models_dir(self) -> Path:
        return self.home_dir / "models"

    @property
    def cache_dir(self) -> Path:
        return (self.cache.disk_dir or self.home_dir / "cache").expanduser()

    @property
    def documents_dir(self) -> Path:
        return self.home_dir / "documents"

    @property
    def lemmas_dir(self) -> Path:
        return (self.prover.lemmas_dir or self.home_dir / "lemmas").expanduser()
