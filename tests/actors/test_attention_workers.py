"""A cluster whose documents are attended on the host, by a process beside the gpu_worker: it may be
killed or stand still, and the one that it serves may be."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.client import Answer, Document
from cluster.kernels import kernels_available
from tests.actors.conftest import COLLECTION, Running, pages_of, running

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not kernels_available(), reason="the kernels were not built"),
]

BACK_S = 120.0
# More than the device holds of them.
TOPICS = ("violin", "harbour", "glacier", "orchard", "lantern", "quarry")
SETTINGS = {
    "attention_worker.count": "1",
    "attention_worker.timeout_s": "1",
    "cache.host_use": "attend",
    "cache.admission": "all",
    "gpu_worker.kv_blocks": "64",
}


@contextmanager
def attended(model: Path, home: Path, *flags: str, **more: str) -> Iterator[Running]:
    with running(model, home, flags, **SETTINGS | more) as cluster:
        with cluster.client() as client:
            client.documents.upsert(COLLECTION, [about(topic) for topic in TOPICS])
        yield cluster


def about(topic: str) -> Document:
    text = " ".join(f"The {topic} number {i} is kept in the {topic} house." for i in range(8))
    return Document(topic, topic.title(), text)


def ask(cluster: Running, topic: str) -> Answer:
    with cluster.client(timeout_s=BACK_S) as client:
        return client.ask(f"Where is the {topic}?", collections=[COLLECTION], top_k=1, max_tokens=8)


def sample(cluster: Running, actor: str, name: str) -> float:
    """The sum over all labels; 0 while the actor has no page."""
    page = pages_of(cluster).get(actor)
    if page is None:
        return 0.0
    try:
        text = httpx.get(f"http://{page}/metrics").text
    except httpx.TransportError:
        return 0.0
    families = text_string_to_metric_families(text)
    return sum(s.value for family in families for s in family.samples if s.name == name)


def wait_until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + BACK_S
    while not holds():
        assert time.monotonic() < until_s, "it did not come about"
        time.sleep(0.2)


def is_attached(cluster: Running) -> bool:
    return sample(cluster, "gpu_worker-0", "thoth_attention_attached") == 1


def sink(cluster: Running) -> dict[str, str]:
    """What is answered about each topic; afterwards most of the documents lie on the host alone."""
    return {topic: ask(cluster, topic).text for topic in TOPICS}


def assert_attends(cluster: Running, expected: dict[str, str]) -> None:
    before = sample(cluster, "attention_worker-0", "thoth_attention_parts_total")
    again = {topic: ask(cluster, topic) for topic in TOPICS}
    assert {topic: answer.text for topic, answer in again.items()} == expected
    assert sum(answer.usage.cached.host for answer in again.values())
    wait_until(
        lambda: sample(cluster, "attention_worker-0", "thoth_attention_parts_total") > before
    )


def test_in_one_process_documents_are_attended_by_the_worker(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with attended(tiny_folder, tmp_path / "home", "--local") as cluster:
        wait_until(lambda: is_attached(cluster))
        assert_attends(cluster, sink(cluster))
        wait_until(
            lambda: cluster.members()["gpu_worker-0"].member.runs_on.endswith(
                "beside attention_worker-0"
            )
        )


@pytest.fixture(scope="module")
def on_ray(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with attended(tiny_folder, tmp_path_factory.mktemp("attended") / "home") as cluster:
        wait_until(lambda: is_attached(cluster))
        yield cluster


@pytest.mark.ray
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=str)
def test_a_worker_is_lost_under_load_and_nobody_notices(
    on_ray: Running, blow: signal.Signals
) -> None:
    expected = sink(on_ray)
    assert_attends(on_ray, expected)
    lost = sample(on_ray, "gpu_worker-0", "thoth_attention_lost_total")
    gone = on_ray.members()["attention_worker-0"].member
    with under_load(on_ray, expected):
        time.sleep(1.0)
        os.kill(gone.pid, blow)
        wait_until(lambda: sample(on_ray, "gpu_worker-0", "thoth_attention_lost_total") > lost)
        wait_until(
            lambda: (
                on_ray.members()["attention_worker-0"].member.incarnation
                not in {"", gone.incarnation}
            )
        )
        wait_until(lambda: is_attached(on_ray))
    assert_attends(on_ray, expected)


@contextmanager
def under_load(cluster: Running, expected: dict[str, str]) -> Iterator[None]:
    """Two ask without a pause, and are answered as ever."""
    is_over = threading.Event()
    wrong: list[object] = []

    def keep_asking(topics: tuple[str, ...]) -> None:
        try:
            while not is_over.is_set():
                answers = {topic: ask(cluster, topic).text for topic in topics}
                wrong.extend(
                    (t, answers[t], expected[t]) for t in topics if answers[t] != expected[t]
                )
        except Exception as error:
            wrong.append(error)

    askers = [threading.Thread(target=keep_asking, args=(part,)) for part in (TOPICS, TOPICS[::-1])]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        is_over.set()
        for asker in askers:
            asker.join()
    assert not wrong


@pytest.mark.ray
def test_a_killed_gpu_worker_finds_its_documents_on_the_host_again(on_ray: Running) -> None:
    expected = sink(on_ray)
    gone = on_ray.members()["gpu_worker-0"].member
    os.kill(gone.pid, signal.SIGKILL)
    wait_until(
        lambda: (
            on_ray.members()["gpu_worker-0"].member.is_ready
            and on_ray.members()["gpu_worker-0"].member.incarnation != gone.incarnation
        )
    )
    first = ask(on_ray, TOPICS[0])
    assert first.text == expected[TOPICS[0]]
    assert first.usage.cached.host
    wait_until(lambda: is_attached(on_ray))
    assert_attends(on_ray, expected)
