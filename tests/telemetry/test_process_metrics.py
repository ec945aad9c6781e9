"""Metrics from measures."""

from flowkit.measures import MEASURES, Measure
from flowkit.task import LETTER_KINDS
from flowkit.worker._node_run import OUTCOMES
from flowkit_telemetry._label_values import LabelValues
from flowkit_telemetry._metric_table import BUCKETS, FIGURES, METRICS
from flowkit_telemetry._process_metrics import ProcessMetrics


def one_of(name: str, value: float) -> Measure:
    """Return a measure with a value for each label of its name."""
    meaning = MEASURES[name]
    labels = {label: meaning.values.get(label, (f"a {label}",))[0] for label in meaning.labels}
    return Measure(name, value, labels)


def values(metrics: ProcessMetrics) -> dict[str, float]:
    return {
        f"{one.name}{sorted(one.labels.values())}": one.value
        for family in metrics.families()
        for one in family.samples
    }


def test_each_measure_is_a_metric_with_its_labels() -> None:
    assert METRICS.keys() == MEASURES.keys()
    metrics = ProcessMetrics()
    metrics.flowkit_measured([one_of(name, 2) for name in MEASURES])
    families = list(metrics.families())
    for name, meaning in MEASURES.items():
        metric = METRICS[name]
        (family,) = [one for one in families if one.name == metric.removesuffix("_total")]
        assert family.type == ("counter" if meaning.counts else "histogram")
        assert family.documentation == meaning.description
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(meaning.labels)


def test_names_of_metrics_follow_the_conventions() -> None:
    for name, meaning in MEASURES.items():
        assert METRICS[name].startswith("flowkit_")
        assert METRICS[name].endswith("_total" if meaning.counts else "_seconds")
    assert not [name for name in FIGURES if name.endswith(("_total", "_count", "_sum"))]


def test_counts_add_up_by_the_values_of_their_labels() -> None:
    metrics = ProcessMetrics()
    for status in ("finished", "failed", "finished"):
        labels = {"status": status, "role": "work"}
        metrics.flowkit_measured([Measure("node_changes", 2, labels)])
    found = values(metrics)
    assert found["flowkit_node_changes_total['finished', 'work']"] == 4
    assert found["flowkit_node_changes_total['failed', 'work']"] == 2


def test_series_of_known_labels_are_there_from_the_start_with_0() -> None:
    found = values(ProcessMetrics())
    assert set(found.values()) == {0}
    for kind in LETTER_KINDS:
        assert f"flowkit_dead_letters_total['{kind}']" in found
    assert "flowkit_commits_total['refused']" in found
    assert "flowkit_swept_tasks_total[]" in found
    assert "flowkit_schedule_lateness_seconds_bucket['60.0']" in found


def test_the_first_measure_of_a_role_begins_its_series_for_all_known_values() -> None:
    metrics = ProcessMetrics()
    metrics.flowkit_measured([Measure("node_changes", 1, {"status": "queued", "role": "work"})])
    metrics.flowkit_measured([Measure("attempt_sec", 1, {"role": "work", "outcome": "stopped"})])
    found = values(metrics)
    assert found["flowkit_node_changes_total['queued', 'work']"] == 1
    assert found["flowkit_node_changes_total['failed', 'work']"] == 0
    assert found["flowkit_attempt_duration_seconds_count['stopped', 'work']"] == 1
    assert found["flowkit_attempt_duration_seconds_count['failed', 'work']"] == 0


def test_outcomes_of_attempts_are_those_that_workers_measure() -> None:
    assert set(MEASURES["attempt_sec"].values["outcome"]) == set(OUTCOMES.values())


def test_a_duration_is_in_the_buckets_of_its_length_and_of_longer_ones() -> None:
    metrics = ProcessMetrics()
    metrics.flowkit_measured([Measure("commit_sec", sec, {}) for sec in (1.0, 1.1, 1e9)])
    found = values(metrics)
    assert found["flowkit_commit_duration_seconds_bucket['0.5']"] == 0
    assert found["flowkit_commit_duration_seconds_bucket['1.0']"] == 1
    assert found["flowkit_commit_duration_seconds_bucket['2.5']"] == 2
    assert found[f"flowkit_commit_duration_seconds_bucket['{BUCKETS[-1]}']"] == 2
    assert found["flowkit_commit_duration_seconds_bucket['+Inf']"] == 3
    assert found["flowkit_commit_duration_seconds_count[]"] == 3
    assert found["flowkit_commit_duration_seconds_sum[]"] == 1e9 + 2.1


def test_later_values_of_a_label_are_counted_together() -> None:
    labels = LabelValues(most=2)
    assert [labels.bounded("role", role) for role in "abcab"] == ["a", "b", "other", "a", "b"]
    assert labels.bounded("pipeline", "c") == "c"
