"""The one door: every change of a stored task goes through :meth:`EventProcessor.apply`."""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

import anyio

from flowkit._dead_letters.letter_states import LetterState, letter_states
from flowkit._dead_letters.letters import LetterChanges
from flowkit._engine import (
    ConditionDelayed,
    Effect,
    EngineSettings,
    EvaluateCondition,
    Event,
    Transition,
    advance,
    is_delayed,
    pending_effects,
)
from flowkit._records.queries import records_of
from flowkit._records.task_records import Ledger, Sent, decode_task
from flowkit._runtime.backoff import Backoff, retry
from flowkit._runtime.outage_notices import Notices, notices_of
from flowkit._tasks.conditions import Allowance, evaluate_at_once
from flowkit._tasks.reduced_reports import without_payloads
from flowkit._tasks.views import node_view, task_view
from flowkit._text.redaction import redacted, writable
from flowkit._user_code.containment import (
    contained,
    error_text,
    error_type,
    origin,
    traceback_text,
    undo_cancellation,
)
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import (
    CorruptRecord,
    FlowKitError,
    MessageTooLarge,
    PayloadError,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, DeadLetter, Store, TaskRecord
from flowkit.task import Task, TaskStatus

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SEC = 2.0
MOST_OF_A_TRACEBACK = 20_000
MOST_REMEMBERED = 50_000
"""Tasks that are not held, of which commands that were sent and not recorded as sent, or defects
that were logged, are remembered.
"""


def log_store_error(log: logging.Logger, notices: Notices, error: Exception) -> None:
    """Warn that the store is unavailable, or that it refuses what is asked, which is for an
    operator to change.
    """
    if isinstance(error, StoreUnavailable):
        notices.trouble(log, "store", "The store is unavailable", error, action="store_unavailable")
    else:
        notices.trouble(
            log, "store refuses", "The store refuses an operation", error, action="store_refused"
        )


@dataclass(slots=True)
class Held:
    """A task in memory, as of its last commit."""

    task: Task
    ledger: Ledger


@dataclass(slots=True)
class Applied:
    """What came of events: the tasks they concern and what is to be done for each, after the
    commit.
    """

    effects: list[tuple[Held, list[Effect]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    quarantined: dict[str, BaseException] = field(default_factory=dict)
    """Tasks that could not be changed, and why."""
    uncommitted: dict[str, DeadLetter] = field(default_factory=dict)
    """Dead letters that were stored, by id, and not committed with their tasks."""


class EventProcessor:
    """Puts events through the engine and commits what comes out.

    Tasks are kept in memory between calls, up to ``keep_nodes`` nodes in all. That two appliers
    hold one task is harmless: the slower one's commit is refused, and it loads the task again.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        plugins: Plugins,
        settings: EngineSettings,
        keep_nodes: int,
        patience_sec: float | None,
    ) -> None:
        """``patience_sec`` bounds how long an unavailable store is waited for; None: for ever."""
        self._store = store
        self._clock = clock
        self._plugins = plugins
        self._settings = settings
        self._keep_nodes = keep_nodes
        self._patience_sec = patience_sec
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._held_nodes = 0
        self._lock = anyio.Lock(fast_acquire=True)
        self._last_operation: dict[str, str] = {}
        self._unsaved: OrderedDict[str, list[Sent]] = OrderedDict()
        self._quarantined: OrderedDict[str, str] = OrderedDict()
        """The defects that were logged, by task."""
        self._name = secrets.token_hex(6)
        self._numbers = count()

    def held(self) -> Collection[Held]:
        """The tasks in memory."""
        return self._held.values()

    def held_of(self, task_ids: Collection[str]) -> list[Held]:
        """Those of these tasks that are in memory."""
        return [self._held[task_id] for task_id in task_ids if task_id in self._held]

    def forget(self, task_id: str) -> None:
        """Drop a task from memory: somebody else changed it. That a command was sent is remembered,
        as it may not be stored.
        """
        held = self._held.pop(task_id, None)
        if held is not None:
            self._held_nodes -= len(held.task.marks)
            if held.ledger.unsaved and not held.task.terminal:
                self._unsaved[task_id] = held.ledger.unsaved
                if len(self._unsaved) > MOST_REMEMBERED:
                    self._unsaved.popitem(last=False)

    def adopt(self, task: Task, record: TaskRecord) -> Held:
        """Hold a task that was just stored for the first time."""
        task.version = record.version
        return self._keep(task, record)

    def _keep(self, task: Task, record: TaskRecord) -> Held:
        held = self._held[task.task_id] = Held(task, Ledger(task, record.parts))
        self._held_nodes += len(task.marks)
        return held

    async def forget_changed(self, task_ids: Collection[str]) -> list[str]:
        """Drop those of these tasks that somebody else has changed: it is theirs now. Returns the
        others.
        """
        async with self._lock:
            records = await self._store.load(task_ids)
            mine = []
            for task_id in task_ids:
                held, record = self._held.get(task_id), records.get(task_id)
                if held is not None and record is not None and held.task.version == record.version:
                    mine.append(task_id)
                else:
                    self.forget(task_id)
            return mine

    async def look(self, task_ids: Collection[str]) -> Applied:
        """See whether tasks were changed by somebody else, and say what is yet to be done for those
        that were.
        """
        async with self._lock:
            records = await self._store.load(task_ids)
            applied = Applied(missing=[task_id for task_id in task_ids if task_id not in records])
            undecided: dict[str, Sequence[Event]] = {}
            for task_id, record in records.items():
                held = self._held.get(task_id)
                if held is not None and held.task.version == record.version:
                    continue
                self.forget(task_id)
                held = await self._hold(task_id, record)
                if held is None:
                    continue
                try:
                    effects = contained(pending_effects, held.task, claimed=False)
                except Exception as error:
                    await self.quarantine(task_id, error)
                    continue
                if any(isinstance(effect, EvaluateCondition) for effect in effects):
                    undecided[task_id] = ()
                elif effects:
                    applied.effects.append((held, effects))
                if held.task.terminal:
                    self.forget(task_id)
            if undecided:
                more = await self._apply(undecided, restore=True)
                applied.effects += more.effects
            self._evict()
            return applied

    async def apply(self, events: Mapping[str, Sequence[Event]], *, whole: bool = False) -> Applied:
        """Put each task's events through the engine, in order, and commit. Returns when all of it
        is stored.

        ``whole`` brings the records of all nodes back from the archive first, which a retry needs.

        Raises:
            StoreError: the store was unavailable for longer than ``patience_sec``, or refused an
                operation; what was stored is unknown.
        """
        async with self._lock:
            applied = await self._apply(events, whole=whole)
            self._evict()
            return applied

    def sent(self, held: Held, commands: Sequence[Sent]) -> None:
        """These commands are on the bus. It is remembered, and stored with the next commit:
        forgetting it costs a copy of the command.
        """
        held.ledger.sent(held.task, commands)

    def waits(self, task_id: str, command: Sent) -> None:
        """Record that a command waits as far as the bus knows. It is stored with the next commit:
        losing it costs one more check.
        """
        for held in self.held_of((task_id,)):
            held.ledger.waits(held.task, command, self._clock.now())

    # ------------------------------------------------------------ applying

    async def _apply(
        self, events: Mapping[str, Sequence[Event]], *, restore: bool = False, whole: bool = False
    ) -> Applied:
        applied = Applied()
        rounds = [dict(events)]
        operations: dict[str, str] = {}
        notices = notices_of(self._clock)

        async def run_rounds() -> None:
            while rounds:
                pending = rounds.pop()
                try:
                    rounds.extend(
                        await self._round(
                            pending, operations, applied, restore=restore, whole=whole
                        )
                    )
                except StoreError:
                    rounds.append(pending)
                    for task_id in pending:
                        self.forget(task_id)
                    raise
                notices.over(logger, "store")

        await retry(
            run_rounds,
            on=self._is_retried,
            sleep=self._clock.sleep,
            backoff=Backoff(longest_sec=LONGEST_PAUSE_SEC),
            patience_sec=self._patience_sec,
            on_retry=lambda error: log_store_error(logger, notices, error),
        )
        if applied.uncommitted:
            await self._drop_strays(list(applied.uncommitted.values()))
        return applied

    def _is_retried(self, error: Exception) -> bool:
        return isinstance(error, StoreError if self._patience_sec is None else StoreUnavailable)

    async def _round(
        self,
        pending: dict[str, Sequence[Event]],
        operations: dict[str, str],
        applied: Applied,
        *,
        restore: bool,
        whole: bool,
    ) -> list[dict[str, Sequence[Event]]]:
        """Try once, and say what to try after it, the last first."""
        found = await self._get(pending)
        for task_id in [task_id for task_id in pending if task_id not in found]:
            applied.missing.append(task_id)
            del pending[task_id]
        if whole:
            for held in found.values():
                held.task.records.update(
                    await records_of(self._store, held.task, range(len(held.task.marks)))
                )
        if operations:
            self._settle_unknown(pending, found, operations, applied)
        try:
            stale = await self._commit(pending, found, operations, applied, restore=restore)
        except (RecordTooLarge, RecordRefused, PayloadError) as error:
            return await self._parted(pending, error, applied)
        for task_id in stale:
            self.forget(task_id)
            operations.pop(task_id, None)
        return [{task_id: pending[task_id] for task_id in stale}] if stale else []

    async def _parted(
        self, pending: Mapping[str, Sequence[Event]], error: FlowKitError, applied: Applied
    ) -> list[dict[str, Sequence[Event]]]:
        """What to try in the place of events with which a task cannot be stored: each alone, then
        without what they carry.
        """
        for task_id in pending:
            self.forget(task_id)
        alone: list[dict[str, Sequence[Event]]] = [
            {task_id: events[place : place + 1]}
            for task_id, events in pending.items()
            for place in range(max(len(events), 1))
        ]
        if len(alone) > 1:
            return alone[::-1]
        ((task_id, events),) = pending.items()
        bare = without_payloads(events, error)
        if bare == list(events):
            applied.quarantined[task_id] = error
            await self.quarantine(task_id, error)
            return []
        logger.warning(
            "Task %s cannot be stored: %s",
            task_id,
            error,
            extra={"action": "task_unstorable", "task_id": task_id},
        )
        return [{task_id: bare}]

    def _settle_unknown(
        self,
        pending: dict[str, Sequence[Event]],
        found: Mapping[str, Held],
        operations: dict[str, str],
        applied: Applied,
    ) -> None:
        """A commit whose outcome was not told was applied if the record has its operation's id."""
        for task_id in [task_id for task_id in pending if task_id in operations]:
            if self._last_operation.get(task_id) == operations.pop(task_id):
                applied.effects.append((found[task_id], pending_effects(found[task_id].task)))
                del pending[task_id]

    async def _commit(
        self,
        pending: Mapping[str, Sequence[Event]],
        found: Mapping[str, Held],
        operations: dict[str, str],
        applied: Applied,
        *,
        restore: bool,
    ) -> list[str]:
        """One round: advance, commit, and say which tasks were refused."""
        commits = []
        outcomes: list[
            tuple[str, Held, TaskStatus, list[Effect], list[tuple[str, dict[str, Any]]]]
        ] = []
        letters: dict[str, LetterChanges] = {}
        unsure: list[str] = []
        for task_id, events in pending.items():
            held = found[task_id]
            before = held.task.status
            about_letters = LetterChanges()
            try:
                changed, effects, notices = await self._advance(
                    held, events, about_letters, restore=restore
                )
                operation = f"{self._name}.{next(self._numbers)}"
                commit = held.ledger.commit(held.task, operation) if changed else None
            except (StoreError, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                applied.quarantined[task_id] = error
                await self.quarantine(task_id, error)
                continue
            if commit is None:
                if effects:
                    applied.effects.append((held, effects))
                if events and task_id not in self._last_operation:
                    unsure.append(task_id)
                continue
            letters[task_id] = about_letters
            operations[task_id] = operation
            commits.append(commit)
            outcomes.append((task_id, held, before, effects, notices))
        stale = await self._outdated(unsure, found)
        if not commits:
            return stale
        parked = [letter for one in letters.values() for letter in one.parked]
        applied.uncommitted |= {letter.letter_id: letter for letter in parked}
        await self._park(parked)
        stored = await self._store.commit(commits)
        for (task_id, held, before, effects, notices), commit, success in zip(
            outcomes, commits, stored, strict=True
        ):
            if not success:
                stale.append(task_id)
                continue
            operations.pop(task_id, None)
            for letter in letters[task_id].parked:
                applied.uncommitted.pop(letter.letter_id, None)
            held.ledger.committed(held.task, commit)
            applied.effects.append((held, effects))
            if held.task.status is not before:
                _log_status(held.task, before, self._plugins)
            if held.task.terminal:
                self.forget(task_id)
            for hook, arguments in notices:
                self._plugins.notify(hook, **arguments)
        await undo_cancellation()
        await self._drop(
            [
                letter_id
                for task_id, one in letters.items()
                if task_id not in operations
                for letter_id in one.dropped
            ]
        )
        return stale

    async def _park(self, letters: list[DeadLetter]) -> None:
        """Store dead letters. A store that refuses them does not stop the tasks that they are
        about.
        """
        if not letters:
            return
        try:
            await self._store.park(letters)
        except StoreUnavailable:
            raise
        except StoreError as error:
            notices_of(self._clock).trouble(
                logger, "letters", "Dead letters cannot be stored", error, action="letters_refused"
            )

    async def _drop(self, letter_ids: list[str]) -> None:
        """Drop dead letters of nodes that succeeded. One that stays does no harm: its retry finds
        that the node has run again.
        """
        if not letter_ids:
            return
        try:
            await self._store.drop_dead_letters(letter_ids)
        except StoreError as error:
            notices_of(self._clock).trouble(
                logger, "letters", "Dead letters cannot be dropped", error, action="letters_left"
            )

    async def _drop_strays(self, letters: list[DeadLetter]) -> None:
        """Drop dead letters of failures that others have prevented: their commits came first.

        The letter of a node that has not ended stays: others may be about to commit the same
        failure.
        """
        try:
            states = await letter_states(self._store, letters)
        except StoreError as error:
            notices_of(self._clock).trouble(
                logger, "letters", "Dead letters cannot be checked", error, action="letters_left"
            )
            return
        await self._drop(
            [
                letter.letter_id
                for letter, state in zip(letters, states, strict=True)
                if state is LetterState.STRAY
            ]
        )

    async def _outdated(self, task_ids: Collection[str], found: Mapping[str, Held]) -> list[str]:
        """Those tasks that others have changed: what a copy from memory ignores may mean something
        to the task as it is now.
        """
        if not task_ids:
            return []
        records = await self._store.load(task_ids)
        return [
            task_id
            for task_id in task_ids
            if task_id not in records or records[task_id].version != found[task_id].task.version
        ]

    async def _advance(
        self, held: Held, events: Sequence[Event], letters: LetterChanges, *, restore: bool
    ) -> tuple[bool, list[Effect], list[tuple[str, dict[str, Any]]]]:
        now = self._clock.now()
        changed = False
        effects: list[Effect] = pending_effects(held.task, claimed=False) if restore else []
        notices: list[tuple[str, dict[str, Any]]] = []
        conditions: list[Effect] = [
            effect for effect in effects if effect.__class__ is EvaluateCondition
        ]
        effects = [effect for effect in effects if effect.__class__ is not EvaluateCondition]
        for event in events:
            step = advance(held.task, event, now=now, settings=self._settings)
            changed |= self._take(held, step, effects, conditions, notices, letters)
        allowance = Allowance()
        while conditions:
            condition = conditions.pop(0)
            assert isinstance(condition, EvaluateCondition)
            if not is_delayed(held.task.records.get(condition.index)):
                outcome = await evaluate_at_once(self._store, held.task, condition.index, allowance)
                step = advance(held.task, outcome, now=now, settings=self._settings)
                changed |= self._take(held, step, effects, conditions, notices, letters)
                if outcome.__class__ is not ConditionDelayed:
                    continue
            effects.append(condition)
        return changed, effects, notices

    def _take(
        self,
        held: Held,
        step: Transition,
        effects: list[Effect],
        conditions: list[Effect],
        notices: list[tuple[str, dict[str, Any]]],
        letters: LetterChanges,
    ) -> bool:
        for effect in step.effects:
            (conditions if effect.__class__ is EvaluateCondition else effects).append(effect)
        if step.ignored:
            return False
        if self._plugins.observes_nodes or self._plugins.observes_tasks:
            notices += self._notices(step)
        step.apply()
        letters.take(step)
        held.ledger.take(step)
        return True

    def _notices(self, step: Transition) -> list[tuple[str, dict[str, Any]]]:
        """What observers are to be told of a change. The views of before are taken now, before it
        is made.
        """
        task = step.task
        notices: list[tuple[str, dict[str, Any]]] = []
        before = task_view(task)
        nodes = [(index, node_view(task, index)) for index in step.marks]
        after_task = task_view(task, step)
        if self._plugins.observes_tasks and step.status is not task.status:
            notices.append(("flowkit_task_changed", {"before": before, "after": after_task}))
        if self._plugins.observes_nodes:
            for index, node_before in nodes:
                node_after = node_view(task, index, step)
                if node_after.status is not node_before.status:
                    notices.append(
                        (
                            "flowkit_node_changed",
                            {"task": after_task, "before": node_before, "after": node_after},
                        )
                    )
        return notices

    async def quarantine(self, task_id: str, error: BaseException) -> None:
        """A defect struck this task: it is put aside with its traceback, and the others go on.

        The same defect leaves one letter, and one line in the log of this process, however often it
        strikes.
        """
        self.forget(task_id)
        error = origin(error)
        text = writable(redacted(traceback_text(error)), most=MOST_OF_A_TRACEBACK)
        mark = sha256(text.encode()).hexdigest()[:8]
        if self._quarantined.get(task_id) != mark:
            # The texts of these errors say which record or message it is and why, and show nothing
            # of it.
            why = (
                str(error)
                if isinstance(error, CorruptRecord | MessageTooLarge | PayloadError)
                else error_type(error)
            )
            log_failure(
                logger,
                self._plugins,
                "Task %s is quarantined, %s",
                task_id,
                why,
                text=error_text(error),
                error=error,
                level=logging.ERROR,
                extra={"action": "task_quarantined", "task_id": task_id},
            )
            self._quarantined[task_id] = mark
            if len(self._quarantined) > MOST_REMEMBERED:
                self._quarantined.popitem(last=False)
        letter = DeadLetter(
            letter_id=f"task-{task_id}-{mark}",
            at=self._clock.now(),
            kind="task",
            reason_code="quarantined",
            error=text,
            task_id=task_id,
        )
        await self._store.park([letter])

    # ------------------------------------------------------------ tasks in memory

    async def _get(self, task_ids: Collection[str]) -> dict[str, Held]:
        found: dict[str, Held] = {}
        missing = []
        for task_id in task_ids:
            held = self._held.get(task_id)
            if held is None:
                missing.append(task_id)
            else:
                found[task_id] = held
                self._held.move_to_end(task_id)
        self._last_operation.clear()
        if missing:
            for task_id, record in (await self._store.load(missing)).items():
                self._last_operation[task_id] = record.op_id
                loaded = await self._hold(task_id, record)
                if loaded is not None:
                    found[task_id] = loaded
        return found

    async def _hold(self, task_id: str, record: TaskRecord) -> Held | None:
        try:
            task = decode_task(record)
        except FlowKitError as error:
            await self.quarantine(task_id, error)
            return None
        held = self._keep(task, record)
        held.ledger.sent(task, self._unsaved.pop(task_id, ()))
        return held

    def _evict(self) -> None:
        """Let the least lately used tasks go where there are too many."""
        while self._held_nodes > self._keep_nodes and self._held:
            self.forget(next(iter(self._held)))


def _log_status(task: Task, before: TaskStatus, plugins: Plugins) -> None:
    """Log the start and the end of a task."""
    if before is TaskStatus.QUEUED and task.started_at is not None:
        logger.info(
            "Task %s started",
            task.task_id,
            extra={"action": "task_started", "task_id": task.task_id},
        )
    if task.status.terminal:
        level = logging.WARNING if task.status is TaskStatus.FAILED else logging.INFO
        if logger.isEnabledFor(level):
            took = (task.finished_at or 0.0) - (task.started_at or task.spec.created_at)
            why = (task.error if task.status is TaskStatus.FAILED else task.reason) or ""
            message, args = "Task %s %s after %.3f s", (task.task_id, task.status.value, took)
            extra = {"action": f"task_{task.status.value}", "task_id": task.task_id}
            if why:
                log_failure(logger, plugins, message, *args, text=why, level=level, extra=extra)
            else:
                logger.log(level, message, *args, extra=extra)
