"""Approvals: the nodes that wait for a human, and decisions about them."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flowkit._engine import DecisionMade, waiting_tag
from flowkit._json.limits import MAX_ID_CHARS
from flowkit._json.values import NotJson, is_unicode, json_copy, kind_of, short
from flowkit._records.task_records import decode_task
from flowkit._tasks.explanations import awaits_decision
from flowkit._user_code.containment import contained, error_text
from flowkit.client._explanations import asking_below
from flowkit.client._nodes import StoredNode, read_node
from flowkit.client._session import Session
from flowkit.client._task_filters import checked_limit
from flowkit.errors import (
    AlreadyDecided,
    CorruptRecord,
    NotAssigned,
    PayloadError,
    TaskRefused,
)
from flowkit.graph._control_types import REJECT, arguments_of
from flowkit.protocols import TaskQuery, TaskRecord, utc
from flowkit.task import Approval, NodeRecord, Page, Task, Wait

WAITING = (waiting_tag("approval"),)
"""Tags of tasks with nodes that wait for a decision."""
TASKS_A_READ = 100
READS_A_PAGE = 20
"""Reads of tasks for one page of approvals. Then a page ends, even if it is not full."""
MAX_VALUES_BYTES = 256 * 1024
MAX_COMMENT_CHARS = 10_000


class _Place(NamedTuple):
    """Place after which a page begins."""

    after: str | None
    """Page of tasks."""
    created_at: float
    task_id: str
    node: int


# ---------------------------------------------------------------- list


async def list_approvals(
    session: Session, *, task_id: str | None, assignee: str | None, limit: int, after: str | None
) -> Page[Approval]:
    """Return a page of the nodes that wait for a decision."""
    checked_limit(limit)
    place = None if after is None else _decoded(after)
    store_after = None if place is None else place.after
    found: list[Approval] = []
    for _ in range(READS_A_PAGE):
        query = TaskQuery(tags=WAITING, limit=TASKS_A_READ, after=store_after)
        records, following = await _read(session, task_id, query)
        for record in records:
            for here, approval in _of_record(record, store_after):
                is_before = place is not None and _order(here) <= _order(place)
                others = approval.assignees is not None and assignee not in approval.assignees
                if is_before or (assignee is not None and others):
                    continue
                found.append(approval)
                if len(found) == limit:
                    return Page(found, _encoded(here))
        if following is None:
            return Page(found, None)
        store_after = following
    return Page(found, _encoded(_Place(store_after, float("inf"), "", 0)))


async def _read(
    session: Session, task_id: str | None, query: TaskQuery
) -> tuple[Sequence[TaskRecord], str | None]:
    """Return the records of a page of tasks, or that of one task alone."""
    if task_id is not None:
        return [await session.record(task_id)], None
    return await session.store.list_tasks(query)


def _of_record(record: TaskRecord, after: str | None) -> Iterator[tuple[_Place, Approval]]:
    """Yield the approvals of a task. A task that cannot be decoded has none."""
    try:
        task = decode_task(record, to_look_at=True)
    except (CorruptRecord, PayloadError):
        return
    for index, node in sorted(task.records.items()):
        if node.wait is not None and awaits_decision(task, index, node):
            place = _Place(after, task.spec.created_at, task.task_id, index)
            yield place, _approval(task, index, node, node.wait)


def _approval(task: Task, index: int, record: NodeRecord, wait: Wait) -> Approval:
    return Approval(
        task_id=task.task_id,
        node_id=task.spec.plan.ids[index],
        form=arguments_of(task.spec.plan.nodes[index]).get("form"),
        since=utc(record.issued_at),
        until=None if wait.until is None else utc(wait.until),
        **wait.arguments,
    )


def _order(place: _Place) -> tuple[float, tuple[int, ...], int]:
    """Return a key that sorts places as tasks are listed: the newest first."""
    return -place.created_at, tuple(-ord(char) for char in place.task_id), place.node


def _encoded(place: _Place) -> str:
    return urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decoded(cursor: Any) -> _Place:
    try:
        after, created_at, task_id, index = json.loads(urlsafe_b64decode(cursor))
        return _Place(after, float(created_at), str(task_id), int(index))
    except (TypeError, ValueError):
        raise ValueError(f"invalid page cursor {cursor!r}") from None


# ---------------------------------------------------------------- decisions


async def decide(
    session: Session,
    task_id: str,
    node_id: str,
    choice: str,
    *,
    by: str,
    values: Mapping[str, Any] | None,
    comment: str | None,
) -> None:
    """Decide about a node that waits for an approval."""
    plain = _checked_values(values)
    check_name(by)
    _check_comment(comment)
    event: DecisionMade | None = None
    while True:
        node = await read_node(session, task_id, node_id)
        task, index, record = node.task, node.index, node.record
        if not awaits_decision(task, index, record) or record.wait is None:
            if event is not None and _is_recorded(event, record):
                return  # by a commit whose outcome was unknown
            raise await _refusal(session, node)
        await _check_decision(session, task, index, record.wait, choice, by, plain)
        event = DecisionMade(index, record.attempt, choice, by, plain, comment)
        if await session.change(task_id, event, node.stored):
            return


def _is_recorded(event: DecisionMade, record: NodeRecord) -> bool:
    made = record.result
    return isinstance(made, dict) and all(
        made.get(name) == getattr(event, name) for name in ("choice", "by", "values", "comment")
    )


async def _refusal(session: Session, node: StoredNode) -> TaskRefused:
    task, index, record = node.task, node.index, node.record
    plan, name = task.spec.plan, node.name
    if plan.nodes[index].type != "approval":
        text = f"{name} is of type {plan.nodes[index].type!r}, and takes no decision"
        if (below := await asking_below(session.store, task, index)) is not None:
            text += f"; node {below[1]!r} of its child task {below[0]!r} waits for one"
        return TaskRefused(text)
    if record.resolution is not None:
        return TaskRefused(f"{name} takes no decision: {record.resolution}")
    if isinstance(made := record.result, dict):
        return AlreadyDecided(
            f"{name} was decided before: {made['choice']!r} by {made['by']!r} at {made['at']}"
        )
    return TaskRefused(f"{name} does not wait for a decision")


async def _check_decision(
    session: Session,
    task: Task,
    index: int,
    wait: Wait,
    choice: str,
    by: str,
    values: dict[str, Any] | None,
) -> None:
    choices, assignees = wait.arguments["choices"], wait.arguments.get("assignees")
    name = f"node {task.spec.plan.ids[index]!r}"
    if choice not in choices:
        known = ", ".join(map(short, choices[:10]))
        raise TaskRefused(f"{short(choice)} is no choice of {name}; its choices are {known}")
    if assignees is not None and by not in assignees:
        known = ", ".join(map(short, assignees[:10]))
        raise NotAssigned(f"{short(by)} may not decide about {name}; its assignees are {known}")
    form = arguments_of(task.spec.plan.nodes[index]).get("form")
    if form is None or (choice == REJECT and values is None):
        return
    if faults := await session.checks.threads.value_faults(form, values or {}, "values"):
        raise TaskRefused(f"the values do not match the form of {name}: {'; '.join(faults)}")


def _checked_values(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    try:
        plain = contained(json_copy, values, "values", max_bytes=MAX_VALUES_BYTES)
    except NotJson as error:
        raise TaskRefused(str(error)) from None
    except Exception as error:
        raise TaskRefused(f"values cannot be read: {error_text(error, most=400)}") from error
    if not isinstance(plain, dict):
        raise TaskRefused(f"values must be an object, not {kind_of(plain)}")
    return plain


def check_name(by: Any) -> None:
    """Check the name of a person.

    Raises:
        TaskRefused: it is not valid.
    """
    if not isinstance(by, str) or not 0 < len(by) <= MAX_ID_CHARS or not by.isprintable():
        raise TaskRefused(f"by must have 1 to {MAX_ID_CHARS} printable characters")


def _check_comment(comment: Any) -> None:
    if comment is not None and (
        not isinstance(comment, str) or len(comment) > MAX_COMMENT_CHARS or not is_unicode(comment)
    ):
        raise TaskRefused(f"a comment is a text of at most {MAX_COMMENT_CHARS:,} characters")
