"""Signals to tasks."""

from contextlib import suppress
from secrets import token_hex
from typing import Any

from pydantic_core import to_json

from flowkit._engine import MAX_KEPT, SignalReceived, parent_tag
from flowkit._json.limits import MAX_ID_CHARS
from flowkit._json.values import NotJson, json_copy, short
from flowkit._records.task_records import decode_task
from flowkit._user_code.containment import contained, error_text
from flowkit.client._session import Session
from flowkit.client._task_filters import OPEN
from flowkit.errors import CorruptRecord, PayloadError, SignalRefused
from flowkit.graph._control_types import arguments_of
from flowkit.protocols import TaskQuery
from flowkit.task import Mark, Task

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Size of the payloads of all signals that a task keeps."""
MOST_NAMES = 10
MOST_READ = 100
"""Child tasks that are searched for those that take a refused signal."""


async def send_signal(
    session: Session, task_id: str, name: str, payload: Any, signal_id: str | None
) -> None:
    """Send a signal to a task."""
    record = await session.record(task_id)
    task = decode_task(record)
    if _text(signal_id, "signal_id", optional=True) in task.signals.ids:
        return
    # With an id, a commit whose outcome is unknown can be repeated.
    signal_id = signal_id or token_hex(12)
    event = await _checked(session, task, _text(name, "the name"), payload, signal_id)
    while not await session.change(task_id, event, record):
        # The task ended meanwhile, or got the signal, or a store answered with old data.
        record = await session.record(task_id)
        task = decode_task(record)
        if signal_id in task.signals.ids:
            return
        _check_open(task)
        if len(task.signals.kept) >= MAX_KEPT:
            raise _too_many(task)


async def _checked(
    session: Session, task: Task, name: str, payload: Any, signal_id: str
) -> SignalReceived:
    """Return the event of a signal.

    Raises:
        SignalRefused: the task does not take it.
    """
    _check_open(task)
    waiting = [index for index in sorted(task.spec.plan.controls) if _may_take(task, index, name)]
    if not waiting:
        below = await _tasks_below(session, task, name)
        raise SignalRefused(
            f"no node of task {task.task_id!r} waits for the signal {short(name)};"
            f" {_instead(below) if below else _known(task)}"
        )
    try:
        payload = contained(json_copy, payload, "the payload", max_bytes=MAX_PAYLOAD_BYTES)
    except NotJson as error:
        raise SignalRefused(str(error)) from None
    except Exception as error:
        raise SignalRefused(f"the payload cannot be read: {error_text(error, most=400)}") from error
    fitting, wrong = [], []
    for index in waiting:
        schema = arguments_of(task.spec.plan.nodes[index]).get("schema")
        faults = []
        if schema is not None:
            faults = await session.checks.threads.value_faults(schema, payload, "payload")
        wrong += faults[:1]
        if not faults:
            fitting.append(index)
    if not fitting:
        raise SignalRefused(
            f"task {task.task_id!r} refuses the signal {short(name)}: {'; '.join(wrong[:5])}"
        )
    kept = sum(len(to_json(signal.payload)) for signal in task.signals.kept)
    if kept + len(to_json(payload)) > MAX_KEPT_BYTES:
        raise _too_many(task)
    nodes = None if len(fitting) == len(waiting) else tuple(fitting)
    return SignalReceived(name, payload, signal_id, nodes)


def _may_take(task: Task, index: int, name: str) -> bool:
    """Return whether a node waits for signals of this name, or may do so once its arguments are
    evaluated.
    """
    if task.spec.plan.nodes[index].type != "wait_signal":
        return False
    awaited, is_known = _awaited(task, index)
    return awaited == name or not is_known


def _awaited(task: Task, index: int) -> tuple[str, bool]:
    """Return the name of the signals that a node waits for, and whether it is known. Before the
    arguments of the node are evaluated, it may be an expression.
    """
    record = task.records.get(index)
    if record is not None and record.wait is not None and task.marks[index] == Mark.DEFERRED:
        return str(record.wait.arguments["signal"]), True
    written = arguments_of(task.spec.plan.nodes[index])["signal"]
    return written, "${" not in written


def _check_open(task: Task) -> None:
    if task.terminal:
        raise SignalRefused(
            f"task {task.task_id!r} is {task.status}: only a task that has not ended takes signals"
        )


def _too_many(task: Task) -> SignalRefused:
    return SignalRefused(
        f"task {task.task_id!r} keeps {len(task.signals.kept)} signals that no node has taken; the"
        f" limits are {MAX_KEPT} signals, and {MAX_KEPT_BYTES // 2**20} MiB of their payloads"
    )


def _known(task: Task) -> str:
    signals = (
        _awaited(task, index)[0]
        for index, node in enumerate(task.spec.plan.nodes)
        if node.type == "wait_signal"
    )
    names = list(map(short, dict.fromkeys(signals)))
    return f"its nodes wait for {', '.join(names[:MOST_NAMES])}" if names else "none waits for any"


async def _tasks_below(session: Session, task: Task, name: str) -> list[str]:
    """Return the ids of some child tasks, at any depth, that take signals of a name."""
    found: list[str] = []
    parents = [task] if task.spec.plan.nested else []
    read = 0
    while parents and read < MOST_READ and len(found) < MOST_NAMES:
        tags = (parent_tag(parents.pop(0).task_id),)
        query = TaskQuery(statuses=OPEN, tags=tags, limit=MOST_READ - read)
        for record in (await session.store.list_tasks(query))[0]:
            read += 1
            with suppress(CorruptRecord, PayloadError):
                child = decode_task(record)
                if any(_may_take(child, index, name) for index in child.spec.plan.controls):
                    found.append(child.task_id)
                if child.spec.plan.nested:
                    parents.append(child)
    return found[:MOST_NAMES]


def _instead(below: list[str]) -> str:
    names = ", ".join(map(repr, below))
    return f"send it to {'its child task' if len(below) == 1 else 'one of its child tasks'} {names}"


def _text(value: Any, what: str, *, optional: bool = False) -> Any:
    """Return a name or id.

    Raises:
        SignalRefused: it is not a text of 1 to 200 printable characters.
    """
    if optional and value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        raise SignalRefused(f"{what} must have 1 to {MAX_ID_CHARS} printable characters")
    return value
