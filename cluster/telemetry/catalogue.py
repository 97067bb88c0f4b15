"""Every metric there is, declared once. Dashboards, alerts and tests are checked against this list.

    requests_total{outcome} = calls that left the gateway, each counted once
    prompt_tokens_total     = tokens of prompts that got to their first token
                            = cached_prompt_tokens_total + computed_prompt_tokens_total
    recomputed_tokens_total = what a preemption made the engine compute again

Names carry base units, counters end in `_total`, and every label has a short, closed list of
values: what a label may say is known before the first request, so a tenant, a request or a
document cannot become one.
"""

from __future__ import annotations

from cluster.knowledge.counts import Eviction
from cluster.knowledge.node import Tier
from cluster.proofs import ProofVerdict
from cluster.request import FinishReason
from cluster.scheduling.membership import Role
from cluster.scheduling.plan import PlanKind
from cluster.telemetry.declared import Counter, Gauge, Histogram, Label, Objective

# vLLM's buckets for the time to first token, in seconds: dashboards made for one fit the other.
TIME_TO_FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
# vLLM's buckets for the time between tokens.
INTER_TOKEN_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
# Decisions and searches: from 50 microseconds, where a routing decision lies, to 10 seconds.
SHORT_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# Proofs: from the start of a process to the longest time that a goal may be given.
PROOF_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
TOKEN_BUCKETS = tuple(float(2**n) for n in range(14))


_ROLE = Label("role", tuple(map(str, Role)))
_TIER = Label("tier", tuple(tier.label for tier in sorted(Tier, reverse=True)))

# Gateway: what the caller sees.
REQUESTS = Counter(
    "thoth_requests_total",
    "Answers that ended, by how: a finish reason, or refused, unavailable or failed.",
    (Label("outcome", (*map(str, FinishReason), "refused", "unavailable", "failed")),),
)
REQUESTS_REJECTED = Counter(
    "thoth_requests_rejected_total",
    "Requests turned away with retry-after because a bounded queue was full, by whose.",
    (Label("reason", ("gateway_full", "worker_full", "no_worker")),),
)
RETRIES = Counter(
    "thoth_retries_total",
    "Generations started again on another worker, by what befell the first.",
    (Label("reason", ("lost", "unavailable")),),
)
TIME_TO_FIRST_TOKEN_SECONDS = Histogram(
    "thoth_time_to_first_token_seconds",
    "Request validated to first token, as the gateway sees it.",
    buckets=TIME_TO_FIRST_TOKEN_BUCKETS_S,
)
INTER_TOKEN_LATENCY_SECONDS = Histogram(
    "thoth_inter_token_latency_seconds",
    "Time from one token of an answer to the next, as the gateway sees it.",
    buckets=INTER_TOKEN_BUCKETS_S,
)

# Scheduler.
ROUTE_SECONDS = Histogram(
    "thoth_route_seconds",
    "Time to decide which worker serves a request.",
    buckets=SHORT_BUCKETS_S,
)

# GPU worker.
REQUEST_QUEUE_SECONDS = Histogram(
    "thoth_request_queue_seconds",
    "Time in a worker's queue before the first step.",
    buckets=TIME_TO_FIRST_TOKEN_BUCKETS_S,
)
PREFILL_SECONDS = Histogram(
    "thoth_prefill_seconds",
    "First step of a prompt to its first token.",
    buckets=TIME_TO_FIRST_TOKEN_BUCKETS_S,
)
NUM_REQUESTS_RUNNING = Gauge(
    "thoth_num_requests_running", "Requests computed together in the next step."
)
NUM_REQUESTS_WAITING = Gauge("thoth_num_requests_waiting", "Requests in the worker's queue.")
KV_BLOCKS = Gauge(
    "thoth_kv_blocks",
    "Blocks of a tier: free, of running requests alone, or of documents that are kept.",
    (_TIER, Label("state", ("free", "used", "cached"))),
)
PROMPT_TOKENS = Counter(
    "thoth_prompt_tokens_total", "Tokens of the prompts that got to their first token."
)
CACHED_PROMPT_TOKENS = Counter(
    "thoth_cached_prompt_tokens_total",
    "Tokens of those prompts that were not computed, by the tier where they were found.",
    (_TIER,),
)
COMPUTED_PROMPT_TOKENS = Counter(
    "thoth_computed_prompt_tokens_total", "Tokens of those prompts that were computed."
)
GENERATED_TOKENS = Counter("thoth_generated_tokens_total", "Tokens sampled.")
RECOMPUTED_TOKENS = Counter(
    "thoth_recomputed_tokens_total", "Tokens computed again because a preemption dropped their KV."
)
PREEMPTIONS = Counter(
    "thoth_preemptions_total", "Running requests that gave up their blocks and wait again."
)
STEP_SECONDS = Histogram(
    "thoth_step_seconds",
    "One step of the engine: decide, run, record.",
    buckets=INTER_TOKEN_BUCKETS_S,
)
STEP_TOKENS = Histogram(
    "thoth_step_tokens",
    "Rows computed in one step, by phase.",
    (Label("kind", ("prefill", "decode")),),
    buckets=TOKEN_BUCKETS,
)

