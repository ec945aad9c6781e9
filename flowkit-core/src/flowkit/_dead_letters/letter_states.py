"""States of the dead letters of nodes, from the records of their tasks."""

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum

from flowkit._dead_letters.letters import node_letter_id
from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit.errors import CorruptRecord
from flowkit.protocols import Store
from flowkit.task import ENDED, DeadLetter, NodeRecord, Task

TASKS_AT_ONCE = 50
"""Tasks that are loaded in one call."""


class LetterState(Enum):
    """State of the failure that a dead letter is about."""

    COMMITTED = "committed"
    """The failure is recorded."""
    UNDECIDED = "undecided"
    """The failure is not recorded, but may be soon: the node has not ended."""
    STRAY = "stray"
    """The failure will never be recorded: the node ended otherwise, or is at a later attempt."""


async def letter_states(store: Store, letters: Sequence[DeadLetter]) -> list[LetterState]:
    """Return the states of dead letters.

    Letters that are not about nodes are committed, and so are letters whose task is missing or
    cannot be read.
    """
    by_task: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        if letter.kind == "node" and letter.fault is None and letter.task_id is not None:
            by_task.setdefault(letter.task_id, []).append(letter)
    states: dict[str, LetterState] = {}
    task_ids = list(by_task)
    for start in range(0, len(task_ids), TASKS_AT_ONCE):
        for task_id, record in (await store.load(task_ids[start : start + TASKS_AT_ONCE])).items():
            with suppress(CorruptRecord):
                states |= await _states_of(
                    store, decode_task(record, to_look_at=True), by_task[task_id]
                )
    return [states.get(letter.letter_id, LetterState.COMMITTED) for letter in letters]


async def _states_of(
    store: Store, task: Task, letters: Sequence[DeadLetter]
) -> dict[str, LetterState]:
    places = task.spec.plan.index
    known = [
        (letter, places[letter.node_id])
        for letter in letters
        if letter.node_id in places and _is_of(task, letter)
    ]
    records = await records_of(store, task, [index for _, index in known])
    return {
        letter.letter_id: _state(letter, task.marks[index], records.get(index) or NodeRecord())
        for letter, index in known
    }


def _is_of(task: Task, letter: DeadLetter) -> bool:
    """Return whether a letter is about this task, and not about an earlier one with the same id."""
    return letter.letter_id == node_letter_id(task.spec, letter.node_id or "", letter.attempt)


def _state(letter: DeadLetter, mark: int, record: NodeRecord) -> LetterState:
    if record.letter == letter.attempt:
        return LetterState.COMMITTED
    # A recorded attempt before that of the letter was handed back, or the store's answer is old.
    ended = mark in ENDED and record.attempt == letter.attempt
    return LetterState.STRAY if ended or record.attempt > letter.attempt else LetterState.UNDECIDED
