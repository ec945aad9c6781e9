"""The dashboard, the rules for alerts and the example of scaling: their queries fit the metrics."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
import yaml

from flowkit.measures import MEASURES, Measure
from flowkit_telemetry._metric_table import FIGURES, METRICS
from flowkit_telemetry._process_metrics import ProcessMetrics
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs/how-to/monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
KEDA = yaml.safe_load((FOLDER / "keda.yml").read_text(encoding="utf-8"))
FROM_PROMETHEUS = {"job", "instance"}
VALUES = {
    "status": {*MEASURES["task_changes"].values["status"]},
    "outcome": {*MEASURES["attempt_sec"].values["outcome"]},
}
DURATION = re.compile(r"\d+[smh]")


def labels_of_samples() -> dict[str, set[str]]:
    """Return the names of all samples with their labels."""
    found = {name: {*figure.labels} for name, figure in FIGURES.items()}
    for name, meaning in MEASURES.items():
        metric, labels = METRICS[name], {*meaning.labels}
        if meaning.counts:
            found[metric] = labels
        else:
            found |= {f"{metric}_count": labels, f"{metric}_sum": labels}
            found[f"{metric}_bucket"] = labels | {"le"}
    return found | {"process_resident_memory_bytes": set()}


SAMPLES = labels_of_samples()


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m")
    for rule in rules():
        yield rule["expr"]
    for trigger in KEDA["spec"]["triggers"]:
        yield trigger["metadata"]["query"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def parts(expression: Any) -> Iterator[Any]:
    """Yield an expression and all inside of it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        inner = getattr(expression, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None:
                yield from parts(one)


def faults(query: str) -> list[str]:
    """Return the names of metrics, labels and values in a query that do not exist."""
    found: list[str] = []
    expression = promql.parse(query)
    selectors = [one for one in parts(expression) if isinstance(one, promql.VectorSelector)]
    labels = FROM_PROMETHEUS.union(*(SAMPLES.get(one.name, set()) for one in selectors))
    for selector in selectors:
        if selector.name not in SAMPLES:
            found.append(selector.name)
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in SAMPLES[selector.name] | FROM_PROMETHEUS:
                found.append(f"{selector.name}: {matcher.name}")
            elif values := VALUES.get(matcher.name):
                found += {*matcher.value.split("|")} - values
    for one in parts(expression):
        if isinstance(one, promql.AggregateExpr) and one.modifier is not None:
            found += {*one.modifier.labels} - labels
    return found


@pytest.mark.parametrize("query", list(queries()))
def test_each_query_names_what_exists(query: str) -> None:
    assert faults(query) == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("max(flowkit_open_task)", "flowkit_open_task"),
        ('flowkit_open_tasks{role="a"}', "flowkit_open_tasks: role"),
        ('flowkit_open_tasks{status="ended"}', "ended"),
        ("sum by (role) (flowkit_open_tasks)", "role"),
        ("rate(flowkit_commit_duration_seconds[5m])", "flowkit_commit_duration_seconds"),
    ],
)
def test_a_wrong_name_in_a_query_is_noticed(query: str, fault: str) -> None:
    assert faults(query) == [fault]


def series_of(metrics: ProcessMetrics) -> list[tuple[str, dict[str, str]]]:
    """Return the series that a process shows: names of samples with their labels."""
    return [(one.name, one.labels) for family in metrics.families() for one in family.samples]


@pytest.mark.parametrize("query", [rule["expr"] for rule in rules()])
def test_the_series_of_which_an_alert_takes_the_increase_exist_before_it(query: str) -> None:
    for call in parts(promql.parse(query)):
        if not isinstance(call, promql.Call) or call.func.name not in ("increase", "rate"):
            continue
        selector = call.args[0].vector_selector
        (name,) = [one for one in MEASURES if selector.name.startswith(METRICS[one])]
        meaning, metrics = MEASURES[name], ProcessMetrics()
        if meaning.values.keys() < {*meaning.labels}:
            # The first change of a task of a pipeline: it is queued.
            first = dict.fromkeys(meaning.labels, "shop") | {"status": "queued"}
            metrics.flowkit_measured([Measure(name, 1, first)])
        known = {label: {*meaning.values.get(label, ("shop",))} for label in meaning.labels}
        for matcher in selector.matchers.matchers:
            known[matcher.name] = {*matcher.value.split("|")}
        shown = [labels for sample, labels in series_of(metrics) if sample == selector.name]
        for label, expected in known.items():
            assert expected <= {labels[label] for labels in shown}, (query, label)
        assert shown, query


def test_the_figures_of_an_installation_are_not_added_up_over_its_processes() -> None:
    for query in queries():
        for one in parts(promql.parse(query)):
            if isinstance(one, promql.AggregateExpr) and str(one.op) == "sum":
                inner = one.expr
                assert getattr(inner, "name", None) not in FIGURES, query


def test_each_metric_is_on_the_dashboard() -> None:
    text = json.dumps(DASHBOARD)
    for metric in (*METRICS.values(), *FIGURES):
        assert metric in text, metric


def test_panels_do_not_overlap_and_have_their_own_numbers() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        lines = range(place["y"], place["y"] + place["h"])
        own = {(column, line) for column in columns for line in lines}
        assert cells.isdisjoint(own), panel["title"]
        assert max(columns) < 24
        cells |= own
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_each_alert_has_what_prometheus_and_people_need() -> None:
    assert ALERTS.keys() == {"groups"}
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert DURATION.fullmatch(rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= set(re.findall(r"\w+", rule["expr"])), rule["alert"]