# Knowledge cache of a GPU worker.
CACHE_NODES = Gauge("thoth_cache_nodes", "Documents in their contexts that are kept in any tier.")
CACHE_EVICTIONS = Counter(
    "thoth_cache_evictions_total",
    "Nodes that left a tier: moved to the next one, gone where another tier has a copy, dropped.",
    (_TIER, Label("reason", tuple(map(str, Eviction)))),
)
CACHE_MOVED_BYTES = Counter(
    "thoth_cache_moved_bytes_total",
    "Keys and values copied between tiers.",
    (Label("direction", ("device_to_host", "host_to_device", "host_to_disk", "disk_to_host")),),
)
CACHE_ATTENDED_BYTES = Counter(
    "thoth_cache_attended_bytes_total",
    "Keys and values on the host that requests took up to attend them where they lie.",
)
CACHE_FAULTS = Counter(
    "thoth_cache_faults_total",
    "Copies that were damaged or could not be read, by tier: each was a miss.",
    (_TIER,),
)
CACHE_FAILED_WRITES = Counter(
    "thoth_cache_failed_writes_total", "Nodes that could not be written to disk."
)

# Attention workers, and the gpu_workers that they serve.
ATTENTION_CLIENTS = Gauge(
    "thoth_attention_clients", "GPU workers that an attention worker computes for."
)
ATTENTION_LAYERS = Counter(
    "thoth_attention_layers_total", "Layers of steps for which an attention worker computed."
)
ATTENTION_PARTS = Counter(
    "thoth_attention_parts_total",
    "Partial states that an attention worker computed: one for each row of a step and each stretch "
    "of its context on the host.",
)
ATTENTION_ERRORS = Counter(
    "thoth_attention_errors_total", "Layers that an attention worker answered with an error."
)
ATTENTION_BUSY_SECONDS = Counter(
    "thoth_attention_busy_seconds_total", "Seconds in which an attention worker computed."
)
ATTENTION_UNPINNED = Gauge(
    "thoth_attention_unpinned",
    "1 where the system did not let an attention worker keep to its cpus, or to its node's memory.",
    (Label("what", ("cpus", "memory")),),
)
ATTENTION_ATTACHED = Gauge(
    "thoth_attention_attached",
    "1 while an attention worker attends for this gpu_worker, 0 while it does so itself.",
)
ATTENTION_LOST = Counter(
    "thoth_attention_lost_total",
    "Attention workers that were lost while they attended: the step went on without them.",
)

# Offloading of a GPU worker: requests on the host, and the stages of its steps.
_BATCH = Label("batch", ("first", "second"))
_STAGE = Label("stage", ("linear", "device_attention", "exchange", "host_attention", "waited"))
NUM_REQUESTS_ON_HOST = Gauge(
    "thoth_num_requests_on_host",
    "Running requests whose own keys and values lie on the host.",
)
PAGED_BYTES = Counter(
    "thoth_paged_bytes_total",
    "Keys and values of running requests that were copied from one memory to the other.",
    (Label("direction", ("device_to_host", "host_to_device")),),
)
STEPS = Counter(
    "thoth_steps_total",
    "Steps that computed something, by how: without the host, with it beside one batch, or in two "
    "sub-batches that take turns.",
    (Label("kind", tuple(map(str, PlanKind))),),
)
STAGE_SECONDS = Counter(
    "thoth_stage_seconds_total",
    "Seconds of each sub-batch by stage, over all layers, where they were measured; waited are the "
    "device's for the host.",
    (_BATCH, _STAGE),
)
PREDICTED_STAGE_SECONDS = Counter(
    "thoth_predicted_stage_seconds_total",
    "What the plans had predicted for the stages that were measured; nobody predicts waiting.",
    (_BATCH, _STAGE),
)
STEP_BUSY_SECONDS = Counter(
    "thoth_step_busy_seconds_total",
    "Seconds in which a side computed in the steps whose stages were measured.",
    (Label("side", ("device", "host")),),
)
TIMED_STEP_SECONDS = Counter(
    "thoth_timed_step_seconds_total",
    "Seconds of the steps whose stages were measured: what of them no side was busy, it was idle.",
)
PREDICTED_STEP_SECONDS = Counter(
    "thoth_predicted_step_seconds_total", "What the plans had predicted for whole steps."
)
MEASURED_STEP_SECONDS = Counter(
    "thoth_measured_step_seconds_total", "Seconds of the steps for which there was a prediction."
)

