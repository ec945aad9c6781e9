"""Explanations why a node is not running."""

from collections.abc import Mapping, Sequence
from itertools import chain
from shlex import quote

from flowkit._engine import (
    MOST_WAITING_FOR_KEYS,
    broken_parent,
    carrier_of,
    child_node,
    must_not_ask,
    open_sources,
    path_to_failure,
    sources_progress,
    stop_cause,
    stray_after,
    undone_node,
)
from flowkit._engine.stop_reasons import KEY_BUSY
from flowkit._records.task_records import last_change_at
from flowkit._tasks.wait_explanations import (
    asked_place,
    explain_pause,
    explain_until,
    explain_wait,
    run_now_hint,
)
from flowkit.graph import FlowRef
from flowkit.graph._control_types import most_rounds
from flowkit.graph._expanded_plan import (
    is_map,
    is_sharded,
    is_undo,
    map_of,
    node_of,
    runs_child_task,
)
from flowkit.graph._models import ALL
from flowkit.protocols import TaskRecord
from flowkit.task import ENDED, DeadLetter, Mark, NodeRecord, Task, TaskStatus

MOST_NAMES = 3
MOST_OF_A_CAUSE = 1000
CLOCKS_DIFFER_SEC = 1.0
"""Tolerance for the times of changes and dead letters of different processes."""


def may_be_quarantined(task: Task, index: int) -> bool:
    """Return whether a node does not start if its task was quarantined."""
    return task.marks[index] not in {*ENDED, Mark.RUNNING}


def keeps_waiting(record: TaskRecord, letter: DeadLetter) -> bool:
    """Return whether a task was quarantined with this letter and has not changed since. A letter
    that cannot be decoded has no time.
    """
    return letter.fault is not None or last_change_at(record) <= letter.at + CLOCKS_DIFFER_SEC


def explain_quarantine(letter: DeadLetter, *, now: float) -> str:
    """Return why a task was quarantined, and the fix."""
    lines = (letter.fault or letter.error).split("\n")
    why = next((line.strip() for line in lines if line.strip()), letter.reason_code)
    letter_id = quote(letter.letter_id)
    ago = "" if letter.fault is not None else f" {max(now - letter.at, 0):.1f} s ago"
    return (
        f"The task was quarantined{ago}, so its nodes do not start."
        f" Fix the cause, then run `flowkit dlq retry {letter_id}` (details: `flowkit dlq show"
        f" {letter_id}`). Cause: {why[:MOST_OF_A_CAUSE]}"
    )


