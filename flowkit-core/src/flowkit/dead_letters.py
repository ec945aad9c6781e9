"""Dead letters of nodes: stored before the change that fails the node is committed, so that a crash loses none."""

from dataclasses import dataclass, field
from hashlib import sha256

from pydantic_core import to_json

from flowkit.engine import KeepLetter, Transition
from flowkit.protocols import DeadLetter
from flowkit.task import Task

MAX_LETTER_BYTES = 256 * 1024
"""A larger payload or input is left out of its letter."""


def node_letter_id(task_id: str, node_id: str, attempt: int) -> str:
    """The id of the dead letter of a node's failed attempt: an event that is applied again makes no second letter."""
    return f"node-{sha256(to_json([task_id, node_id, attempt])).hexdigest()[:40]}"


def node_letter(task: Task, index: int, *, at: float) -> DeadLetter:
    """The dead letter of a node that failed, with its input."""
    node, record = task.spec.plan.nodes[index], task.records[index]
    data = to_json(node.io.model_dump(exclude_unset=True))
    return DeadLetter(
        letter_id=node_letter_id(task.task_id, node.node_id, record.attempt),
        at=at,
        kind="node",
        reason_code=record.reason_code or "",
        error=record.error or "",
        task_id=task.task_id,
        node_id=node.node_id,
        data=data if len(data) <= MAX_LETTER_BYTES else b"",
        size=len(data),
        generation=record.generation,
        attempt=record.attempt,
    )


@dataclass(slots=True)
class LetterChanges:
    """The dead letters to store and to drop with a round of commits."""

    parked: list[DeadLetter] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def take(self, step: Transition) -> None:
        """Add what an applied change does to the dead letters of its task."""
        task = step.task
        for letter in step.letters:
            if isinstance(letter, KeepLetter):
                self.parked.append(node_letter(task, letter.index, at=step.now))
            else:
                self.dropped.append(node_letter_id(task.task_id, task.spec.plan.ids[letter.index], letter.attempt))
