"""The table of metrics: which metric each measure becomes, and the figures of an installation."""

from collections.abc import Mapping
from dataclasses import dataclass

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets of histograms, in seconds."""

METRICS: Mapping[str, str] = {
    "task_changes": "flowkit_task_changes_total",
    "task_sec": "flowkit_task_duration_seconds",
    "node_changes": "flowkit_node_changes_total",
    "queue_sec": "flowkit_queue_duration_seconds",
    "attempt_sec": "flowkit_attempt_duration_seconds",
    "stream_lag_sec": "flowkit_stream_lag_seconds",
    "schedule_late_sec": "flowkit_schedule_lateness_seconds",
    "dead_letters": "flowkit_dead_letters_total",
    "commit_sec": "flowkit_commit_duration_seconds",
    "commits": "flowkit_commits_total",
    "swept_tasks": "flowkit_swept_tasks_total",
}
"""Names of metrics by measure. A measure that counts is a counter, any other a histogram."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Meaning of a gauge of the installation."""

    description: str
    labels: tuple[str, ...] = ()


FIGURES: Mapping[str, Figure] = {
    "flowkit_store_up": Figure("Whether the store answered when the figures were read."),
    "flowkit_open_tasks": Figure(
        "Tasks that have not ended, by status. Counting stops at 1,000.", ("status",)
    ),
    "flowkit_retrying_tasks": Figure(
        "Tasks with a node that failed and is tried again. Counting stops at 1,000."
    ),
    "flowkit_queue_depth": Figure(
        "Nodes that wait for a worker, of the 1,000 oldest tasks with such a node. A role that is"
        " served and for which no node waits has 0.",
        ("role",),
    ),
    "flowkit_queue_oldest_seconds": Figure(
        "Seconds since the first of these nodes waits.", ("role",)
    ),
    "flowkit_coordinators": Figure("Coordinators that send heartbeats."),
    "flowkit_workers": Figure("Workers that serve a role and send heartbeats.", ("role",)),
    "flowkit_silent_workers": Figure("Workers without heartbeats that have not ended."),
    "flowkit_worker_slots": Figure("Nodes that the live workers can run at the same time."),
    "flowkit_worker_runs": Figure("Nodes that the live workers run."),
    "flowkit_worker_waiting_runs": Figure(
        "Nodes that the live workers have begun and that wait for batches, readers or a slot."
    ),
    "flowkit_trigger_behind": Figure(
        "Events for which a trigger has made no task yet. Counting ends of tasks stops at 1,000. A"
        " trigger whose source does not answer, and one that is paused, has no value.",
        ("trigger",),
    ),
}
"""Gauges that are read from the store. All processes that serve them have the same values."""
