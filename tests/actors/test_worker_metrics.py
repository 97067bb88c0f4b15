"""What a worker counts: every prompt token once, and of the cache only what was added."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from actors.worker_metrics import WorkerMetrics
from cluster.engine.engine import StepReport
from cluster.ids import RequestId
from cluster.knowledge.counts import Eviction
from cluster.knowledge.node import Tier
from cluster.knowledge.snapshot import CacheSums, Held
from cluster.request import CachedTokens, FinishReason, WorkerLoad
from cluster.scheduling.plan import Finished, FirstToken, PlanKind, Why
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.metrics import Metrics

LOAD = WorkerLoad(num_blocks=100, num_free_blocks=30, num_cached_blocks=50)
SMALL = st.integers(0, 2**20)
FIRST_TOKENS = st.builds(
    FirstToken,
    st.just(RequestId("r")),
    st.just(0.5),
    st.just(0.25),
    st.builds(CachedTokens, SMALL, SMALL, SMALL),
    SMALL,
)


class Watched:
    """A worker's metrics and what their page says."""

    def __init__(self, block_bytes: int = 1000) -> None:
        self._all = Metrics("gpu_worker")
        self.metrics = WorkerMetrics(self._all)
        self.metrics.built(LOAD, block_bytes)

    def stepped(self, report: StepReport) -> None:
        self.metrics.stepped(report, LOAD)

    def read(self, name: str, *values: str) -> float:
        """The sum of the samples of `name` that have all these label values."""
        families = text_string_to_metric_families(self._all.exposition().decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(
            s.value for s in samples if s.name == name and set(values) <= {*s.labels.values()}
        )


def sums(times: int, failed_writes: int = 0) -> CacheSums:
    """The cache after it did the same so often."""
    return CacheSums(
        num_nodes=7,
        held={Tier.HOST: Held(40, 10)},
        evictions=Counter({(Tier.DEVICE, Eviction.MOVED): 3 * times}),
        moved_blocks=Counter({(Tier.DEVICE, Tier.HOST): 2 * times}),
        faults=Counter({Tier.DISK: times}),
        failed_writes=failed_writes,
    )


@given(st.lists(st.lists(FIRST_TOKENS, max_size=3), max_size=4))
def test_cached_and_computed_tokens_together_are_the_prompts(steps: list[list[FirstToken]]) -> None:
    watched = Watched()
    for first_tokens in steps:
        watched.stepped(StepReport(first_tokens=tuple(first_tokens)))
    first = [token for tokens in steps for token in tokens]
    cached = watched.read("thoth_cached_prompt_tokens_total")
    computed = watched.read("thoth_computed_prompt_tokens_total")
    assert cached == sum(token.cached.total for token in first)
    assert computed == sum(token.num_computed for token in first)
    assert watched.read("thoth_prompt_tokens_total") == cached + computed
    for tier in ("device", "host", "disk"):
        said = watched.read("thoth_cached_prompt_tokens_total", tier)
        assert said == sum(getattr(token.cached, tier) for token in first)


def test_what_is_computed_again_is_no_prompt_token() -> None:
    watched = Watched()
    ended = Finished(RequestId("r"), FinishReason.LENGTH, num_recomputed=9)
    watched.stepped(StepReport(finished=(ended,)))
    assert watched.read("thoth_recomputed_tokens_total") == 9
    assert watched.read("thoth_prompt_tokens_total") == 0


def test_sums_of_the_cache_are_counted_once_however_often_they_are_told() -> None:
    watched = Watched(block_bytes=1000)
    for times in (1, 1, 4):
        watched.stepped(StepReport(cache=sums(times, failed_writes=times)))
    assert watched.read("thoth_cache_evictions_total", "device", "moved") == 12
    assert watched.read("thoth_cache_evictions_total") == 12
    assert watched.read("thoth_cache_moved_bytes_total", "device_to_host") == 8000
    assert watched.read("thoth_cache_faults_total", "disk") == 4
    assert watched.read("thoth_cache_failed_writes_total") == 4
    assert watched.read("thoth_cache_nodes") == 7


def test_every_direction_a_block_can_take_has_a_name() -> None:
    watched = Watched()
    ways = ((Tier.DEVICE, Tier.HOST), (Tier.HOST, Tier.DEVICE), (Tier.HOST, Tier.DISK),
            (Tier.DISK, Tier.HOST))  # fmt: skip
    watched.stepped(StepReport(cache=CacheSums(moved_blocks=Counter(dict.fromkeys(ways, 1)))))
    for way in ("device_to_host", "host_to_device", "host_to_disk", "disk_to_host"):
        assert watched.read("thoth_cache_moved_bytes_total", way) == 1000


def test_the_blocks_of_a_tier_are_free_used_or_cached() -> None:
    watched = Watched()
    watched.stepped(StepReport(cache=sums(1)))
    for state, num_blocks in (("free", 30), ("cached", 50), ("used", 20)):
        assert watched.read("thoth_kv_blocks", "device", state) == num_blocks
    for state, num_blocks in (("free", 10), ("cached", 30), ("used", 0)):
        assert watched.read("thoth_kv_blocks", "host", state) == num_blocks
    assert watched.read("thoth_kv_blocks", "disk") == 0


def test_blocks_of_the_host_that_requests_hold_are_used_and_not_cached() -> None:
    watched = Watched()
    watched.stepped(StepReport(cache=CacheSums(held={Tier.HOST: Held(40, 10, num_lent=12)})))
    for state, num_blocks in (("free", 10), ("used", 12), ("cached", 18)):
        assert watched.read("thoth_kv_blocks", "host", state) == num_blocks


def test_what_is_paged_is_counted_beside_what_documents_move() -> None:
    watched = Watched(block_bytes=1000)
    for times in (1, 3):
        paged = Counter({(Tier.DEVICE, Tier.HOST): 5 * times, (Tier.HOST, Tier.DEVICE): times})
        watched.stepped(StepReport(cache=replace(sums(1), paged_blocks=paged)))
    assert watched.read("thoth_paged_bytes_total", "device_to_host") == 15_000
    assert watched.read("thoth_paged_bytes_total", "host_to_device") == 3_000
    assert watched.read("thoth_cache_moved_bytes_total", "device_to_host") == 2_000


TWO = Why(
    kind=PlanKind.TWO_BATCH,
    works=(Work(8), Work(2, 0, 0, 2, 64)),
    times=(StageTimes(0.5, 0.25, 0.0), StageTimes(0.125, 0.0, 1.0)),
    seconds=2.0,
)
TOOK = (StageTimes(1.0, 0.5, 0.0, 0.0), StageTimes(0.25, 0.0, 2.0, 0.75))


def test_stages_are_counted_by_sub_batch_beside_what_was_predicted_for_them() -> None:
    watched = Watched()
    for _ in range(2):
        watched.stepped(StepReport(why=TWO, times=TOOK, seconds=4.0))
    took, predicted = "thoth_stage_seconds_total", "thoth_predicted_stage_seconds_total"
    assert watched.read("thoth_steps_total", "two_batch") == 2
    assert watched.read(took, "first", "linear") == 2.0
    assert watched.read(took, "second", "host_attention") == 4.0
    assert watched.read(took, "second", "waited") == 1.5
    assert watched.read(predicted, "first", "device_attention") == 0.5
    assert watched.read(predicted, "second", "host_attention") == 2.0
    assert watched.read("thoth_predicted_step_seconds_total") == 4.0
    assert watched.read("thoth_measured_step_seconds_total") == 8.0


def test_the_idle_share_of_a_side_can_be_had_from_the_counters() -> None:
    watched = Watched()
    watched.stepped(StepReport(why=TWO, times=TOOK, seconds=4.0))
    watched.stepped(StepReport(why=replace(TWO, seconds=0.0), seconds=9.0))
    timed = watched.read("thoth_timed_step_seconds_total")
    assert timed == 4.0
    assert 1 - watched.read("thoth_step_busy_seconds_total", "device") / timed == 1 - 1.75 / 4
    assert 1 - watched.read("thoth_step_busy_seconds_total", "host") / timed == 0.5
    assert watched.read("thoth_measured_step_seconds_total") == 4.0
    assert watched.read("thoth_steps_total") == 2


def test_a_step_that_computed_nothing_is_no_plan() -> None:
    watched = Watched()
    watched.stepped(StepReport(seconds=1.0))
    assert watched.read("thoth_steps_total") == 0
    assert watched.read("thoth_timed_step_seconds_total") == 0


def test_requests_on_the_host_are_told() -> None:
    watched = Watched()
    watched.metrics.stepped(StepReport(), replace(LOAD, num_on_host=3))
    assert watched.read("thoth_num_requests_on_host") == 3
