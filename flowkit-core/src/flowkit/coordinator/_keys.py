"""Concurrency keys, rates and the keys of caches: places for the nodes that ask, for many nodes and
keys at a time.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from anyio.abc import TaskGroup

from flowkit._engine import (
    CancelRequested,
    Event,
    KeyBusy,
    KeyGranted,
    KeyQueued,
    KeysAnswered,
    ResultCached,
    ResultWanted,
    ReturnKey,
)
from flowkit._engine.key_places import TURN_SEC, Candidate, Claimant, Holder, KeyState
from flowkit._records.cache_records import value_of
from flowkit._records.key_queues import KeyQueue
from flowkit._records.key_records import (
    candidate_of,
    key_change,
)
from flowkit._runtime.retries import notices_of
from flowkit._tasks.ancestors import Ancestors, Place
from flowkit._tasks.event_processor import log_store_error
from flowkit._user_code.containment import awaited
from flowkit.coordinator._gathered_events import GatheredEvents
from flowkit.coordinator._key_store import KeyStore, Known
from flowkit.coordinator._key_work import Answer, Ask, KeyWork, Step, step
from flowkit.coordinator._rate_windows import RateWindows
from flowkit.coordinator._timers import Timers
from flowkit.errors import StoreError
from flowkit.protocols import Clock, RecordChange, Store
from flowkit.task import WHOLE_TASK, ClaimKind, Task

logger = logging.getLogger(__name__)

FIRST_CHECK_SEC = 30.0
"""Time after a change of a key until its holders are checked."""
PAUSE_SEC = 1.0

Events = dict[str, list[Event]]


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
        self._store = KeyStore(kind, store)
        self._work: dict[str, KeyWork] = {}
        self._asked: set[Claimant] = set()
        """Claims that are asking, so that a repeated question is asked once."""
        self._is_serving = False

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
            # A claim of a key that seems to be contended comes into the queue at once.
            ask = Ask(one, waits, enters=waits and self._store.seems_contended(claim.key))
            self._ancestors.note(task)
            self._of(claim.key).asks.append(ask)

    def ask_again(self, key: str, queued: Iterable[Candidate]) -> None:
        """Ask for places for claims in the queue of a key that is not marked as contended."""
        for one in queued:
            if one.claimant not in self._asked:
                self._asked.add(one.claimant)
                self._of(key).asks.append(Ask(one, waits=True, queued=True))

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
        if claim.state == "queued":
            work.withdrawn.append(candidate_of(task, effect.index, claim, self.kind))
            work.leaves = True
        elif claim.state != "held":
            work.maybe_queued.append(candidate_of(task, effect.index, claim, self.kind))

    def check(self, key: str, over: Collection[Claimant], due_at: float) -> None:
        """Give back the places of claims that are over, and check the key again later."""
        work = self._of(key)
        work.returned.update(over)
        work.begun.update(over)
        work.due_at, work.serve = due_at, True

    async def run_timers(self) -> None:
        """Run the loop that gives places that become free by time: those of rates, and those of
        caches at the end of a turn.
        """
        await self._timers.run(self._wake)

    async def _wake(self, keys: Collection[str]) -> None:
        for key in keys:
            self._of(key).serve = True

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
            self._store.forget_all()
            await self._clock.sleep(PAUSE_SEC)
            return work

    # ------------------------------------------------------------ rounds

    async def _round(self, work: dict[str, KeyWork]) -> dict[str, KeyWork]:
        """Do one step for each key, and return the work that is left."""
        if self.kind != "rate":
            await self._find_ancestors([ask for one in work.values() for ask in one.asks])
        entered = await self._store.enter_queues(work)
        keys = [key for key, one in work.items() if one.needs_step]
        states = self._store.states(keys)
        fresh = await self._store.read([key for key in keys if key not in states])
        states |= fresh
        for key in keys:
            if key not in states:  # its record is damaged, and its nodes ask again
                self._asked.difference_update(ask.candidate.claimant for ask in work[key].asks)
        for key, known in states.items():
            if known.state.contended:
                work[key].withdrawn += work[key].maybe_queued
        queues = await self._store.queues(states, work, entered)
        removals = await self._store.removals(work, queues)
        now = self._clock.now()
        steps: dict[str, Step] = {}
        placed: dict[str, Sequence[Candidate]] = {}
        changes: dict[str, RecordChange] = {}
        for key, known in states.items():
            todo, queue = work[key], queues.get(key)
            front: Sequence[Candidate] = ()
            if queue is not None and todo.reads_queue(known.state):
                front = queue.front(todo.reads)
            done = steps[key] = self._step(key, todo, known.state, front, now)
            placed[key] = done.placed(todo, front)
            todo.unsure.update(placed[key])
            if queue is not None:
                queue.remove(placed[key])
            if (change := self._change(key, todo, known, done, queue)) is not None:
                changes[key] = change
        refused = await self._store.change(changes, steps, removals)
        for one in work.values():
            one.withdrawn = []
        left: dict[str, KeyWork] = {}
        events: Events = {}
        for key, done in steps.items():
            if key in refused:
                left[key] = work[key]
            elif key not in changes and key not in fresh and done.needs_proof:
                # Nothing was stored, so nothing has shown that the state in memory is the last one.
                self._store.forget(key)
                left[key] = work[key]
            else:
                queue = queues.get(key)
                if queue is not None:
                    self._store.keep(key, queue)
                uncounted = placed[key]
                if queue is not None and key in changes and done.state.contended:
                    uncounted = [one for one in uncounted if not queue.is_counted(one)]
                rest = self._take_over(key, done, placed[key], uncounted, events)
                if rest is not None:
                    left[key] = rest
            if done.state.value is not None:
                self._store.forget(key)  # values may be large
        for task_id, of_task in events.items():
            self._answers.add(task_id, *_together(of_task))
        return left

    async def _find_ancestors(self, asks: Sequence[Ask]) -> None:
        """Set the ancestors of claims."""
        of_nodes: dict[str, list[Place]] = {}
        for ask in asks:
            if ask.ancestors:
                continue
            task_id, node, _ = ask.candidate.claimant
            if task_id not in of_nodes:
                of_nodes[task_id] = [
                    (task_id, WHOLE_TASK),
                    *await self._ancestors.above(task_id),
                ]
            ask.ancestors = of_nodes[task_id][1:] if node == WHOLE_TASK else of_nodes[task_id]

    def _step(
        self, key: str, work: KeyWork, state: KeyState, queue: Sequence[Candidate], now: float
    ) -> Step:
        if self.kind != "rate":
            return step(work, state, queue, now)
        state = self._windows.renewed(key, state, work, queue, self._store.new_id())
        return step(work, state, queue, now, self._windows.counter(key, state))

    def _change(
        self,
        key: str,
        work: KeyWork,
        known: Known,
        done: Step,
        queue: KeyQueue | None,
    ) -> RecordChange | None:
        """Return the change that stores the state after a step; None if it is stored already.

        Claims that came into the queue or are withdrawn change the record of their key, so that
        each coordinator that has the queue in memory reads it again. A change does not put off a
        check that is due: the holders of a key in use would never be checked. While claims wait for
        a rate, its record is due when the next place is free: the timer of this coordinator may be
        gone then.
        """
        renews = known.revision and (work.changes_queue or work.due_at is not None)
        if done.state == known.state and not renews:
            return None
        if queue is not None and done.state.contended:
            done.state = done.state._replace(left=queue.left(known.state.left))
        state, due_at, now = done.state, work.due_at, self._clock.now()
        if due_at is None:
            first = now + FIRST_CHECK_SEC
            due_at = first if known.due_at is None else min(first, known.due_at)
        if state.contended and state.begun:
            due_at = min(due_at, self._windows.next_at(key, state, done.waiting))
        op_id = self._store.new_id()
        return key_change(key, state, known.revision, op_id=op_id, due_at=due_at, kind=self.kind)

    def _take_over(
        self,
        key: str,
        done: Step,
        placed: Sequence[Candidate],
        uncounted: Sequence[Candidate],
        events: Events,
    ) -> KeyWork | None:
        """Collect the events that follow from a step that counts, and return the work that is left
        for the key.

        Claims that have a place leave the queue. The record of the key counts them if they are the
        first ones of their batch. The ``uncounted`` ones are withdrawn, and those that share a
        place: if it was not known that the step is stored, they might need one the next time.
        """
        if done.state.begun:
            self._timers.wake(key, self._windows.next_at(key, done.state, done.waiting))
        for ask, answer in done.answers:
            self._asked.discard(ask.candidate.claimant)
            _add(events, ask.candidate.claimant, self._event(key, ask, answer, done.state))
        asking = {ask.candidate for ask, _ in done.answers} if placed else set()
        for one in placed:
            if one not in asking:
                _, index, number = one.claimant
                _add(events, one.claimant, KeyGranted(index, number, kind=self.kind))
        sharing = done.sharing()
        withdrawn = [*uncounted, *sharing]
        for one in done.served:
            _add(events, one.claimant, _cached(key, one, done.state))
        if done.in_the_way is not None:
            self._clear(key, done.in_the_way, events)
        for ask in done.unanswered:
            ask.enters = True
        if not (done.unanswered or done.serve or withdrawn):
            return None
        return KeyWork(
            done.unanswered,
            withdrawn=withdrawn,
            leaves=bool(sharing),
            serve=done.serve,
            reads=done.reads,
        )

    def _clear(self, key: str, holder: Holder, events: Events) -> None:
        """Have the task of a holder cancelled; for the key of a cache, let the holder give way at
        the end of its turn.
        """
        _, index, number = holder.claimant
        turn_ends_at = holder.since + TURN_SEC
        if self.kind == "key":
            _add(events, holder.claimant, CancelRequested(f"its key {key!r} is taken over"))
        elif self._clock.now() < turn_ends_at:
            self._timers.wake(key, turn_ends_at)
        else:
            _add(events, holder.claimant, ResultWanted(index, number))

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


def _together(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events of a task with one in place of those that grant or queue claims."""
    answers = [event for event in events if isinstance(event, KeyGranted | KeyQueued)]
    if len(answers) <= 1:
        return events
    others = [event for event in events if not isinstance(event, KeyGranted | KeyQueued)]
    return [KeysAnswered(answers), *others]


def _add(events: Events, claimant: Claimant, event: Event) -> None:
    events.setdefault(claimant.task_id, []).append(event)