def explain_node(
    task: Task,
    index: int,
    records: Mapping[int, NodeRecord],
    *,
    now: float,
    unserved: str | None = None,
    slots: str = "",
    below: str | None = None,
    place_wait: str | None = None,
) -> str:
    """Return why a node is not running, and what it waits for.

    ``records`` has its record, and that of its map if it is a child. ``unserved`` says why no live
    worker serves its role; it is None if one does, and ``slots`` says how many of its slots are in
    use. ``below`` says what its child task waits for, as
    the end of the sentence; it is None if that is not known. ``place_wait`` describes the
    concurrency key, the rate or the result for which it waits.
    """
    plan, record = task.spec.plan, records.get(index)
    name = f"{plan.ids[index]!r}"
    mark = task.marks[index]
    if record is not None and record.sharded_since is not None and mark not in ENDED:
        name += ", whose shards have ended,"
    because = (
        f" ({record.reason_code}: {record.error})"
        if record and record.error
        else f" ({record.reason_code})"
        if record and record.reason_code
        else ""
    )
    match mark:
        case Mark.RUNNING | Mark.CANCELLING if record is not None and runs_child_task(plan, index):
            return _runs_child(task, index, record, records, below)
        case Mark.ISSUED | Mark.RUNNING if record is not None and record.overdue:
            return f"{name} is being stopped{because}. {_holds_place(record)}."
        case Mark.RUNNING if record is not None and record.worker_id is not None:
            where = f"{name} is running on {record.worker_id!r}"
            return f"{where}{_held_up(record) or _follows(task, index)}."
        case Mark.RUNNING:
            return f"{name} is running in a coordinator."
        case Mark.MAPPING:
            return f"{name} is running: {_children(task, index)}."
        case Mark.FINISHED:
            return f"{name} has finished{_with(task, record)}{_resolution(record)}."
        case Mark.FAILED:
            return f"{name} failed{_attempts(record)}{because}.{_goes_on(task, index)}"
        case Mark.CANCELLED:
            return f"{name} was cancelled: {_stop(task, index, records)}."
        case Mark.SKIPPED:
            return f"{name} was skipped: {_skipped(task, index, record)}."
        case Mark.HELD:
            return f"{name} waits for {_phases_before(task, index)}."
        case Mark.UPSTREAM_FAILED:
            return f"{name} was skipped because {_failure_above(task, index)}."
        case Mark.CANCELLING if record is not None and task.spec.holds_place(index, record):
            return (
                f"{name} is being cancelled: {_stop(task, index, records)}. {_holds_place(record)}."
            )
        case Mark.CANCELLING if (stray := stray_after(task, index)) is not None:
            return (
                f"{name} is being cancelled: {_stop(task, index, records)}. It ends after"
                f" {plan.ids[stray]!r}, which its worker has begun meanwhile."
            )
        case Mark.CANCELLING:
            return (
                f"{name} is being cancelled: {_stop(task, index, records)}. It has a grace period"
                " to end by itself."
            )
        case Mark.CLOSING:
            state = task.maps[index]
            kind = "shards" if is_sharded(plan, index) else "children"
            return (
                f"{name} is being cancelled: {_stop(task, index, records)}. {state.open} of its"
                f" {state.size} {kind} have not ended."
            )
        case Mark.DEFERRED if record is not None and record.queued_for is not None:
            return f"{name} waits for {place_wait or asked_place(record)}."
        case Mark.ASKING if record is not None:
            return f"{name} asks for {place_wait or asked_place(record)}."
        case Mark.DEFERRED if record is not None and record.next_retry_at is None:
            if index in plan.nested:
                before = f"{name} waits {explain_until(record, now)} before"
                return f"{before} {_round(task, index, record)}. {run_now_hint(task, index)}"
            return f"{name} {explain_wait(task, index, record, now)}"
        case Mark.DEFERRED:
            left = max((record.next_retry_at or now) - now, 0) if record else 0
            return (
                f"{name} failed{because} and is tried again in {left:.1f} s, as attempt"
                f" {record.attempt + 1 if record else 1}. {run_now_hint(task, index)}"
            )
    carrier = carrier_of(task, index) if mark == Mark.WAITING else None
    if carrier is not None and record is not None and record.resolution is not None:
        return (
            f"{name} is queued: {record.resolution}. It ends when it is known whether the worker of"
            f" {plan.ids[carrier]!r} has begun it."
        )
    if task.paused:
        return f"{name} {explain_pause(task)}"
    if task.key is not None and (task.key.is_asking or task.key.is_open):
        return f"{name} waits until its task has {place_wait or f'key {task.key.key!r}'}."
    match mark:
        case Mark.WAITING if is_undo(plan, index):
            return _waits_for_undos(name)
        case Mark.WAITING if index >= plan.size:
            return f"{name} waits because {_limit_of_map(task, index)}."
        case Mark.WAITING if task.outcome is not None and index < plan.main:
            return f"{name} is cancelled after {_parents(task, index)}, unless its worker began it."
        case Mark.WAITING:
            return f"{name} waits for {_parents(task, index)}."
        case Mark.CHECKING:
            return f"{name} waits for its condition to be evaluated."
        case Mark.READY:
            if is_undo(plan, index):
                return _waits_for_undos(name)
            limit = plan.max_parallel
            if limit is not None and task.in_flight >= limit:
                return f"{name} waits because max_parallel nodes ({limit}) are in flight."
            if limit == task.in_flight + 1 and not sources_progress(task, index):
                return (
                    f"{name} reads from nodes that are not in flight, and leaves them the last"
                    f" place: max_parallel is {limit}."
                )
            if must_not_ask(task, index):
                return f"{name} waits because {_WAIT_FOR_KEYS}."
            return (
                f"{name} may start, and waits because {task.in_flight} nodes of the task are in"
                " flight already."
            )
    if unserved is not None:
        return f"{name} was issued {_ago(record, now)}, and waits for a worker: {unserved}."
    load = f" Slots in use at the last heartbeat: {slots}." if slots else ""
    return (
        f"{name} was issued {_ago(record, now)} and waits until a worker that serves the role"
        f" {plan.nodes[index].type!r} has a free slot.{load}"
    )


