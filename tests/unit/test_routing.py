"""Which worker a request goes to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Overloaded, Starting
from cluster.ids import Incarnation, RequestId, WorkerName
from cluster.request import WorkerLoad
from cluster.scheduling.routing import Router, RoutingPolicy

A, B = WorkerName("gpu_worker-0"), WorkerName("gpu_worker-1")
IDLE = WorkerLoad(num_blocks=64, num_free_blocks=64, max_waiting=2)


def report(
    router: Router, name: WorkerName, load: WorkerLoad, now_s: float, seen: tuple[str, ...] = ()
) -> None:
    source = (name, Incarnation("1"), f"127.0.0.1:{name[-1]}")
    router.reported(source, load, [RequestId(i) for i in seen], now_s)
    router.check()


def two_workers() -> Router:
    router = Router(RoutingPolicy())
    report(router, A, IDLE, 0.0)
    report(router, B, IDLE, 0.0)
    return router


def test_the_worker_with_the_fewest_tokens_to_compute_is_chosen() -> None:
    router = two_workers()
    report(router, A, WorkerLoad(num_running=1, prefill_tokens=500, max_waiting=2), 0.1)
    chosen = router.route(RequestId("r"), 100, (), 0.2)
    assert chosen.worker == B
    assert "least work: 0 tokens" in chosen.why
    assert "0.25 x 0 to the host + 0 without room" in chosen.why


def test_what_was_routed_since_the_last_report_counts() -> None:
    router = two_workers()
    workers = [router.route(RequestId(f"r{i}"), 100, (), 0.1).worker for i in range(4)]
    assert workers == [A, B, A, B]


def test_a_report_that_names_a_request_replaces_its_estimate() -> None:
    router = two_workers()
    router.route(RequestId("r0"), 1000, (), 0.1)
    report(router, A, IDLE, 0.2, seen=("r0",))
    assert router.route(RequestId("r1"), 10, (), 0.3).worker == A


def test_an_estimate_that_no_report_names_is_forgotten() -> None:
    router = two_workers()
    router.route(RequestId("lost"), 1000, (), 0.1)
    report(router, A, IDLE, 6.0)
    report(router, B, IDLE, 6.0)
    assert router.route(RequestId("r"), 10, (), 6.0).worker == A


def test_a_silent_worker_is_not_chosen() -> None:
    router = two_workers()
    report(router, B, WorkerLoad(num_running=9, prefill_tokens=9999, max_waiting=2), 4.0)
    assert router.route(RequestId("r"), 10, (), 5.5).worker == B


def test_an_excluded_worker_is_not_chosen_and_nobody_left_means_starting() -> None:
    router = two_workers()
    assert router.route(RequestId("r"), 10, [A], 0.1).worker == B
    with pytest.raises(Starting, match="2 known, 2 excluded"):
        router.route(RequestId("r"), 10, [A, B], 0.1)


def test_full_queues_everywhere_are_refused_with_a_time_to_come_back() -> None:
    router = two_workers()
    full = WorkerLoad(num_running=4, num_waiting=3, max_waiting=2)
    report(router, A, full, 0.1)
    report(router, B, full, 0.1)
    with pytest.raises(Overloaded) as caught:
        router.route(RequestId("r"), 10, (), 0.2)
    assert caught.value.retry_after_s > 0


def test_an_idle_worker_is_sent_what_it_can_seat_and_queue_between_two_reports() -> None:
    router = Router(RoutingPolicy())
    report(router, A, replace(IDLE, max_running=3), 0.0)
    for i in range(5):
        router.route(RequestId(f"r{i}"), 10, (), 0.1)
    with pytest.raises(Overloaded):
        router.route(RequestId("r5"), 10, (), 0.1)


def test_a_new_incarnation_starts_without_the_estimates_of_the_old() -> None:
    router = two_workers()
    router.route(RequestId("r0"), 1000, (), 0.1)
    router.reported((A, Incarnation("2"), "127.0.0.1:9"), IDLE, (), 0.2)
    chosen = router.route(RequestId("r1"), 10, (), 0.3)
    assert (chosen.worker, chosen.incarnation, chosen.address) == (A, "2", "127.0.0.1:9")


# Both have 320 tokens of prompts to compute, and no block left on the device.
FULL = WorkerLoad(
    num_running=4,
    num_waiting=1,
    prefill_tokens=320,
    num_blocks=64,
    max_waiting=2,
    max_running=8,
)


def test_of_two_full_devices_the_one_with_room_on_its_host_is_chosen() -> None:
    router = two_workers()
    report(router, A, FULL, 0.1)
    report(router, B, replace(FULL, num_host_blocks=64, num_lent_host_blocks=24), 0.1)
    chosen = router.route(RequestId("r"), 160, (), 0.2)
    assert chosen.worker == B
    assert "0.25 x 480 to the host + 0 without room" in chosen.why


def test_a_host_that_is_full_as_well_is_no_room() -> None:
    router = two_workers()
    report(router, A, replace(FULL, prefill_tokens=319), 0.1)
    report(router, B, replace(FULL, num_host_blocks=64, num_lent_host_blocks=64), 0.1)
    assert router.route(RequestId("r"), 160, (), 0.2).worker == A


def test_room_on_the_device_is_better_than_room_on_the_host() -> None:
    router = two_workers()
    report(router, A, replace(FULL, num_host_blocks=64), 0.1)
    report(router, B, replace(FULL, num_free_blocks=20, num_evictable_blocks=20), 0.1)
    assert router.route(RequestId("r"), 160, (), 0.2).worker == B


def test_documents_that_requests_use_are_no_room() -> None:
    router = two_workers()
    pinned = replace(FULL, num_cached_blocks=40)
    report(router, A, pinned, 0.1)
    report(router, B, replace(pinned, num_evictable_blocks=40), 0.1)
    assert router.route(RequestId("r"), 160, (), 0.2).worker == B


def test_little_work_outweighs_a_host_with_room() -> None:
    router = two_workers()
    report(router, A, replace(FULL, prefill_tokens=8000, num_host_blocks=1000), 0.1)
    report(router, B, FULL, 0.1)
    assert router.route(RequestId("r"), 160, (), 0.2).worker == B


def test_a_free_seat_without_a_block_in_either_memory_takes_nobody() -> None:
    router = Router(RoutingPolicy())
    report(router, A, replace(FULL, num_waiting=3), 0.0)
    with pytest.raises(Overloaded, match="all 1 workers are full; 0 have KV blocks left"):
        router.route(RequestId("r"), 160, (), 0.1)
    report(router, A, replace(FULL, num_waiting=3, num_host_blocks=8), 0.2)
    for i in range(3):
        assert router.route(RequestId(f"r{i}"), 160, (), 0.3).worker == A
    with pytest.raises(Overloaded, match="1 have KV blocks left"):
        router.route(RequestId("r3"), 160, (), 0.3)


SIZES = st.integers(0, 200)


@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 4000))
def test_more_room_never_makes_a_worker_less_wanted(
    free: int, more_free: int, host: int, more_host: int, tokens: int
) -> None:
    less = replace(FULL, num_blocks=400, num_free_blocks=free, num_host_blocks=host)
    more = replace(less, num_free_blocks=free + more_free, num_host_blocks=host + more_host)
    router = two_workers()
    report(router, A, more, 0.1)
    report(router, B, less, 0.1)
    assert router.route(RequestId("r"), tokens, (), 0.2).worker == A
