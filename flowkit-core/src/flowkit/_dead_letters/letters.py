"""Dead letters of nodes and batches.

The dead letter of a node is stored before the commit in which the node fails, so that a crash loses
none. If that commit is refused, the letter is about a failure that did not happen:
:mod:`flowkit._dead_letters.letter_states` finds such letters.
"""

from typing import Any

from pydantic_core import to_json

from flowkit._engine import KeepLetter, Transition
from flowkit._json.values import NotJson, json_copy
from flowkit._records.letter_records import letter_id
from flowkit.messages import RunNode
from flowkit.task import DeadLetter, Task, TaskSpec

MAX_LETTER_BYTES = 256 * 1024
"""Limit for the payload or input in a letter. A larger one is left out."""
_UNLIMITED = 2**63


def node_letter_id(spec: TaskSpec, node_id: str, attempt: int) -> str:
    """Return the id of the dead letter of a node's failed attempt.

    The same failure always has the same id. A task that was purged and submitted again under its
    old id has letters with other ids.
    """
    origin = to_json([spec.task_id, spec.created_at, node_id, attempt])
    return letter_id("node", origin, spec.task_id)


def node_letter(task: Task, index: int, *, at: float) -> DeadLetter:
    """Return the dead letter of a node that failed, with its input."""
    node, record = task.spec.plan.nodes[index], task.records[index]
    node_id = task.spec.plan.ids[index]
    return DeadLetter(
        node_letter_id(task.spec, node_id, record.attempt),
        at,
        "node",
        record.reason_code or "",
        record.error or "",
        task_id=task.task_id,
        node_id=node_id,
        generation=record.generation,
        attempt=record.attempt,
        **_kept(to_json(node.io.model_dump(exclude_unset=True))),
    )


def batch_letter(
    command: RunNode, uid: str, payload: Any, *, reason_code: str, error: str, at: float
) -> DeadLetter:
    """Return the dead letter of a failed batch. The letter stays the same until a retry starts the
    node again.
    """
    origin = to_json(
        [command.task_id, command.node_id, command.generation, first_attempt(command), uid]
    )
    try:
        data = to_json(json_copy(payload, "the payload", max_bytes=_UNLIMITED))
    except NotJson:
        data = b""  # the payload is an object of the handler that is not JSON
    return DeadLetter(
        letter_id("batch", origin, command.task_id),
        at,
        "batch",
        reason_code,
        error,
        task_id=command.task_id,
        node_id=command.node_id,
        uid=uid,
        generation=command.generation,
        attempt=command.attempt,
        **_kept(data),
    )


def first_attempt(command: RunNode) -> int:
    """Return the number of the first attempt of this run of the node."""
    return command.attempt - command.earlier_attempts


def _kept(data: bytes) -> dict[str, Any]:
    """Return the fields of a letter with the payload or input, or without one that is too large."""
    return {"data": data if len(data) <= MAX_LETTER_BYTES else b"", "size": len(data)}


def collect_letters(step: Transition, parked: list[DeadLetter], dropped: list[str]) -> None:
    """Collect the dead letters of an applied change: those to store before the commit, and the ids
    of those to drop after it.
    """
    task = step.task
    for letter in step.letters:
        if isinstance(letter, KeepLetter):
            parked.append(node_letter(task, letter.index, at=step.now))
        else:
            dropped.append(
                node_letter_id(task.spec, task.spec.plan.ids[letter.index], letter.attempt)
            )
