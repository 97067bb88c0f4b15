"""The catalogue keeps its own rules."""

from __future__ import annotations

from cluster.telemetry import catalogue
from cluster.telemetry.catalogue import CATALOGUE, OBJECTIVES
from cluster.telemetry.declared import Counter, Histogram, Metric

UNITS = {"seconds", "bytes", "tokens", "blocks", "requests", "documents", "chunks", "members"}
FORBIDDEN_LABELS = {"tenant", "principal", "request", "request_id", "document", "document_id"}
MOST_CHILDREN = 16


def test_every_metric_of_the_module_is_in_the_list() -> None:
    declared = [v for v in vars(catalogue).values() if isinstance(v, Metric)]
    assert set(declared) == set(CATALOGUE)
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_names_follow_the_prometheus_conventions() -> None:
    for metric in CATALOGUE:
        assert metric.name.startswith("thoth_")
        assert metric.name.endswith("_total") == isinstance(metric, Counter), metric.name
        if isinstance(metric, Histogram):
            assert metric.name.rpartition("_")[2] in UNITS, metric.name


def test_the_constant_is_the_name_without_what_every_name_has() -> None:
    for constant, metric in vars(catalogue).items():
        if isinstance(metric, Metric):
            assert f"thoth_{constant.lower()}" == metric.name.removesuffix("_total")


def test_labels_are_short_closed_lists_and_name_no_caller() -> None:
    for metric in CATALOGUE:
        assert FORBIDDEN_LABELS.isdisjoint(metric.label_names)
        assert len(metric.children) <= MOST_CHILDREN, metric.name
        for label in metric.labels:
            assert len(set(label.values)) == len(label.values) > 0


def test_buckets_grow_and_only_histograms_have_them() -> None:
    for metric in CATALOGUE:
        if isinstance(metric, Histogram):
            assert list(metric.buckets) == sorted(set(metric.buckets))
            assert len(metric.buckets) > 0


def test_every_objective_is_a_bucket_bound_and_can_be_missed() -> None:
    for objective in OBJECTIVES:
        assert objective.threshold in objective.metric.buckets
        assert 0.5 < objective.ratio < 1