def _held_up(record: NodeRecord) -> str:
    """Return which reader a running node waits for."""
    if record.held_up_by is None:
        return ""
    reader, batches = record.held_up_by
    counted = "1 batch" if batches == 1 else f"{batches:,} batches"
    return f", and waits for {reader!r}, {counted} behind"


def _follows(task: Task, index: int) -> str:
    """Return which nodes a running node reads from that have not ended."""
    ids = [task.spec.plan.ids[source] for source in open_sources(task, index)]
    if not ids:
        return ""
    return f". When it waits for artifacts of {_some(ids)}, it needs no slot"


def _holds_place(record: NodeRecord) -> str:
    """Return how long a node that is being stopped keeps the place of its key or its rate, or
    for its cache.
    """
    kind = record.kind_in("held", "shared") or "key"
    claim = record.claim(kind)
    place = "the key of its task" if claim is None else f"its {kind} {claim.key!r}"
    if kind == "cache":
        place = "its cache key"
    where = "" if record.worker_id is None else f" on {record.worker_id!r}"
    return f"It holds {place} until its attempt{where} is known to have ended"


def _waits_for_undos(name: str) -> str:
    return (
        f"{name} waits until the undos of the nodes that ended later have ended: undos run one at a"
        " time."
    )


def _goes_on(task: Task, index: int) -> str:
    """Return a sentence about a task that goes on after the failure of a node."""
    plan = task.spec.plan
    if is_undo(plan, index):
        return (
            " The other undos run all the same. To run this one again, retry its dead letter when"
            f" the task has ended: see `flowkit dlq ls --task {quote(task.task_id)}`."
        )
    if plan.nodes[index].optional:
        return " It is optional, so the task goes on without its data."
    return ""


def _phases_before(task: Task, index: int) -> str:
    """Return what must end before the phase of a node begins."""
    plan = task.spec.plan
    if not is_undo(plan, index):
        return "the end of all other nodes: it is in finally"
    return "the end of the task: it runs if the task fails or is cancelled"


def _children(task: Task, index: int) -> str:
    """Return what a map does, or a node with shards."""
    state, source = task.maps.get(index), task.spec.plan.map_sources.get(index)
    if is_undo(task.spec.plan, index):
        return f"{0 if state is None else state.open} undos of children have not ended"
    if source is not None and (state is None or state.may_grow):
        parent = f"{task.spec.plan.ids[source]!r}"
        size, left = (0, 0) if state is None else (state.size, state.open)
        ended = f"{size - left} of its {size} children have ended" if size else ""
        more = (
            f"the last artifacts of {parent} are being read"
            if task.marks[source] in ENDED
            else f"{parent} may store more artifacts"
        )
        return f"{ended}, and {more}" if ended else more
    sharded = is_sharded(task.spec.plan, index)
    if state is None:
        return "its shards are about to begin" if sharded else "its items are being evaluated"
    size, kind = state.size, "shards" if sharded else "children"
    if not state.open:
        what = "metrics" if sharded else "results"
        return f"the {what} of its {size} {kind} are being collected"
    return f"{size - state.open} of its {size} {kind} have ended"


def _limit_of_map(task: Task, index: int) -> str:
    """Return why a child has not begun."""
    plan = task.spec.plan
    owner = map_of(plan, index)
    spec, state = plan.nodes[owner].map, task.maps.get(owner)
    limit = None if spec is None else spec.max_parallel
    if limit is not None and state is not None and state.in_flight >= limit:
        return f"max_parallel children of {plan.ids[owner]!r} ({limit}) are in flight"
    if plan.max_parallel is not None and task.in_flight >= plan.max_parallel:
        return f"max_parallel nodes ({plan.max_parallel}) are in flight"
    if must_not_ask(task, index):
        return _WAIT_FOR_KEYS
    return f"{task.in_flight} nodes of the task are in flight already"


def running_child(task: Task, index: int, records: Mapping[int, NodeRecord]) -> str | None:
    """Return the id of the child task that a node waits for, or None."""
    record = records.get(index)
    if (
        task.marks[index] != Mark.RUNNING
        or not runs_child_task(task.spec.plan, index)
        or record is None
        or record.child is None
        or not record.child.due
    ):
        return None
    return child_node(task, index, record).child_id()