# Retriever.
RETRIEVAL_SECONDS = Histogram(
    "thoth_retrieval_seconds",
    "One search: both rankings and their fusion.",
    buckets=SHORT_BUCKETS_S,
)
DOCUMENTS = Gauge("thoth_documents", "Documents stored, over all collections.")
CHUNKS = Gauge("thoth_chunks", "Chunks searchable, over all collections.")
UPSERTED_DOCUMENTS = Counter(
    "thoth_upserted_documents_total", "Documents acknowledged by an upsert, changed or not."
)
DELETED_DOCUMENTS = Counter("thoth_deleted_documents_total", "Documents deleted.")

# Prover.
PROBLEMS = Counter(
    "thoth_problems_total",
    "Problems that were given to a prover, by how the call ended.",
    (Label("outcome", ("finished", "refused", "overloaded", "deadline", "cancelled", "failed")),),
)
PROOFS = Counter(
    "thoth_proofs_total",
    "Goals that were searched to an end, by verdict; a proof counts once it was checked.",
    (Label("verdict", tuple(map(str, ProofVerdict))),),
)
PROOF_SECONDS = Histogram(
    "thoth_proof_seconds",
    "One goal, from the start of its process to its end.",
    buckets=PROOF_BUCKETS_S,
)
NUM_PROOFS_RUNNING = Gauge("thoth_num_proofs_running", "Goals that are being searched.")
NUM_PROOFS_WAITING = Gauge(
    "thoth_num_proofs_waiting", "Problems that wait for a process to search their next goal."
)
LEMMAS = Counter(
    "thoth_lemmas_total",
    "Lemmas that proofs left and are new, that searches knew from before, that were of no use.",
    (Label("what", ("kept", "known", "rejected")),),
)

# Supervisor.
MEMBERS = Gauge("thoth_members", "Members that hold a lease and are ready, by role.", (_ROLE,))
MEMBER_RESTARTS = Counter(
    "thoth_member_restarts_total", "Actors started again after their lease ended.", (_ROLE,)
)

CATALOGUE: tuple[Counter | Gauge | Histogram, ...] = (
    REQUESTS,
    REQUESTS_REJECTED,
    RETRIES,
    TIME_TO_FIRST_TOKEN_SECONDS,
    INTER_TOKEN_LATENCY_SECONDS,
    ROUTE_SECONDS,
    REQUEST_QUEUE_SECONDS,
    PREFILL_SECONDS,
    NUM_REQUESTS_RUNNING,
    NUM_REQUESTS_WAITING,
    KV_BLOCKS,
    PROMPT_TOKENS,
    CACHED_PROMPT_TOKENS,
    COMPUTED_PROMPT_TOKENS,
    GENERATED_TOKENS,
    RECOMPUTED_TOKENS,
    PREEMPTIONS,
    STEP_SECONDS,
    STEP_TOKENS,
    CACHE_NODES,
    CACHE_EVICTIONS,
    CACHE_MOVED_BYTES,
    CACHE_ATTENDED_BYTES,
    CACHE_FAULTS,
    CACHE_FAILED_WRITES,
    ATTENTION_CLIENTS,
    ATTENTION_LAYERS,
    ATTENTION_PARTS,
    ATTENTION_ERRORS,
    ATTENTION_BUSY_SECONDS,
    ATTENTION_UNPINNED,
    ATTENTION_ATTACHED,
    ATTENTION_LOST,
    NUM_REQUESTS_ON_HOST,
    PAGED_BYTES,
    STEPS,
    STAGE_SECONDS,
    PREDICTED_STAGE_SECONDS,
    STEP_BUSY_SECONDS,
    TIMED_STEP_SECONDS,
    PREDICTED_STEP_SECONDS,
    MEASURED_STEP_SECONDS,
    RETRIEVAL_SECONDS,
    DOCUMENTS,
    CHUNKS,
    UPSERTED_DOCUMENTS,
    DELETED_DOCUMENTS,
    PROBLEMS,
    PROOFS,
    PROOF_SECONDS,
    NUM_PROOFS_RUNNING,
    NUM_PROOFS_WAITING,
    LEMMAS,
    MEMBERS,
    MEMBER_RESTARTS,
)

OBJECTIVES: tuple[Objective, ...] = (
    Objective(TIME_TO_FIRST_TOKEN_SECONDS, threshold=10.0, ratio=0.95),
    Objective(INTER_TOKEN_LATENCY_SECONDS, threshold=0.2, ratio=0.95),
)
