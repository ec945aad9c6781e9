"""Measurements that coordinators, workers and clients make of their work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flowkit.task import LETTER_KINDS, NodeStatus, TaskStatus


class Measure(NamedTuple):
    """A measured value. ``name`` is one of :data:`MEASURES`."""

    name: str
    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """Meaning of the measures of one name. Each measure has a value for each label."""

    description: str
    labels: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    """All values of a label, for each label whose values are known. Those of other labels, such as
    roles and pipelines, come from users.
    """
    counts: bool = field(default=False, kw_only=True)
    """Whether the values are numbers to add up, not durations in seconds."""


MEASURES = {
    "task_changes": Measured(
        "Tasks that got a status.",
        ("status", "pipeline"),
        values={"status": tuple(status.value for status in TaskStatus)},
        counts=True,
    ),
    "task_sec": Measured(
        "Seconds from the creation of a task to its end.",
        ("status", "pipeline"),
        values={"status": tuple(status.value for status in TaskStatus if status.terminal)},
    ),
    "node_changes": Measured(
        "Nodes that got a status.",
        ("status", "role"),
        values={"status": tuple(status.value for status in NodeStatus)},
        counts=True,
    ),
    "queue_sec": Measured(
        "Seconds that an attempt waited for a worker: in a segment, that of the first node.",
        ("role",),
    ),
    "attempt_sec": Measured(
        "Seconds that an attempt took in a worker.",
        ("role", "outcome"),
        values={"outcome": ("succeeded", "failed", "stopped", "handed_back")},
    ),
    "stream_lag_sec": Measured(
        "Seconds from the storing of an artifact until a node reads it: of the first artifact"
        " of each page that is read while its producer runs.",
        ("role",),
    ),
    "schedule_late_sec": Measured(
        "Seconds from the nominal time of a schedule to the creation of its task, also of a task"
        " that was made to catch up or to backfill."
    ),
    "dead_letters": Measured(
        "Dead letters that were kept.", ("kind",), values={"kind": LETTER_KINDS}, counts=True
    ),
    "commit_sec": Measured(
        "Seconds that a commit took, of one or more tasks with their dead letters."
    ),
    "commits": Measured(
        "Commits of tasks, by outcome.",
        ("outcome",),
        values={"outcome": ("committed", "refused")},
        counts=True,
    ),
    "swept_tasks": Measured("Overdue tasks that a sweep woke.", counts=True),
}
"""The meanings of measures by name."""


__all__ = ["MEASURES", "Measure", "Measured"]
