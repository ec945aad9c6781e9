"""Concurrency keys, rates and the keys of caches: places for the nodes that ask, for many nodes and
keys at a time.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import count

from anyio.abc import TaskGroup

from flowkit._engine import (
    CancelRequested,
    Event,
    KeyBusy,
    KeyGranted,
    KeyQueued,
    ResultCached,
    ReturnKey,
)
from flowkit._engine.key_places import Candidate, Claimant, KeyState
from flowkit._records.cache_records import value_of
from flowkit._records.key_records import (
    candidate_of,
    key_change,
    key_state,
    queue_key,
    queue_kind,
    queue_prefix,
    queued_claim,
    queued_record,
)
from flowkit._runtime.concurrency import Recent
from flowkit._runtime.retries import notices_of
from flowkit._tasks.event_processor import log_store_error
from flowkit._user_code.containment import awaited
from flowkit.coordinator._gathered_events import GatheredEvents
from flowkit.coordinator._key_ancestors import Ancestors
from flowkit.coordinator._key_work import Answer, Ask, KeyWork, Step, step
from flowkit.coordinator._rate_windows import RateWindows
from flowkit.coordinator._timers import Timers
from flowkit.errors import CorruptRecord, StoreError
from flowkit.protocols import Clock, RecordChange, RecordDeletion, Store
from flowkit.task import ClaimKind, Task

logger = logging.getLogger(__name__)

MOST_KNOWN = 10_000
"""Keys of which the last state is kept in memory."""
FIRST_CHECK_SEC = 30.0
"""Time after a change of a key until its holders are checked."""
PAUSE_SEC = 1.0

Events = dict[str, list[Event]]
_Known = tuple[KeyState, str]
"""State of a key, and the revision of its record; the empty text if there is none."""


class Keys:
    """Asks for places of keys of one kind, and gives them back. Work that comes in meanwhile is
    done together in the next round.

    What a crash leaves undone is done again: a node repeats its question until it has an answer,
    and the holders of a key are checked when its record is due.
    """

    def __init__(
        self,
        kind: ClaimKind,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self.kind = kind
        self._group = group
        self._store = store
        self._clock = clock
        self._answers = GatheredEvents(
            group=group,
            report=report,
            leaving=leaving,
            message="The answers to claims of keys, rates or cached results were not recorded",
        )
        self._leaving = leaving
        self._windows = RateWindows(clock)
        self._timers = Timers(clock)
        self._ancestors = Ancestors(store)
        self._known: Recent[str, _Known] = Recent(MOST_KNOWN)
        self._work: dict[str, KeyWork] = {}
        self._asked: set[Claimant] = set()
        """Claims that are asking, so that a repeated question is asked once."""
        self._is_serving = False
        self._name = secrets.token_hex(6)
        self._numbers = count()

    # ------------------------------------------------------------ work

    def ask(self, task: Task, index: int, number: int) -> None:
        """Ask for a place for a node, or for the whole task."""
        claim, key = task.claim(index, self.kind), task.spec.key_of(index)
        if claim is None or claim.number != number:
            return
        one = candidate_of(task, index, claim, self.kind)
        if one.claimant not in self._asked:
            self._asked.add(one.claimant)
            conflict = "queue" if self.kind != "key" or key is None else key.on_conflict
            waits = conflict in ("queue", "cancel_running")
            ask = Ask(one, waits, enters=waits and self._is_contended(claim.key))
            self._ancestors.note(task)
            self._of(claim.key).asks.append(ask)

    def give_back(self, task: Task, effect: ReturnKey) -> None:
        """Give back the place of a node or task, or take it out of the queue."""
        claim = effect.claim
        claimant = Claimant(task.task_id, effect.index, claim.number)
        work = self._of(claim.key)
        work.returned.add(claimant)
        if effect.begun:
            work.begun.add(claimant)
        if (value := value_of(task, effect, self._clock.now())) is not None:
            work.values[claimant] = value
        if claimant in self._asked:
            self._asked.remove(claimant)
            work.asks = [ask for ask in work.asks if ask.candidate.claimant != claimant]
        if claim.state != "held":
            work.withdrawn.append(candidate_of(task, effect.index, claim, self.kind))

    def check(self, key: str, over: Collection[Claimant], due_at: float) -> None:
        """Give back the places of claims that are over, and check the key again later."""
        work = self._of(key)
        work.returned.update(over)
        work.begun.update(over)
        work.due_at, work.serve = due_at, True

    async def run_timers(self) -> None:
        """Run the loop that gives places when those of a rate become free by time."""
        await self._timers.run(self._wake)

    async def _wake(self, keys: Collection[str]) -> None:
        for key in keys:
            self._of(key).serve = True

    def _is_contended(self, key: str) -> bool:
        """Return whether a key seems to be contended. Then a claim comes into the queue at once."""
        known = self._known.get(key)
        return known is not None and known[0].contended

    def _of(self, key: str) -> KeyWork:
        if not self._is_serving:
            self._is_serving = True
            self._group.start_soon(self._serve)
        work = self._work.get(key)
        if work is None:
            work = self._work[key] = KeyWork()
        return work

    async def _serve(self) -> None:
        try:
            while self._work:
                work, self._work = self._work, {}
                left = await awaited(self._patient_round(work), ending=self._leaving)
                for key, later in self._work.items():
                    left.setdefault(key, KeyWork()).add(later)
                self._work = left
        finally:
            self._is_serving = False

    async def _patient_round(self, work: dict[str, KeyWork]) -> dict[str, KeyWork]:
        """Do one round, and return the work that is left: all of it if the store is unavailable."""
        try:
            return await self._round(work)
        except StoreError as error:
            log_store_error(logger, notices_of(self._clock), error)
            self._known.clear()
            await self._clock.sleep(PAUSE_SEC)
            return work

    # ------------------------------------------------------------ rounds

    async def _round(self, work: dict[str, KeyWork]) -> dict[str, KeyWork]:
        """Do one step for each key, and return the work that is left."""
        if self.kind != "rate":
            await self._ancestors.resolve([ask for one in work.values() for ask in one.asks])
        entered = await self._enter_queues(work)
        known = {key: one for key in work if (one := self._usable(key, entered)) is not None}
        fresh = await self._read({key: one for key, one in work.items() if key not in known})
        known |= fresh
        queues = await self._queues(
            {
                key: work[key].reads
                for key, (state, _) in known.items()
                if state.contended and work[key].reads_queue(state)
            }
        )
        now = self._clock.now()
        steps = {
            key: self._step(key, work[key], state, queues.get(key, ()), now)
            for key, (state, _) in known.items()
        }
        changes = {
            key: self._change(key, steps[key], revision, work[key].due_at, now)
            for key, (state, revision) in known.items()
            if steps[key].state != state or (revision and work[key].due_at is not None)
        }
        refused = await self._store_states(changes, steps, self._withdrawals(work))
        left: dict[str, KeyWork] = {}
        events: Events = {}
        for key, done in steps.items():
            if key in refused:
                left[key] = work[key]
            elif key not in changes and key not in fresh and done.needs_proof:
                # Nothing was stored, so nothing has shown that the state in memory is the last one.
                self._known.pop(key, None)
                left[key] = work[key]
            else:
                rest = self._take_over(key, work[key], done, queues.get(key, ()), events)
                if rest is not None:
                    left[key] = rest
            if done.state.value is not None:
                self._known.pop(key, None)  # values may be large
        for task_id, of_task in events.items():
            self._answers.add(task_id, *of_task)
        return left

    def _step(
        self, key: str, work: KeyWork, state: KeyState, queue: Sequence[Candidate], now: float
    ) -> Step:
        if self.kind != "rate":
            return step(work, state, queue, now)
        state = self._windows.renewed(key, state, work, queue, self._new_id())
        return step(work, state, queue, now, self._windows.counter(key, state))

    def _usable(self, key: str, entered: Collection[str]) -> _Known | None:
        """Return the state of a key in memory, unless it is to be read again: claims have come into
        the queue of a contended key, so that perhaps nothing is stored that proves its state.
        """
        known = self._known.get(key)
        return None if known is not None and known[0].contended and key in entered else known

    async def _enter_queues(self, work: Mapping[str, KeyWork]) -> Collection[str]:
        """Store claims in the queues, and return their keys."""
        put = [(key, ask) for key, one in work.items() for ask in one.asks if ask.enters]
        changes = [
            RecordChange(self._new_id(), [queued_record(self.kind, key, ask.candidate)])
            for key, ask in put
        ]
        if changes:
            await self._store.records.change(changes)
        for _, ask in put:
            ask.enters, ask.queued = False, True
        return {key for key, _ in put}

    async def _read(self, work: Mapping[str, KeyWork]) -> dict[str, _Known]:
        """Read the states of keys, and return them without those whose records are damaged. The
        nodes that ask for these will ask again.
        """
        found: dict[str, _Known] = {}
        stored = await self._store.records.get(self.kind, work.keys()) if work else {}
        for key, one in work.items():
            record = stored.get(key)
            try:
                revision = "" if record is None else record.revision
                self._known[key] = found[key] = key_state(record), revision
            except CorruptRecord as error:
                logger.error("%s", error, extra={"action": "key_damaged"})
                self._known.pop(key, None)
                self._asked.difference_update(ask.candidate.claimant for ask in one.asks)
        return found

    async def _queues(self, reads: Mapping[str, int]) -> dict[str, list[Candidate]]:
        """Return the first claims in the queues of keys, as many as are to be read of each."""
        scan, kind = self._store.records.scan, queue_kind(self.kind)
        found = await asyncio.gather(
            *(scan(kind, prefix=queue_prefix(key), limit=most) for key, most in reads.items())
        )
        return {
            key: [one for one in map(queued_claim, records) if one is not None]
            for key, records in zip(reads, found, strict=True)
        }

    def _change(
        self, key: str, done: Step, revision: str, due_at: float | None, now: float
    ) -> RecordChange:
        """Return the change that stores the state after a step. While claims wait for a rate, its
        record is due when the next place is free: the timer of this coordinator may be gone then.
        """
        state, op_id = done.state, self._new_id()
        due_at = now + FIRST_CHECK_SEC if due_at is None else due_at
        if state.contended and state.begun:
            due_at = min(due_at, self._windows.next_at(key, state, done.waiting))
        return key_change(key, state, revision, op_id=op_id, due_at=due_at, kind=self.kind)

    def _new_id(self) -> str:
        return f"{self._name}.{next(self._numbers)}"

    async def _store_states(
        self,
        changes: Mapping[str, RecordChange],
        steps: Mapping[str, Step],
        withdrawals: Sequence[RecordDeletion],
    ) -> set[str]:
        """Store the states of keys, and delete withdrawn claims from the queues. Return the keys
        that others have changed meanwhile.
        """
        refused: set[str] = set()
        deletions = [RecordChange(self._new_id(), delete=[one]) for one in withdrawals]
        if not changes and not deletions:
            return refused
        stored = await self._store.records.change([*changes.values(), *deletions])
        for (key, change), success in zip(changes.items(), stored, strict=False):
            if not success:
                refused.add(key)
                self._known.pop(key, None)
            else:
                self._known[key] = steps[key].state, change.op_id if change.put else ""
        return refused

    def _take_over(
        self, key: str, work: KeyWork, done: Step, queue: Sequence[Candidate], events: Events
    ) -> KeyWork | None:
        """Collect the events that follow from a step that counts, and return the work that is left
        for the key.
        """
        if done.state.begun:
            self._timers.wake(key, self._windows.next_at(key, done.state, done.waiting))
        admitted = set(done.admitted)
        rest = KeyWork(done.unanswered, serve=done.serve, reads=done.reads)
        rest.withdrawn = [one for one in queue if one in admitted]
        for ask, answer in done.answers:
            self._asked.discard(ask.candidate.claimant)
            if ask.queued and answer is not Answer.QUEUED:
                rest.withdrawn.append(ask.candidate)
            _add(events, ask.candidate.claimant, self._event(key, ask, answer, done.state))
        asking = {ask.candidate for ask, _ in done.answers}
        for one in rest.withdrawn:
            if one not in asking:
                _, index, number = one.claimant
                _add(events, one.claimant, KeyGranted(index, number, kind=self.kind))
        for one in done.served:
            _add(events, one.claimant, _cached(key, one, done.state))
        if done.cancelled is not None:
            _add(events, done.cancelled.claimant, CancelRequested(f"its key {key!r} is taken over"))
        for ask in done.unanswered:
            ask.enters = True
        return rest if rest.asks or rest.serve or rest.withdrawn else None

    def _withdrawals(self, work: Mapping[str, KeyWork]) -> list[RecordDeletion]:
        """Return the deletions of the claims that are withdrawn from queues."""
        names = {queue_key(key, gone) for key, one in work.items() for gone in one.withdrawn}
        return [RecordDeletion(queue_kind(self.kind), name) for name in sorted(names)]

    def _event(self, key: str, ask: Ask, answer: Answer, state: KeyState) -> Event:
        _, index, number = ask.candidate.claimant
        match answer:
            case Answer.QUEUED:
                return KeyQueued(index, number, self.kind)
            case Answer.BUSY:
                error = f"others hold key {key!r} (limit {ask.candidate.limit})"
                return KeyBusy(index, number, error)
            case Answer.CACHED:
                return _cached(key, ask.candidate, state)
            case _:
                return KeyGranted(index, number, answer is Answer.SHARED, self.kind)


def _cached(key: str, one: Candidate, state: KeyState) -> ResultCached:
    """Return the event that a result is stored for a node."""
    assert state.value is not None
    _, index, number = one.claimant
    return ResultCached(index, number, key, one.asked_at, state.value.result)


def _add(events: Events, claimant: Claimant, event: Event) -> None:
    events.setdefault(claimant.task_id, []).append(event)