def awaits_decision(task: Task, index: int, record: NodeRecord) -> bool:
    """Return whether a node waits for a decision."""
    wait = record.wait
    return task.marks[index] == Mark.DEFERRED and wait is not None and wait.kind == "approval"


def cause_in(task: Task) -> int | None:
    """Return the node that a task waits for: one that waits for a decision or a signal, else the
    first one that has begun, else one that may begin. None if there is none.
    """
    waits = ((index, record.wait) for index, record in sorted(task.records.items()))
    asking = (
        index
        for index, wait in waits
        if task.marks[index] == Mark.DEFERRED and wait is not None and wait.kind != "timer"
    )
    others = (place for mark in _CAUSES if (place := task.marks.find(mark)) >= 0)
    return next(chain(asking, others), None)


_CAUSES = (
    Mark.DEFERRED,
    Mark.ISSUED,
    Mark.RUNNING,
    Mark.CANCELLING,
    Mark.ASKING,
    Mark.CHECKING,
    Mark.READY,
    Mark.MAPPING,
    Mark.CLOSING,
)
"""Marks of nodes that a task waits for, the most telling ones first."""


def _runs_child(
    task: Task,
    index: int,
    record: NodeRecord,
    records: Mapping[int, NodeRecord],
    below: str | None,
) -> str:
    """Return what a node that runs a child task waits for."""
    name, link = f"{task.spec.plan.ids[index]!r}", record.child
    child = child_node(task, index, record).child_id()
    if task.marks[index] == Mark.CANCELLING:
        ends = (
            "It ends soon"
            if link is not None and not link.due
            else f"It ends when its task {child!r} has ended"
        )
        return f"{name} is being cancelled: {_stop(task, index, records)}. {ends}."
    if link is not None and not link.due and task.paused:
        return f"{name} {explain_pause(task)}"
    if link is not None and not link.due:
        return f"{name} has its condition checked before {_round(task, index, record)}."
    flow = _flow_of(task, index)
    if link is None or link.iteration is None:
        runs = f"{name} runs {flow}as task {child!r}"
    elif flow:
        runs = f"{name} waits for {_round(task, index, record)}, which runs {flow}as task {child!r}"
    else:
        runs = f"{name} waits for {_round(task, index, record)}, task {child!r}"
    return f"{runs}: see `flowkit show {quote(child)}`." if below is None else runs + below


def _flow_of(task: Task, index: int) -> str:
    """Return the registered flow that the child task of a node runs, followed by a space, or an
    empty text if it runs none.
    """
    plan = task.spec.plan
    nested = plan.nested[node_of(plan, index)]
    if not isinstance(nested, FlowRef):
        return ""
    return f"{task.spec.fixed(nested)} "


def _round(task: Task, index: int, record: NodeRecord) -> str:
    """Return the round of a loop, for humans: they count from 1."""
    number = 1 + (record.child.iteration or 0 if record.child is not None else 0)
    most = most_rounds(task.spec.plan.nodes[index])
    return f"round {number}" if most is None else f"round {number} of at most {most}"


_WAIT_FOR_KEYS = (
    f"{MOST_WAITING_FOR_KEYS:,} nodes of the task wait for keys, rates or cached results already"
)
_SKIPPED = {
    "condition_false": "its condition is false",
    "signal_timeout": "no signal came in time",
    "approval_timeout": "no decision came in time",
    "upstream_skipped": "no branch that leads to it was taken",
}


