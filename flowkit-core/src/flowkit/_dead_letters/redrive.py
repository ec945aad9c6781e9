"""Retries of dead letters."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from flowkit._dead_letters.unusable_messages import message_of
from flowkit._dead_letters.webhook_letters import change_of
from flowkit._engine import RetryRequested
from flowkit._records.blocked_retries import blocked_retries
from flowkit._records.letter_records import drop_letters, read_letters
from flowkit._records.parents import check_retried_alone
from flowkit._records.queries import load_task, records_of
from flowkit._runtime.bus_connection import BusConnection
from flowkit.errors import (
    BusError,
    CorruptRecord,
    MessageTooLarge,
    PayloadError,
    TaskNotFound,
    TaskRefused,
    TriggerNotFound,
)
from flowkit.messages import TaskTouched, encode, headers_of
from flowkit.protocols import Message, Store
from flowkit.task import DeadLetter, NodeRecord

MOST_AT_ONCE = 500
OUTDATED = {
    "batch": "the node has run again from the start since then, with this batch among the others",
    "node": "the node did not fail in this attempt, or has run again since then",
}
"""Reasons why the letter of a batch or node cannot be retried any more, by kind."""
LETTER_ERRORS = (
    BusError,
    CorruptRecord,
    MessageTooLarge,
    PayloadError,
    TaskNotFound,
    TaskRefused,
    TriggerNotFound,
)
"""Errors of one letter. They are its outcome, and the other letters are still retried."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """Outcome of the retry of a dead letter: its work is retried (``done``), or the letter stays as
    it was. A retried letter is dropped, but that of a webhook stays until the receiver accepts the
    change.
    """

    letter_id: str
    done: bool
    detail: str


class Redriver:
    """Retries dead letters. A letter is dropped once its retry is confirmed, of a change by its
    webhook; repeating a retry is harmless.
    """

    def __init__(
        self,
        *,
        store: Store,
        connection: BusConnection,
        events_topic: str,
        retry: Callable[[str, RetryRequested], Awaitable[object]],
        make_again: Callable[[DeadLetter], Awaitable[str]],
        webhooks: Callable[[], Collection[str]],
    ) -> None:
        """``make_again`` makes the task of the event of a trigger, and returns what was done.
        ``webhooks`` returns the names of those that are configured.
        """
        self._store = store
        self._connection = connection
        self._events_topic = events_topic
        self._retry = retry
        self._webhooks = webhooks
        self._again = {
            "message": self._message,
            "task": self._task,
            "trigger": make_again,
            "webhook": self._change,
        }
        """Retries of letters that are not about nodes, by kind."""

    async def redrive(self, letter_ids: Sequence[str]) -> list[Redriven]:
        """Retry these dead letters, and return the outcome of each."""
        outcomes: list[Redriven] = []
        for start in range(0, len(letter_ids), MOST_AT_ONCE):
            wanted = letter_ids[start : start + MOST_AT_ONCE]
            found = {
                letter.letter_id: letter
                for letter in await read_letters(self._store, letter_ids=wanted, limit=len(wanted))
            }
            outcomes += [
                Redriven(letter_id, False, "there is no such letter")
                for letter_id in wanted
                if letter_id not in found
            ]
            by_task: dict[str, list[DeadLetter]] = {}
            for letter in found.values():
                if letter.fault is not None:
                    outcomes.append(
                        Redriven(letter.letter_id, False, f"the letter is damaged: {letter.fault}")
                    )
                elif letter.kind in ("batch", "node"):
                    by_task.setdefault(letter.task_id or "", []).append(letter)
                else:
                    outcomes.append(await self._attempted(letter, self._again[letter.kind]))
            for task_id, letters in by_task.items():
                outcomes += await self._retry_nodes(task_id, letters)
        return outcomes

    async def _attempted(
        self, letter: DeadLetter, send: Callable[[DeadLetter], Awaitable[str]]
    ) -> Redriven:
        try:
            detail = await send(letter)
        except LETTER_ERRORS as error:
            return Redriven(letter.letter_id, False, str(error))
        if letter.kind != "webhook":
            await drop_letters(self._store, [letter.letter_id])
        return Redriven(letter.letter_id, True, detail)

    async def _message(self, letter: DeadLetter) -> str:
        message = message_of(letter, "message")
        await self._send(message)
        return f"sent to {message.topic} again"

    async def _change(self, letter: DeadLetter) -> str:
        webhooks = self._webhooks()
        await self._send(change_of(letter, webhooks))
        unknown = "" if webhooks else ", which this configuration does not have"
        return (
            f"published for webhook {letter.webhook!r} again{unknown}; the letter stays until"
            " `flowkit webhooks` has delivered it"
        )

    async def _send(self, message: Message) -> None:
        """Send a message unchanged, without signing it again."""
        await self._connection.connect()
        await self._connection.plain.publish([message])

    async def _task(self, letter: DeadLetter) -> str:
        task_id = letter.task_id or ""
        bus = await self._connection.connect()
        await bus.publish(
            [
                Message(
                    self._events_topic,
                    encode(TaskTouched(task_id=task_id)),
                    task_id,
                    headers_of(None),
                )
            ]
        )
        return f"task {task_id!r} is loaded again"

    # ------------------------------------------------ batches and nodes

    async def _retry_nodes(self, task_id: str, letters: Sequence[DeadLetter]) -> list[Redriven]:
        """Run the nodes of these letters again, for their missing batches."""
        try:
            nodes, kept = await self._nodes(task_id, letters)
            if nodes:
                await self._retry(task_id, RetryRequested(tuple(sorted(nodes)), fill=True))
        except LETTER_ERRORS as error:
            return [Redriven(letter.letter_id, False, str(error)) for letter in letters]
        done = [letter for letter in letters if letter.letter_id not in kept]
        await drop_letters(self._store, [letter.letter_id for letter in done])
        return [
            *(
                Redriven(
                    letter.letter_id,
                    True,
                    f"node {letter.node_id!r} of task {task_id!r} runs again",
                )
                for letter in done
            ),
            *(
                Redriven(letter.letter_id, False, kept[letter.letter_id])
                for letter in letters
                if letter.letter_id in kept
            ),
        ]

    async def _nodes(
        self, task_id: str, letters: Sequence[DeadLetter]
    ) -> tuple[set[int], dict[str, str]]:
        """Return the nodes to run again, and the letters that cannot be retried, each with the
        reason.
        """
        task = await load_task(self._store, task_id)
        if not task.terminal:
            raise TaskRefused(
                f"task {task_id!r} is {task.status}: its dead letters can be retried when it has"
                " ended"
            )
        await check_retried_alone(self._store, task)
        places = task.spec.plan.index
        known = [letter for letter in letters if letter.node_id in places]
        records = await records_of(
            self._store, task, [places[letter.node_id or ""] for letter in known]
        )
        kept = {letter.letter_id: OUTDATED[letter.kind] for letter in letters}
        nodes: dict[int, list[str]] = {}
        for letter in known:
            index = places[letter.node_id or ""]
            if index in records and _is_current(letter, records[index]):
                nodes.setdefault(index, []).append(letter.letter_id)
                del kept[letter.letter_id]
        for index, block in (await blocked_retries(self._store, task, nodes)).items():
            why = f"{block.reason}; retry the dead letter of that node as well"
            kept |= dict.fromkeys(nodes.pop(index), why)
        return set(nodes), kept


def _is_current(letter: DeadLetter, record: NodeRecord) -> bool:
    """Return whether the node has not run again since the letter was stored."""
    return (
        record.letter == letter.attempt
        if letter.kind == "node"
        else record.generation == letter.generation
    )
