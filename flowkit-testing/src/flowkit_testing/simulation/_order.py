"""The order of effects: store a change, then publish it, then acknowledge its cause."""

from collections.abc import Sequence

from flowkit._engine import advance
from flowkit._engine.reports import has_exceeded_limit
from flowkit._records.task_records import decode_task
from flowkit.errors import DecodeError
from flowkit.messages import (
    ADDRESSEE,
    NextStart,
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RunNode,
    decode,
)
from flowkit.protocols import Commit, Delivery, Message, TaskRecord
from flowkit.task import ATTEMPTED, ENDED, Mark, NodeRecord, Task
from flowkit_testing.simulation._invariants import InvariantBroken
from flowkit_testing.simulation._store import StoreServer, at_once
from flowkit_testing.simulation._world import World

_ENDS = NodeSucceeded | NodeFailed | NodeStopped | NodeReleased
_ONCE = NodeStarted | _ENDS
"""Reports that have no further effect once they were applied."""


class Order:
    """Compares the messages on the bus with the stored tasks at that moment."""

    def __init__(self, server: StoreServer, world: World) -> None:
        self._server = server
        self._world = world
        self._reported: set[tuple[str, str]] = set()
        """Task and token of every run with a published report."""
        self._early: set[tuple[str, str]] = set()
        """Task and token of every end that arrived before its start within a segment was stored. If
        the report of that start was lost, the end does not count yet.
        """
        self._commanded: set[tuple[str, str]] = set()
        """Task and token of every command that arrived at the bus."""
        self._handed_over: set[tuple[str, str]] = set()
        """Task and token of every command that a worker has sent to another one."""
        server.on_commit.append(self.committed)

    def arrived(self, messages: Sequence[Message]) -> None:
        """Check that a command is sent only after the decision for it is stored."""
        for message in messages:
            what = _decoded(message)
            if isinstance(what, RunNode) and not self._was_issued(what):
                raise InvariantBroken(
                    f"attempt {what.attempt} of node {what.node_id!r} is sent, but not stored"
                    " as issued"
                )
            if isinstance(what, RunNode):
                self._commanded.add((what.task_id, what.token))
                if ADDRESSEE in message.headers:
                    self._handed_over.add((what.task_id, what.token))
            if isinstance(what, _ONCE):
                self._reported.add((what.task_id, what.token))
            if isinstance(what, _ENDS) and not self._may_count(what):
                self._early.add((what.task_id, what.token))

    def committed(self, before: TaskRecord, commit: Commit, after: TaskRecord, who: str) -> None:
        """Check that a command that is stored as sent has arrived at the bus."""
        task = decode_task(after, to_look_at=True)
        for index, record in task.records.items():
            sent = record.sent and task.marks[index] == Mark.ISSUED
            if (
                sent
                and (task.task_id, task.spec.current_token(index, record)) not in self._commanded
            ):
                raise InvariantBroken(
                    f"{who} stored the command of node {task.spec.plan.ids[index]!r} as sent, and"
                    " it was not"
                )

    def acknowledged(self, deliveries: Sequence[Delivery], who: str) -> None:
        """Check that a process acknowledges no message too early.

        The effect of a report must be stored, and the start of a command must be published, or the
        command must be sent to another worker.
        """
        for delivery in deliveries:
            message = _decoded(delivery.message)
            if isinstance(message, _ONCE) and not self._is_taken_in(message):
                raise InvariantBroken(
                    f"{who} acknowledged a report that is not stored: {message!r}"
                )
            if (
                isinstance(message, RunNode)
                and self._waits_for(message)
                and (message.task_id, message.token) not in self._reported
                and (message.task_id, message.token) not in self._handed_over
            ):
                raise InvariantBroken(
                    f"{who} acknowledged a command that is neither reported nor handed over:"
                    f" {message!r}"
                )

    def _task(self, task_id: str) -> Task | None:
        record = at_once(self._server.store.load([task_id])).get(task_id)
        return None if record is None else decode_task(record, to_look_at=True)

    def _was_issued(self, command: RunNode) -> bool:
        task = self._task(command.task_id)
        if task is None:
            return False
        record = task.records.get(command.index)
        if record is None or command.attempt < record.first_attempt:
            return True  # it is in the archive, or belongs to an earlier run of the node
        return task.issued_token_matches(command.index, record, command.attempt, command.token)

    def _may_count(self, report: _ENDS) -> bool:
        task = self._task(report.task_id)
        record = None if task is None else task.records.get(report.index)
        if task is None or record is None:
            return False
        return task.issued_token_matches(report.index, record, report.attempt, report.token)

    def _is_taken_in(self, report: _ONCE) -> bool:
        stored = at_once(self._server.store.load([report.task_id])).get(report.task_id)
        if stored is None:
            return True
        task = decode_task(stored)
        record = task.records.get(report.index)
        if (
            isinstance(report, NodeSucceeded)
            and record is not None
            and task.marks[report.index] not in ENDED
        ):
            if (
                report.attempt != record.attempt
                and task.marks[report.index] in ATTEMPTED
                and task.spec.holds_place(report.index, record)
            ):
                return True  # the attempt that holds a place decides
            if has_exceeded_limit(task.spec, report, task.marks[report.index], record):
                return True  # its end was stored as a failure
            if report.next is not None and _has_begun(task, report.next):
                return True  # a resolved node ends after the next one, which its worker has begun
            return not self._may_count(report) or self._came_early(report, record)
        is_ignored = advance(task, report, now=self._world.wall()).ignored
        return is_ignored or self._came_early(report, record)

    def _came_early(self, report: _ONCE, record: NodeRecord | None) -> bool:
        return (
            record is not None
            and record.segment is not None
            and record.segment.token == report.token
            and (report.task_id, report.token) in self._early
        )

    def _waits_for(self, command: RunNode) -> bool:
        task = self._task(command.task_id)
        record = None if task is None else task.records.get(command.index)
        if (
            task is None
            or record is None
            or task.marks[command.index] != Mark.ISSUED
            or record.attempt != command.attempt
            or record.overdue  # the coordinator withdraws the command
        ):
            return False
        return task.spec.current_token(command.index, record) == command.token


def _has_begun(task: Task, start: NextStart) -> bool:
    record = task.records.get(start.index)
    return record is not None and record.attempt >= start.attempt


def _decoded(message: Message) -> object:
    try:
        return decode(message.value)
    except DecodeError:
        return None
