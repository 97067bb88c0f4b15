"""Dashboards, rules and the catalogue speak of the same metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.telemetry import catalogue
from cluster.telemetry.catalogue import CATALOGUE, OBJECTIVES
from cluster.telemetry.declared import series_of
from tests.house.dashboards import ROOT, concrete, dashboards, metric_names, panels, queries

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"

# Made by Prometheus itself, and by prometheus_client for every process.
FOREIGN = frozenset({"up", "process_resident_memory_bytes"})
DECLARED = frozenset().union(*map(series_of, CATALOGUE))
LONG_ENOUGH_TO_HELP = 60

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian package `prometheus`)",
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('sum by (le, role) (rate(a_bucket{x="b(c)", y=~"d"}[5m]))', {"a_bucket"}),
        ("a:b:ratio_rate5m > 0.1 and on (x) group_left (y) c", {"a:b:ratio_rate5m", "c"}),
        ("(max(m) or vector(0)) < 1", {"m"}),
    ],
)
def test_the_names_in_an_expression_are_found(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


def test_every_metric_on_a_panel_is_declared() -> None:
    for query in queries():
        names = metric_names(query.expression)
        assert names, query
        assert names <= DECLARED | FOREIGN, query


def test_every_declared_metric_is_on_a_panel() -> None:
    shown = frozenset().union(*(metric_names(query.expression) for query in queries()))
    assert not [metric.name for metric in CATALOGUE if series_of(metric).isdisjoint(shown)]


def test_every_declared_metric_is_counted_by_an_actor() -> None:
    actors = "".join(path.read_text() for path in (ROOT / "actors").rglob("*.py"))
    names = [name for name, value in vars(catalogue).items() if value in CATALOGUE]
    assert [name for name in names if not re.search(rf"\bcatalogue\.{name}\b", actors)] == []


def test_every_metric_in_a_rule_is_declared_or_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        assert metric_names(rule["expr"]) <= DECLARED | FOREIGN | recorded, rule


def test_label_values_in_expressions_are_declared() -> None:
    values: dict[str, set[str]] = {}
    for label in (label for metric in CATALOGUE for label in metric.labels):
        values.setdefault(label.name, set()).update(label.values)
    expressions = [query.expression for query in queries()] + [rule["expr"] for rule in rules()]
    for expression in expressions:
        for label, said in re.findall(r'(\w+)=~?"([\w|]+)"', expression):
            assert label not in values or set(said.split("|")) <= values[label], expression


def test_a_counter_is_never_shown_raw() -> None:
    for query in queries():
        for name in metric_names(query.expression):
            counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
            inside = re.search(rf"(rate|increase)\({name}\b", query.expression)
            assert not counts or inside, query


def test_every_panel_says_what_to_do_and_names_its_unit() -> None:
    for name, model in dashboards().items():
        for panel in panels(model):
            assert len(panel["description"]) > LONG_ENOUGH_TO_HELP, (name, panel["title"])
            assert panel["fieldConfig"]["defaults"]["unit"], (name, panel["title"])


def test_seconds_are_drawn_as_seconds_and_bytes_as_bytes() -> None:
    for query in queries():
        names = metric_names(query.expression)
        if any("_seconds_bucket" in name for name in names):
            assert query.unit == "s", query
        if any(name.endswith("_bytes") for name in names):
            assert query.unit == "bytes", query


def test_dashboards_have_a_stable_name_and_a_data_source_of_the_readers_choice() -> None:
    for name, model in dashboards().items():
        assert model["uid"] == name.removesuffix(".json")
        assert model["templating"]["list"][0]["type"] == "datasource"
        sources = {json.dumps(panel["datasource"]) for panel in panels(model)}
        assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
        ids = [panel["id"] for panel in model["panels"]]
        assert len(set(ids)) == len(ids)


def test_no_two_panels_overlap() -> None:
    for name, model in dashboards().items():
        taken: dict[tuple[int, int], str] = {}
        for panel in model["panels"]:
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert x < 24, (name, panel["title"])
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"], name


def test_rates_follow_the_readers_zoom() -> None:
    for query in queries():
        for window in re.findall(r"rate\([^)]*\[([^\]]*)\]", query.expression):
            assert window == "$__rate_interval", query


def test_every_objective_is_a_line_on_the_panel_of_its_metric() -> None:
    for objective in OBJECTIVES:
        drawn = {
            step["value"]
            for model in dashboards().values()
            for panel in panels(model)
            for target in panel["targets"]
            if objective.metric.name + "_bucket" in metric_names(target["expr"])
            for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        }
        assert objective.threshold in drawn


def test_every_objective_has_an_alert_that_counts_its_bucket() -> None:
    for objective in OBJECTIVES:
        bucket = f'{objective.metric.name}_bucket{{le="{objective.threshold}"}}'
        recorded = [r["record"] for r in rules() if "record" in r and bucket in r["expr"]]
        alerts = [r["expr"] for r in rules() if "alert" in r]
        assert any(set(recorded) <= metric_names(alert) for alert in alerts), bucket
        fast = round(14.4 * (1 - objective.ratio), 6)
        assert all(f"> {fast}" in a for a in alerts if set(recorded) <= metric_names(a))


@needs_promtool
def test_every_expression_of_a_panel_parses(tmp_path: Path) -> None:
    made = [
        {"record": f"panel:{number}", "expr": concrete(query.expression)}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    promtool("check", "rules", file)


@needs_promtool
def test_prometheus_accepts_the_configuration() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_the_rules_do_what_their_own_tests_say() -> None:
    promtool("test", "rules", PROMETHEUS / "rules.test.yml")


def test_grafana_is_told_the_scrape_interval_of_prometheus() -> None:
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    sources = ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
