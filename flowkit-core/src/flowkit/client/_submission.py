"""Submission of tasks."""

import os
from collections.abc import Mapping
from typing import Any

from flowkit._records.task_records import decode_submission
from flowkit._tasks.submission import checked, new_id
from flowkit._tasks.views import task_view
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._session import Session
from flowkit.errors import FlowKitError, TaskRefused
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.task import NewTask, TaskSpec
from flowkit.tracing import current_trace


async def create_task(
    session: Session,
    graph: Any,
    params: Mapping[str, Any] | None,
    *,
    task_id: str | None,
    idempotency_key: str | None,
    **options: Any,
) -> str:
    """Check a task, store it and return its id; the id of the first one if it repeats it."""
    plugins = session.plugins
    try:
        parsed, plain, chosen = checked(
            graph,
            params,
            limits=session.cfg.limits,
            functions=plugins.functions,
            command_topic=session.cfg.command_topic,
            task_id=task_id,
            idempotency_key=idempotency_key,
            **options,
        )
    finally:
        await undo_cancellation()
    now = session.clock.now()
    random = os.urandom(26)
    spec = TaskSpec(
        task_id=task_id or new_id(now, random[:10]),
        plan=parsed.plan,
        created_at=now,
        secret=random[10:],
        params=plain,
        pipeline=chosen.pipeline,
        labels=chosen.labels,
        priority=chosen.priority,
        idempotency_key=idempotency_key,
        deadline_sec=(
            parsed.plan.deadline_sec if chosen.deadline_sec is None else chosen.deadline_sec
        ),
        trace=current_trace(),
    )
    if plugins.checks_submissions:
        await _ask_plugins(plugins, spec, parsed)
    named = task_id is not None or idempotency_key is not None
    certainly_new = not named and _starts_unconditionally(parsed)
    new = session.submission(spec, parsed, certainly_new=certainly_new)
    stored = await session.create(new)
    if named and not await _is_new(session, stored, spec, parsed.source):
        return stored
    if plugins.observes_tasks:
        plugins.notify("flowkit_task_changed", before=None, after=task_view(new.task))
        await undo_cancellation()
    return stored


def _starts_unconditionally(graph: Graph) -> bool:
    return all(graph.plan.nodes[root].when is None for root in graph.plan.roots)


async def _is_new(session: Session, stored: str, spec: TaskSpec, graph: bytes) -> bool:
    """Return whether the task that is stored under this id or key is the one submitted now.

    Raises:
        TaskRefused: it is an earlier one with another graph or other params.
    """
    record = await session.load(stored)
    if record is None:
        return False  # it was purged meanwhile
    first = decode_submission(record)
    if first.secret == spec.secret:
        return True
    if (difference := first.difference(graph, spec.params)) is not None:
        name = (
            f"task_id {spec.task_id!r}"
            if stored == spec.task_id
            else f"idempotency_key {spec.idempotency_key!r}"
        )
        raise TaskRefused(
            f"{name} is taken: task {stored!r} was submitted with {difference}; use another one"
        )
    return False


async def _ask_plugins(plugins: Plugins, spec: TaskSpec, graph: Graph) -> None:
    """Ask the plugins whether they refuse a task.

    Raises:
        TaskRefused: one of them refuses it, or failed.
    """
    task = NewTask(
        spec.task_id, graph.to_dict(), spec.params, spec.pipeline, spec.labels, spec.priority
    )
    try:
        answer = plugins.first("flowkit_before_submit", check=_checked_reason, task=task)
    except TaskRefused:
        raise
    except FlowKitError as error:
        raise TaskRefused(str(error)) from error
    finally:
        await undo_cancellation()
    if answer is not None:
        raise TaskRefused(f"plugin {answer.plugin!r} refused the task: {answer.value}")


def _checked_reason(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"the reason for a refusal is a string, not {type(answer).__name__}")
    return answer
