"""The promises about the topic of changes, written without the engine."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from flowkit.changes import TaskChange
from flowkit.protocols import Commit, Message, TaskRecord
from flowkit_testing.simulation._invariants import InvariantBroken


class ChangeLedger:
    """The changes of tasks that have arrived in the topic."""

    def __init__(
        self, topic: str, read: Callable[[Collection[str]], Mapping[str, TaskRecord]]
    ) -> None:
        self._topic = topic
        self._read = read
        self._arrived: dict[str, int] = {}
        """The last change of each task."""

    def arrived(self, messages: Sequence[Message]) -> None:
        """Check that a change is stored before it is published, and that the first copies of the
        changes of a task come in order.
        """
        for message in messages:
            if message.topic != self._topic:
                continue
            change = TaskChange.model_validate_json(message.value)
            last = self._arrived.get(change.task_id, 0)
            if change.seq > last + 1:
                raise InvariantBroken(
                    f"change {change.seq} of task {change.task_id!r} is published after {last}"
                )
            if change.seq > _state(self._read([change.task_id])[change.task_id])["seq"]:
                raise InvariantBroken(
                    f"change {change.seq} of task {change.task_id!r} is published, and not stored"
                )
            self._arrived[change.task_id] = max(change.seq, last)

    def committed(self, before: TaskRecord, commit: Commit, after: TaskRecord, who: str) -> None:
        """Check that changes that are stored as published have arrived."""
        publication = _state(self._read([commit.task_id])[commit.task_id]).get("publication")
        arrived = self._arrived.get(commit.task_id, 0)
        if publication is not None and publication["seq"] > arrived:
            raise InvariantBroken(
                f"{who} stored change {publication['seq']} of task {commit.task_id!r} as"
                f" published, and the last is {arrived}"
            )

    def unpublished(self, task_ids: Collection[str]) -> list[str]:
        """Return those of these ended tasks whose last change has not arrived, or that are to be
        woken because it is not recorded as published.
        """
        return [
            task_id
            for task_id, record in self._read(task_ids).items()
            if record.header.wake_at is not None
            or self._arrived.get(task_id, 0) < _state(record)["seq"]
        ]


def _state(record: TaskRecord) -> dict[str, Any]:
    state: dict[str, Any] = from_json(record.parts["state"])
    return state
