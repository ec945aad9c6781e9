"""Progress of a task and its nodes, computed from events."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowkit.cli._output import CACHED, skipped_text, waiting_text
from flowkit.graph._expanded_plan import split_child_id
from flowkit.protocols import ArtifactStore
from flowkit.task import NodeStatus, TaskEvent

DISPLAY_ORDER = (
    "running cancelling failed deferred paused finished cancelled queued skipped".split()
)
"""Statuses in order of interest; nodes of the first ones are shown if not all fit."""
PAGE = 500


@dataclass(slots=True)
class NodeProgress:
    """Progress of one node."""

    node_id: str
    status: str = "queued"
    attempt: int = 0
    worker_id: str | None = None
    progress: Any = None
    batches: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    note: str = ""
    begun: Counter[str] = field(default_factory=Counter)
    """Number of the children of a map in each status, of those that have begun."""
    size: int = 0
    """Number of all children of a map."""
    changed: int = 0
    """Sequence number of the event that last changed the status."""

    def apply(self, event: TaskEvent) -> None:
        """Update the progress with an event of this node."""
        data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
        if event.kind == "progress":
            self.progress = event.data
        elif event.kind == "batch":  # it may be stored in the record of the node
            self.batches = max(self.batches, 1)
        if event.kind != "status" or event.status is None:
            return
        self.status, self.changed, self.note = event.status, event.seq, ""
        if event.status == NodeStatus.RUNNING:
            attempt = data.get("attempt", self.attempt + 1)
            if attempt != self.attempt:  # a loop goes on in the same attempt after a pause
                self.attempt, self.started_at, self.ended_at = attempt, event.at, None
            self.worker_id = data.get("worker_id")
        elif waits(event):
            if self.attempt != data.get("attempt", self.attempt):
                self.started_at, self.ended_at = event.at, None
            if "waiting" in data:
                until = moment(data.get("until"))
                self.note = waiting_text(data["waiting"], until, data.get("key"))
        elif "released_by" in data:
            self.attempt -= 1
            self.note = f"handed back by {data['released_by']}"
        elif data.get("retry"):
            self.started_at = self.ended_at = None
        elif event.status == NodeStatus.QUEUED and "attempt" in data:
            self.note = f"attempt {data['attempt']}"
        elif "reason_code" in data:
            self.note = (
                f"{data['reason_code']}: {data['error']}"
                if data.get("error")
                else str(data["reason_code"])
            )
        elif data.get("skipped_batches"):
            self.note = skipped_text(data["skipped_batches"])
        elif data.get("cached"):
            self.note = CACHED
        if event.status == NodeStatus.DEFERRED:
            self.attempt = data.get("attempt", self.attempt)
        if self.ended:
            self.ended_at = event.at

    @property
    def ended(self) -> bool:
        return NodeStatus(self.status).terminal

    @property
    def children(self) -> Counter[str]:
        """Number of the children of a map in each status. Those that have not begun have no events
        of their own, and are cancelled when the map ends.
        """
        unbegun = "cancelled" if self.ended else "queued"
        return self.begun + Counter({unbegun: self.size - self.begun.total()})

    def seconds(self, now: datetime) -> float | None:
        """Return the run time of the current or the last attempt."""
        if self.started_at is None or (self.ended_at is None and self.status == NodeStatus.QUEUED):
            return None
        return ((self.ended_at or now) - self.started_at).total_seconds()


def waits(event: TaskEvent) -> bool:
    """Return whether a control node has begun or knows by now what it waits for, or a node waits
    for a place or for the result of another node.
    """
    return (
        event.status == NodeStatus.DEFERRED
        and isinstance(event.data, dict)
        and "reason_code" not in event.data
    )


def _task_note(data: Any) -> str:
    """Return what a task waits for, the reason why it is being stopped, or its error."""
    if isinstance(data, dict) and "waiting" in data:
        return waiting_text(data["waiting"], None, data.get("key"))
    return str(data or "")


def moment(text: str | None) -> datetime | None:
    """Return the time that the data of an event contains, if it has one."""
    return None if text is None else datetime.fromisoformat(text)


@dataclass(slots=True)
class TaskProgress:
    """Progress of all nodes of a task, in graph order."""

    nodes: dict[str, NodeProgress]
    """The nodes of the graph."""
    children: dict[str, NodeProgress] = field(default_factory=dict)
    """The children of maps that have begun."""
    status: str = "queued"
    note: str = ""
    """Reason why the task is being stopped, or its error."""
    began_at: datetime | None = None
    """Time of the first event; times in the display are relative to it."""

    @classmethod
    def of(cls, node_ids: Iterable[str]) -> "TaskProgress":
        """Return the progress of the nodes of a view, which may have children of maps."""
        ids = list(node_ids)
        known = set(ids)
        owners = [(node_id, split_child_id(node_id)[0]) for node_id in ids]
        return cls(
            {
                node_id: NodeProgress(node_id)
                for node_id, owner in owners
                if owner == node_id or owner not in known
            }
        )

    def apply(self, event: TaskEvent) -> None:
        """Update the progress with an event."""
        self.began_at = self.began_at or event.at
        if event.node_id is not None:
            node = self.node(event.node_id)
            before = node.status
            node.apply(event)
            if event.kind == "children":
                self._add_children(node, event.data)
            elif event.node_id not in self.nodes and node.status != before:
                self._count_child(event.node_id, before, node.status)
        elif event.kind == "status" and event.status is not None:
            self.status, self.note = event.status, _task_note(event.data)

    def node(self, node_id: str) -> NodeProgress:
        """Return the progress of a node of the graph, or of a child of a map."""
        found = self.nodes.get(node_id) or self.children.get(node_id)
        if found is None:
            found = self.children[node_id] = NodeProgress(node_id, status="")
        return found

    def _add_children(self, owner: NodeProgress, data: Any) -> None:
        """Add children of a map. If they are all that it has, they replace those of an earlier
        run.
        """
        if data["added"] == data["number"]:
            owner.begun.clear()
            for node_id in list(self.children):
                if split_child_id(node_id)[0] == owner.node_id:
                    del self.children[node_id]
        owner.size = data["number"]

    def _count_child(self, node_id: str, before: str, status: str) -> None:
        """Count the children of a map in each status."""
        owner = self.nodes.get(split_child_id(node_id)[0])
        if owner is not None:
            if before:
                owner.begun[before] -= 1
            owner.begun[status] += 1

    def counts(self) -> Counter[str]:
        """Count the nodes in each status."""
        return Counter(node.status for node in self.nodes.values())

    def most_interesting(self, limit: int) -> Sequence[NodeProgress]:
        """Return up to ``limit`` nodes, in graph order.

        If not all fit, running and failed nodes are preferred, then those that ended last.
        """
        if len(self.nodes) <= limit:
            return list(self.nodes.values())
        chosen = sorted(
            self.nodes.values(), key=lambda node: (DISPLAY_ORDER.index(node.status), -node.changed)
        )[:limit]
        names = {node.node_id for node in chosen}
        return [node for node in self.nodes.values() if node.node_id in names]


@dataclass(slots=True)
class BatchCounter:
    """Counter of the batches that each node has stored. It resumes from its last position."""

    artifacts: ArtifactStore
    task_id: str
    _cursor: tuple[float, str] | None = None
    _generation: dict[str, int] = field(default_factory=dict)

    async def update(self, progress: TaskProgress) -> None:
        """Update ``batches`` of the nodes."""
        while page := await self.artifacts.scan(self.task_id, after=self._cursor, limit=PAGE):
            for cursor, record in page:
                self._cursor = cursor
                node = progress.nodes.get(record.stream.node_id)
                if node is None or not record.partial:
                    continue
                generation = record.stream.generation
                if generation != self._generation.setdefault(node.node_id, generation):
                    self._generation[node.node_id], node.batches = generation, 0
                # Positions in a stream have no gaps, so the last one is the count, even if the scan
                # skipped some.
                node.batches = max(node.batches, record.position)
