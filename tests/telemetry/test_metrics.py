"""What is counted is what is served."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.telemetry import catalogue
from cluster.telemetry.catalogue import CATALOGUE
from cluster.telemetry.declared import Counter, Gauge, Histogram, series_of
from cluster.telemetry.metrics import Metrics, MetricsServer


def ask_for_everything(metrics: Metrics) -> None:
    for declared in CATALOGUE:
        match declared:
            case Counter():
                metrics.counter(declared)
            case Gauge():
                metrics.gauge(declared)
            case Histogram():
                metrics.histogram(declared)


def samples(metrics: Metrics) -> dict[str, float]:
    """`name{label=value,...}` to value."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
async def served() -> AsyncIterator[tuple[Metrics, str]]:
    metrics = Metrics("gpu_worker")
    server = MetricsServer(metrics, "127.0.0.1")
    yield metrics, await server.start()
    await server.stop()


async def fetch(url: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""

    def get() -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()

    return await asyncio.to_thread(get)


def test_a_metric_that_nobody_asked_for_is_not_there() -> None:
    assert not [name for name in samples(Metrics("gateway")) if name.startswith("thoth_")]


def test_a_labelled_metric_starts_at_zero_for_every_value() -> None:
    metrics = Metrics("gpu_worker")
    metrics.gauge(catalogue.KV_BLOCKS)
    found = samples(metrics)
    assert found["thoth_kv_blocks{state=free,tier=device}"] == 0
    assert found["thoth_kv_blocks{state=used,tier=device}"] == 0


def test_the_same_metric_is_given_to_whoever_asks() -> None:
    metrics = Metrics("gpu_worker")
    metrics.counter(catalogue.PROMPT_TOKENS).inc(5)
    metrics.counter(catalogue.PROMPT_TOKENS).inc(7)
    assert samples(metrics)["thoth_prompt_tokens_total{}"] == 12


def test_two_actors_in_one_process_count_apart() -> None:
    first, second = Metrics("gpu_worker"), Metrics("gpu_worker")
    first.counter(catalogue.PREEMPTIONS).inc()
    second.counter(catalogue.PREEMPTIONS)
    assert samples(second)["thoth_preemptions_total{}"] == 0


def test_an_observation_falls_into_the_buckets_at_and_above_it() -> None:
    metrics = Metrics("gateway")
    metrics.histogram(catalogue.TIME_TO_FIRST_TOKEN_SECONDS).observe(10.0)
    found = samples(metrics)
    assert found["thoth_time_to_first_token_seconds_bucket{le=7.5}"] == 0
    assert found["thoth_time_to_first_token_seconds_bucket{le=10.0}"] == 1
    assert found["thoth_time_to_first_token_seconds_bucket{le=+Inf}"] == 1


def test_the_exposition_names_what_the_catalogue_declares_and_nothing_else() -> None:
    metrics = Metrics("gateway")
    ask_for_everything(metrics)
    served = {name.partition("{")[0] for name in samples(metrics)}
    declared = frozenset().union(*map(series_of, CATALOGUE))
    assert {name for name in served if name.startswith("thoth_")} == declared


async def test_the_page_is_prometheus_text_with_the_counts(served: tuple[Metrics, str]) -> None:
    metrics, address = served
    metrics.counter(catalogue.GENERATED_TOKENS).inc(3)
    status, content_type, body = await fetch(f"http://{address}/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"thoth_generated_tokens_total 3.0" in body


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metricsx", "/../metrics", "/favicon.ico"])
async def test_nothing_else_is_served(served: tuple[Metrics, str], path: str) -> None:
    status, _, body = await fetch(f"http://{served[1]}{path}")
    assert status == 404
    assert b"thoth_" not in body


async def test_it_answers_while_the_event_loop_is_busy(served: tuple[Metrics, str]) -> None:
    metrics, address = served
    ask_for_everything(metrics)
    answered = threading.Event()

    def get() -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            answer.read()
        answered.set()

    getting = asyncio.get_running_loop().run_in_executor(None, get)
    # The loop stands still here until the page has come.
    assert answered.wait(timeout=10)
    await getting


async def test_a_silent_peer_does_not_keep_others_waiting(served: tuple[Metrics, str]) -> None:
    host, port = served[1].split(":")
    _, silent = await asyncio.open_connection(host, int(port))
    status, _, _ = await fetch(f"http://{served[1]}/metrics")
    silent.close()
    await silent.wait_closed()
    assert status == 200


async def test_after_stop_the_port_is_free_again() -> None:
    server = MetricsServer(Metrics("gateway"), "127.0.0.1")
    address = await server.start()
    await server.stop()
    await server.stop()
    again = MetricsServer(Metrics("gateway"), "127.0.0.1", int(address.split(":")[1]))
    assert await again.start() == address
    await again.stop()


async def test_a_taken_port_is_an_error_at_start(served: tuple[Metrics, str]) -> None:
    port = int(served[1].split(":")[1])
    with pytest.raises(OSError, match="in use"):
        await MetricsServer(Metrics("gateway"), "127.0.0.1", port).start()
