"""Filters of lists of tasks."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, get_args

from flowkit._engine import RETRYING, ROOT, parent_tag, reason_tag, waiting_tag
from flowkit._json.values import is_unicode
from flowkit.protocols import TaskQuery
from flowkit.task import TaskStatus, WaitingFor

WAITING_FOR: tuple[WaitingFor, ...] = get_args(WaitingFor)
HALF_A_MICROSECOND = 0.5e-6
"""Views round the times of tasks to microseconds. The time in a view is the same as the stored one.
"""
MOST_OF_PAGE = 2**31 - 1
OPEN = tuple(status.value for status in TaskStatus if not status.terminal)
"""Statuses of tasks that have not ended."""
_STATUSES = tuple(status.value for status in TaskStatus)


def task_query(
    *,
    status: str | Collection[str] | None = None,
    pipeline: str | None = None,
    labels: Mapping[str, str] | None = None,
    parent: str | None = None,
    root: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    retrying: bool | None = None,
    waiting: str | None = None,
    reason_code: str | None = None,
    limit: int,
    after: str | None = None,
) -> TaskQuery:
    """Return the query of a list of tasks.

    Raises:
        ValueError: an argument has a value that no task can have.
    """
    return TaskQuery(
        statuses=_statuses(status),
        pipeline=_text(pipeline, "pipeline"),
        labels=_labels(labels),
        limit=checked_limit(limit),
        after=_text(after, "after"),
        tags=_tags(
            parent=parent, root=root, retrying=retrying, waiting=waiting, reason_code=reason_code
        ),
        created_after=_seconds(created_after, "created_after", HALF_A_MICROSECOND),
        created_before=_seconds(created_before, "created_before", -HALF_A_MICROSECOND),
    )


def filter_query(**filters: Any) -> TaskQuery:
    """Return the query of all tasks that match at least one filter.

    Raises:
        ValueError: no filter is given, or one has a value that no task can have.
    """
    query = task_query(**filters, limit=1, after=None)
    of_time = query.created_after is not None or query.created_before is not None
    of_task = query.pipeline is not None or query.statuses or query.labels or query.tags
    if not of_time and not of_task:
        raise ValueError(f"give at least one filter: {', '.join(filters)}")
    return query


def checked_limit(limit: Any) -> int:
    """Return the length of a page.

    Raises:
        ValueError: this is not a positive number.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise ValueError(f"limit is a whole number, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    if limit > MOST_OF_PAGE:
        raise ValueError(f"limit is at most {MOST_OF_PAGE:,}, not {limit:,}")
    return limit


def _tags(
    *,
    parent: str | None,
    root: bool | None,
    retrying: bool | None,
    waiting: str | None,
    reason_code: str | None,
) -> list[str]:
    """Return the tags of the tasks that match, usually the rarest first."""
    tags = []
    if (parent := _text(parent, "parent")) is not None:
        tags.append(parent_tag(parent))
    if (reason_code := _text(reason_code, "reason_code")) is not None:
        tags.append(reason_tag(reason_code))
    if _is_true(retrying, "retrying"):
        tags.append(RETRYING)
    if waiting is not None:
        if waiting not in WAITING_FOR:
            raise ValueError(f"waiting is one of {', '.join(WAITING_FOR)}, not {waiting!r}")
        tags.append(waiting_tag(waiting))
    if _is_true(root, "root"):
        if parent is not None:
            raise ValueError("no task has both root and parent; give one of them")
        tags.append(ROOT)
    return tags


def _is_true(value: Any, name: str) -> bool:
    if value is not None and value is not True:
        raise ValueError(f"{name} is True or None, not {value!r}")
    return value is True


def _statuses(status: Any) -> list[str]:
    if status is None:
        return []
    names = [status] if isinstance(status, str) or not isinstance(status, Collection) else status
    for name in names:
        if name not in _STATUSES:
            raise ValueError(f"status is one of {', '.join(_STATUSES)}, not {name!r}")
    return [TaskStatus(name).value for name in names]


def _labels(labels: Any) -> Mapping[str, str]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or not all(
        isinstance(text, str) for pair in labels.items() for text in pair
    ):
        raise ValueError(f"labels maps names to texts, and is not {labels!r}")
    for pair in labels.items():
        for text in pair:
            _text(text, "labels")
    return labels


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is a text, not {value!r}")
    if value is not None and not is_unicode(value):
        raise ValueError(f"{name} is not Unicode: {value!r}")
    return value


def _seconds(time: Any, name: str, more: float) -> float | None:
    """Return a time in seconds since 1970, and ``more``."""
    if time is None:
        return None
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ValueError(f"{name} is a datetime with a time zone, not {time!r}")
    return time.timestamp() + more