def _skipped(task: Task, index: int, record: NodeRecord | None) -> str:
    """Return why a node was skipped without a failure."""
    if record is not None and record.resolution is not None:
        return str(record.resolution)
    code = record.reason_code if record else None
    plan, marks = task.spec.plan, task.marks
    has_data = any(marks[edge.node] == Mark.FINISHED for edge in plan.parents[index])
    parents = (
        "too few of its parents ended with data" if has_data else "its parents ended without data"
    )
    undone = undone_node(task, index)
    if undone is not None:
        if task.outcome is TaskStatus.FINISHED:
            return "the task did not fail, so nothing is undone"
        if is_map(plan, undone):
            return f"no child of {plan.ids[undone]!r} finished, so there is nothing to undo"
        return f"{plan.ids[undone]!r} did not finish, so there is nothing to undo"
    missing = (
        f"{parents}, and {plan.ids[edge.node]!r} is optional and {_ENDED_AS[marks[edge.node]]}"
        for edge in plan.parents[index]
        if plan.nodes[edge.node].optional and marks[edge.node] in _ENDED_AS
    )
    skipped = (
        f"{parents}, and {plan.ids[edge.node]!r} was skipped"
        for edge in plan.parents[index]
        if marks[edge.node] == Mark.SKIPPED and not has_data
    )
    if code == KEY_BUSY and record is not None and (claim := record.claim("key")) is not None:
        return f"others held its concurrency key {claim.key!r}, and it does not wait for it"
    reason = _SKIPPED.get(code or "", "nothing leads to it")
    return next(chain(missing, skipped), reason) if code == "upstream_skipped" else reason


_ENDED_AS = {
    Mark.FAILED: "failed",
    Mark.CANCELLED: "was cancelled",
    Mark.UPSTREAM_FAILED: "was skipped because of a failure",
}


def _with(task: Task, record: NodeRecord | None) -> str:
    if record is None:
        return ""
    if record.cached:
        return " with a stored result"
    if not record.skipped:
        return ""
    return (
        f" without {record.skipped} failed {'batch' if record.skipped == 1 else 'batches'}: see"
        f" `flowkit dlq ls --task {quote(task.task_id)}`"
    )


def _resolution(record: NodeRecord | None) -> str:
    return "" if record is None or record.resolution is None else f": {record.resolution}"


def _stop(task: Task, index: int, records: Mapping[int, NodeRecord]) -> str:
    """Return why a node was stopped; a child of a map may be stopped for the reason of its map."""
    code, cause = stop_cause(task, index, records)
    plan, owner = task.spec.plan, node_of(task.spec.plan, index)
    match code:
        case "cancelled":
            return f"the task was cancelled, {cause!r}" if cause else "the task was cancelled"
        case "task_failed" if cause is None:
            return "the task failed"
        case "not_needed" if cause is None:
            return "a node below it started with the data of others"
        case "upstream_failed":
            parent = broken_parent(task, owner)
            return (
                f"{plan.ids[parent]!r}, which {plan.ids[owner]!r} depends on,"
                f" {_ENDED_AS[task.marks[parent]]}"
            )
        case "upstream_skipped":
            return f"the parents of {plan.ids[owner]!r} ended without data"
    error = (records.get(owner) or task.record(owner)).error
    if cause is None and owner != index and error is not None:
        return f"{plan.ids[owner]!r} fails with {code}: {error}"
    return cause or code


def _failure_above(task: Task, index: int) -> str:
    """Return which failed or cancelled node above is the cause that a node was skipped."""
    plan, marks = task.spec.plan, task.marks
    path = path_to_failure(task, index)
    where = "which it depends on" if len(path) == 2 else "which stands above it"
    return f"{plan.ids[path[-1]]!r}, {where}, {_ENDED_AS[marks[path[-1]]]}"


def _attempts(record: NodeRecord | None) -> str:
    count = record.attempt - record.first_attempt + 1 if record else 0
    if count < 1:
        return " before its first attempt"
    return f" after {count} attempt{'' if count == 1 else 's'}"


def _ago(record: NodeRecord | None, now: float) -> str:
    return f"{max(now - record.issued_at, 0):.1f} s ago" if record else "just now"


def _parents(task: Task, index: int) -> str:
    plan = task.spec.plan
    pending = [
        plan.ids[edge.node] for edge in plan.parents[index] if task.marks[edge.node] not in ENDED
    ]
    names = _some(pending)
    need = plan.need[index]
    if need < 0 or len(plan.parents[index]) == need:
        return names if need >= ALL else f"the end of {names}"
    return f"{need - task.taken[index]} more of its parents ({names})"


def _some(ids: Sequence[str]) -> str:
    """Return the first of some node ids, and how many there are besides."""
    more = f" and {len(ids) - MOST_NAMES} more" if len(ids) > MOST_NAMES else ""
    return f"{', '.join(map(repr, ids[:MOST_NAMES]))}{more}"
