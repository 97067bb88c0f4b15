"""What a worker counts: every prompt token once, and of the cache only what was added."""

from __future__ import annotations

from collections import Counter

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
from cluster.scheduling.plan import Finished, FirstToken
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


def sums(times: int, **more: int) -> CacheSums:
    """The cache after it did the same so often."""
    return CacheSums(
        num_nodes=7,
        held={Tier.HOST: Held(40, 10)},
        evictions=Counter({(Tier.DEVICE, Eviction.MOVED): 3 * times}),
        moved_blocks=Counter({(Tier.DEVICE, Tier.HOST): 2 * times}),
        faults=Counter({Tier.DISK: times}),
        **more,
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
