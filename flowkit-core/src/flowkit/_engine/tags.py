"""Tags of tasks: what lists of tasks are filtered by, beside the fields of the submission.

The tags are a function of the state. They follow from numbers of nodes, which each change keeps up
to date, so that no commit looks at all nodes.
"""

from collections.abc import Collection, Mapping
from typing import get_args

from flowkit._engine.stop_reasons import KEY_BUSY
from flowkit.task import CLAIM_KINDS, ClaimKind, Mark, NodeRecord, Task, WaitingFor, WaitKind

RETRYING = "retrying"
ROOT = "root"
"""Tag of the tasks that no node of another task runs."""
MOST_CODES = 16
"""Reason codes in the tags of a task: those with which its first nodes failed, then those of nodes
that are retried.
"""


def parent_tag(task_id: str) -> str:
    """Return the tag of the child tasks of a task."""
    return f"parent:{task_id}"


def waiting_tag(what: WaitingFor) -> str:
    """Return the tag of tasks with a node that waits."""
    return f"waiting:{what}"


def reason_tag(code: str) -> str:
    """Return the tag of tasks with a node that failed with this reason code, or is retried."""
    return f"reason:{code}"


def reasons_in(tags: Collection[str]) -> list[str]:
    """Return the reason codes in the tags of a task."""
    return [tag.removeprefix(_REASON) for tag in tags if tag.startswith(_REASON)]


def tags_of(task: Task) -> frozenset[str]:
    """Return the tags of a task."""
    counts, codes, parent = task.tag_counts, task.failed_codes, task.spec.parent
    if not codes and parent is None and task.key is None:
        if not counts:
            return _ONLY_ROOT
        if len(counts) == 1 and "waiting:worker" in counts:
            return _ROOT_FOR_WORKER
    tags = {tag for tag in counts if not tag.startswith(_REASON)}
    tags.add(ROOT if parent is None else parent_tag(parent.task_id))
    tags.update(map(reason_tag, codes))
    if task.key is not None:
        tags.update(_OF_CLAIM.get(task.key.state, ()))
    if RETRYING in tags:
        retried = sorted(tag for tag in counts if tag.startswith(_REASON) and tag not in tags)
        tags.update(retried[: MOST_CODES - len(codes)])
    return frozenset(tags)


def node_tags(mark: int, record: NodeRecord | None) -> tuple[str, ...]:
    """Return the tags of the task of a node that has not ended. A node whose last attempt failed
    keeps the reason code until its end.
    """
    if record is None or mark not in _TAGGED:
        return ()
    waits: tuple[str, ...] = ()
    if mark == Mark.ISSUED:
        waits = _FOR_WORKER
    elif mark == Mark.DEFERRED and (kind := record.queued_for) is not None:
        waits = _IN_QUEUE[kind]
    elif mark == Mark.DEFERRED and record.wait is not None:
        waits = _WAITS[record.wait.kind]
    if record.reason_code is None:
        return waits
    return (*waits, RETRYING, reason_tag(record.reason_code))


def derive_tags(task: Task) -> None:
    """Count the tags of the nodes that have not ended."""
    counts = task.tag_counts = {}
    for index, record in task.records.items():
        for tag in node_tags(task.marks[index], record):
            counts[tag] = counts.get(tag, 0) + 1


def count_tags(
    task: Task,
    marks: Mapping[int, int],
    records: Mapping[int, NodeRecord],
    dropped_maps: Collection[int],
) -> None:
    """Count the tags of nodes that are about to have these marks and records. The children of
    dropped maps do not count any more.
    """
    old_marks, old_records = task.marks, task.records
    for index, mark in marks.items():
        old_mark = old_marks[index]
        if mark in _COUNTED or old_mark in _COUNTED:
            old = old_records.get(index)
            _count(task, old_mark, old, mark, records.get(index, old))
    for index, record in records.items():
        if index not in marks and (old := old_records.get(index)) is not None:
            same = record.reason_code == old.reason_code and record.wait is old.wait
            if not same:
                _count(task, old_marks[index], old, old_marks[index], record)
    for index in dropped_maps:
        for block in task.maps[index].blocks:
            failed = task.marks.find(Mark.FAILED, block.first, block.end)
            while failed >= 0:
                _count_code(task.failed_codes, task.records.get(failed), -1)
                failed = task.marks.find(Mark.FAILED, failed + 1, block.end)


def _count(
    task: Task, old_mark: int, old: NodeRecord | None, mark: int, new: NodeRecord | None
) -> None:
    before, after = node_tags(old_mark, old), node_tags(mark, new)
    if before is not after:
        counts = task.tag_counts
        for tag in after:
            counts[tag] = counts.get(tag, 0) + 1
        for tag in before:
            counts[tag] -= 1
            if not counts[tag]:
                del counts[tag]
    if mark == Mark.FAILED or old_mark == Mark.FAILED:
        if old_mark == Mark.FAILED:
            _count_code(task.failed_codes, old, -1)
        if mark == Mark.FAILED:
            _count_code(task.failed_codes, new, 1)


def _count_code(codes: dict[str, int], record: NodeRecord | None, by: int) -> None:
    """Count a failed node by its reason code, if that is one of the counted ones."""
    code = None if record is None else record.reason_code
    if code is None or (code not in codes and (by < 0 or len(codes) >= MOST_CODES)):
        return
    codes[code] = codes.get(code, 0) + by
    if codes[code] <= 0:
        del codes[code]


_ONLY_ROOT = frozenset({ROOT})
_ROOT_FOR_WORKER = frozenset({ROOT, waiting_tag("worker")})
_REASON = reason_tag("")
_IN_QUEUE: Mapping[ClaimKind, tuple[str, ...]] = {
    kind: (waiting_tag(kind),) for kind in CLAIM_KINDS
}
_OF_CLAIM = {"queued": _IN_QUEUE["key"], "busy": (reason_tag(KEY_BUSY),)}
"""Tags of tasks by the states of their claims to the concurrency keys of their graphs."""
_FOR_WORKER = (waiting_tag("worker"),)
_WAITS: Mapping[WaitKind, tuple[str, ...]] = {
    kind: (waiting_tag(kind),) for kind in get_args(WaitKind)
}
_TAGGED = frozenset({Mark.READY, Mark.ISSUED, Mark.RUNNING, Mark.DEFERRED})
_COUNTED = _TAGGED | {Mark.FAILED}
