"""The scheduler: it reacts to reports, timers and lost workers, and carries out effects."""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, TypeGuard

from anyio.abc import TaskGroup

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._engine import (
    AskKey,
    CallFunction,
    CollectMap,
    CommandsLost,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    NameKey,
    OpenMap,
    PublishChanges,
    ReadArtifacts,
    ReadEnds,
    ReturnKey,
    SendCancel,
    SentCommand,
    WithdrawCommand,
    Woke,
    due_nodes,
    is_late,
)
from flowkit._runtime.concurrency import Turns, within
from flowkit._runtime.retries import keep_alive, notices_of, owner_leaves, patiently
from flowkit._tasks.cached_tasks import TaskEffects
from flowkit._tasks.event_processor import EventProcessor, Outcome, log_store_error
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit._tasks.submission import Submission
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._hints import Hints
from flowkit.client._schedule_runs import ScheduleRuns
from flowkit.client._session import engine_settings
from flowkit.client._task_maker import Services
from flowkit.client._trigger_runs import TriggerRuns
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._arguments import Arguments
from flowkit.coordinator._change_publisher import ChangePublisher
from flowkit.coordinator._children import Children
from flowkit.coordinator._command_watch import CommandWatch, all_read, ends_of
from flowkit.coordinator._evaluator import Evaluator
from flowkit.coordinator._function_calls import FunctionCalls
from flowkit.coordinator._hearing import Hearing
from flowkit.coordinator._key_checks import check_keys
from flowkit.coordinator._keys import Keys
from flowkit.coordinator._maps import Maps
from flowkit.coordinator._outbox import Outbox
from flowkit.coordinator._report_inbox import read_reports
from flowkit.coordinator._retention import purge_regularly
from flowkit.coordinator._schedules import ScheduleService
from flowkit.coordinator._shared_resources import SharedResources
from flowkit.coordinator._timers import Timers, Wake
from flowkit.coordinator._trigger_sources import TriggerSources
from flowkit.coordinator._triggers import TriggerService
from flowkit.coordinator._withdrawals import Withdrawals
from flowkit.coordinator._worker_watch import WorkerWatch, tasks_of
from flowkit.errors import StoreError
from flowkit.measures import Measure
from flowkit.messages import NodeStarted, NodeSucceeded
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, Subscription
from flowkit.task import CLAIM_KINDS, ClaimKind

logger = logging.getLogger(__name__)

LOOP_PAUSE_SEC = 1.0
REPORTS_PAUSE_SEC = 0.05
TURNS = 4
"""Turns of the event loop that a submission gives: from here over the bus to a worker's slot."""
MOST_AT_ONCE = 500
"""Most overdue tasks that are read and woken in one call."""


class Scheduler:
    """Turns reports, timers and lost workers into events, and carries out the effects."""

    def __init__(
        self,
        *,
        group: TaskGroup,
        coordinator_id: str,
        cfg: CoordinatorConfig,
        clock: Clock,
        plugins: Plugins,
        store: Store,
        bus: Bus,
        hints: Hints,
        processor: EventProcessor,
        resources: SharedResources,
    ) -> None:
        self.processor = processor
        self._cfg = cfg
        self._clock = clock
        self._plugins = plugins
        self._store = store
        self._bus = bus
        self._hints = hints
        self._leaving = owner_leaves(group.cancel_scope)
        self.commands = CommandWatch(bus=bus, clock=clock, config=cfg, processor=processor)
        self.outbox = Outbox(
            bus=bus,
            store=store,
            clock=clock,
            config=cfg,
            processor=processor,
            commands=self.commands,
        )
        self._timers = Timers(clock)
        self._watch = WorkerWatch(
            store=store, clock=clock, config=cfg, coordinator_id=coordinator_id
        )
        self._hearing = Hearing(
            watch=self._watch,
            clock=clock,
            longest_sec=cfg.heartbeat_hard_sec,
            read_reports=self._until_reports_are_read,
        )
        self._functions = FunctionCalls(
            group=group,
            store=store,
            clock=clock,
            plugins=plugins,
            worker_id=coordinator_id,
            report=partial(self._handle, ()),
            resources=resources,
            leaving=self._leaving,
        )
        self._evaluator = Evaluator(
            group=group,
            store=store,
            report=self._report,
            leaving=self._leaving,
            max_result_bytes=cfg.limits.max_result_bytes,
        )
        self._arguments = Arguments(
            group=group, store=store, report=self._report_all, leaving=self._leaving
        )
        self._maps = Maps(
            group=group,
            store=store,
            settings=engine_settings(cfg),
            report=self._report,
            leaving=self._leaving,
        )
        flows = RegisteredFlows(lambda: store.records)
        self._children = Children(
            group=group,
            store=store,
            clock=clock,
            plugins=plugins,
            flows=flows,
            processor=processor,
            carry_out=self._carry_out,
            report=self._report_all,
            leaving=self._leaving,
        )
        services = Services(
            store=store,
            clock=clock,
            plugins=plugins,
            checks=GraphChecks(cfg.limits, plugins.functions, cfg.command_topic),
            flows=flows,
            processor=processor,
            dispatcher=self,
        )
        self._schedules = ScheduleService(
            store=store,
            clock=clock,
            runs=ScheduleRuns(services, check_sec=cfg.scheduler_tick_sec),
            tick_sec=cfg.scheduler_tick_sec,
        )
        runs = TriggerRuns(services)
        self._triggers = TriggerService(
            store=store, clock=clock, runs=runs, tick_sec=cfg.scheduler_tick_sec
        )
        self._sources = TriggerSources(
            group=group,
            store=store,
            clock=clock,
            plugins=plugins,
            cfg=cfg,
            runs=runs,
            leaving=self._leaving,
        )
        self._keys: Mapping[ClaimKind, Keys] = {
            kind: Keys(
                kind,
                group=group,
                store=store,
                clock=clock,
                report=partial(self._handle, ()),
                leaving=self._leaving,
            )
            for kind in CLAIM_KINDS
        }
        self._withdrawals = Withdrawals(
            group=group,
            store=store,
            clock=clock,
            report=partial(self._handle, ()),
            leaving=self._leaving,
        )
        self._changes = ChangePublisher(
            store=store,
            bus=bus,
            clock=clock,
            topic=cfg.changes_topic,
            processor=processor,
            omits_data=plugins.encodes_payloads,
        )
        self._new: list[TaskEffects] = []
        self._has_new = asyncio.Event()
        self._turns = Turns(least=TURNS, most=TURNS)

    def start(self, group: TaskGroup, reports: Subscription) -> None:
        """Start the loops of the coordinator in this task group."""
        run = partial(keep_alive, clock=self._clock, ending=self._leaving)
        for name, loop in self._loops(reports).items():
            title = f"coordinator's {name}"
            group.start_soon(run, title, partial(self._repeat, loop), name=title)

    def _loops(self, reports: Subscription) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        store, clock, cfg = self._store, self._clock, self._cfg
        parking = Parking(store=store, clock=clock, plugins=self._plugins)
        loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "inbox": lambda: read_reports(
                reports,
                parking,
                clock,
                self._handle,
                read_schedules=self._schedules.wake,
                ending=self._leaving,
            ),
            "submission": self._start_new,
            "timers": lambda: self._timers.run(self._wake_due),
            "sweep": lambda: sweep(store, clock, cfg.scheduler_tick_sec, self._wake_swept),
            "schedules": self._schedules.run,
            "triggers": self._triggers.run,
            "trigger sources": self._sources.run,
            "cached results": partial(self._check_keys, "cache"),
            "keys": partial(self._check_keys, "key"),
            "rates": partial(self._check_keys, "rate"),
            "places of rates": self._keys["rate"].run_timers,
            "turns for results": self._keys["cache"].run_timers,
            "worker watch": lambda: self._watch.run(
                self._handle_lost_workers, self._handle_restarted_workers
            ),
            "command watch": lambda: self.commands.run(self._resend),
        }
        if cfg.publish_changes:
            loops["changes"] = self._changes.run
        if (keep_sec := cfg.finished_retention_sec) is not None:
            loops["retention"] = lambda: purge_regularly(
                store, clock, keep_sec=keep_sec, interval_sec=cfg.purge_interval_sec
            )
        return loops

    async def leave(self) -> None:
        """End the session of this coordinator, when its loops have ended."""
        await self._watch.leave()

    async def _repeat(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop, and restart it after a pause while the store is unavailable."""
        while True:
            try:
                await loop()
            except StoreError as error:
                log_store_error(logger, notices_of(self._clock), error)
            await self._clock.sleep(LOOP_PAUSE_SEC)

    async def _check_keys(self, kind: ClaimKind) -> None:
        await check_keys(
            self._store,
            self._clock,
            self._keys[kind],
            tick_sec=self._cfg.scheduler_tick_sec,
            report=partial(self._handle, ()),
        )

    # ------------------------------------------------------------ events and effects

    async def _handle(
        self, touched: Collection[str], events: Mapping[str, Sequence[Event]]
    ) -> None:
        """Process hints and reports, and carry out their effects."""
        if touched:
            await self._carry_out((await self.processor.refresh(touched)).effects)
        if events:
            await self._carry_out((await self.processor.apply(events)).effects)
            if self._watch.ended and self._started_by_ended(events):
                # A worker that was started again with the same id has a session by now.
                await self._watch.lost_workers()
                if late := self._started_by_ended(events):
                    await self._apply_wake(late)

    def _started_by_ended(self, events: Mapping[str, Sequence[Event]]) -> list[str]:
        """Return the tasks of which a worker that is declared lost has started a node.

        It had claimed the attempt, which is reported by the next worker that gets the command.
        """
        ended = self._watch.ended
        return [
            task_id
            for task_id, reports in events.items()
            if any(_starts_a_node(one) and one.worker_id in ended for one in reports)
        ]

    async def _carry_out(self, effects: Sequence[TaskEffects]) -> None:
        for todo in effects:
            task = todo.cached.task
            self._timers.wake(task.task_id, task.wake_at)
            for state in todo.children:
                self._children.start(task, state)
            if task.terminal and (origin := task.spec.schedule) is not None and origin.awaited:
                self._schedules.task_ended(origin.schedule_id)
            if todo.has_triggers:
                self._triggers.wake()
        ends = self._children.ends_of(effects)
        for held, effect in await self.outbox.carry_out(effects, notified=ends):
            match effect:
                case CallFunction(index, attempt):
                    self._functions.start(held.task, index, attempt)
                case EvaluateArguments() | NameKey():
                    self._arguments.start(held.task, effect)
                case EvaluateCondition(index):
                    self._evaluator.start(held.task, index)
                case EvaluateOutput():
                    self._evaluator.start(held.task, None)
                case OpenMap() | ReadArtifacts() | CollectMap() | ReadEnds():
                    self._maps.start(held.task, effect)
                case AskKey(index, number, kind):
                    self._keys[kind].ask(held.task, index, number)
                case ReturnKey():
                    self._keys[effect.kind].give_back(held.task, effect)
                case WithdrawCommand():
                    self._withdrawals.start(held.task, effect)
                case SendCancel(index, attempt):
                    self._functions.cancel(held.task, index, attempt)
                case PublishChanges(upto) if self._cfg.publish_changes:
                    self._changes.publish(held.task.task_id, upto)
        if ends:
            await self._handle((), ends)

    async def _report(self, task_id: str, event: Event) -> None:
        await self._report_all(task_id, [event])

    async def _report_all(self, task_id: str, events: Sequence[Event]) -> None:
        await self._handle((), {task_id: events})

    # ------------------------------------------------------------ submissions and changes

    async def submitted(self, submissions: Mapping[str, Submission]) -> None:
        """Start new tasks at once. The coordinators that receive their reports continue them.

        Others are read first, because they may be earlier tasks, which have been started. If the
        store is unavailable now, the sweep starts them: they are stored.
        """
        others = {}
        for task_id, new in submissions.items():
            if new.certainly_new:
                self._new.append(TaskEffects(new.cached, new.effects))
            else:
                others[task_id] = new
        if others:
            try:
                self._new += (await self.processor.refresh(others, submitted=others)).effects
            except StoreError as error:
                log_store_error(logger, notices_of(self._clock), error)
        if self._new:
            self._has_new.set()
            # A program may end right after it has submitted, or submit in a tight loop.
            await self._turns.give()

    async def changed(self, task_ids: Collection[str], outcome: Outcome) -> None:
        """Carry out the effects of changes, and send hints to the other coordinators."""
        await self._carry_out(outcome.effects)
        await self._hints.changed(task_ids, outcome)

    async def schedule_changed(self, schedule_id: str) -> None:
        """Read schedules that are due."""
        self._schedules.wake()

    async def trigger_changed(self, trigger_id: str) -> None:
        """Read events that are due, and start to read new sources."""
        self._triggers.wake()
        self._sources.wake()

    async def _start_new(self) -> None:
        """Carry out the first effects of new tasks, for many submissions together."""
        while True:
            await self._has_new.wait()
            self._has_new.clear()
            new, self._new = self._new, []
            await self._carry_out(new)

    # ------------------------------------------------------------ timers

    async def _wake_due(self, task_ids: Collection[str]) -> None:
        """Wake the cached tasks that are due. A task that is not cached is left to the sweep."""
        due = []
        for held in self.processor.find_cached(task_ids):
            wake_at = held.task.wake_at
            if wake_at is not None and wake_at > self._clock.now():
                self._timers.wake(held.task.task_id, wake_at)
            elif wake_at is not None:
                due.append(held.task.task_id)
        if due:
            await self._prove_hearing(due)
            await self._apply_wake(await self.processor.evict_changed(due), due_only=True)

    async def wake(
        self, task_ids: Collection[str], *, restarted: Collection[str] = frozenset()
    ) -> None:
        """Load these tasks and wake them."""
        await self._handle(task_ids, {})
        await self._prove_hearing(task_ids)
        await self._apply_wake(task_ids, restarted=restarted)

    async def _wake_swept(self, task_ids: Collection[str]) -> None:
        """Wake overdue tasks that a sweep has found."""
        self._plugins.measure(Measure("swept_tasks", len(task_ids), {}))
        await undo_cancellation()
        await self.wake(task_ids)

    async def _prove_hearing(self, task_ids: Collection[str]) -> None:
        """Prove that no report waits, if a run of these tasks seems to exceed a time limit."""
        now, since = self._clock.now(), self._hearing.since
        if any(is_late(held.task, now, since) for held in self.processor.find_cached(task_ids)):
            await self._hearing.prove()

    async def _apply_wake(
        self,
        task_ids: Collection[str],
        *,
        due_only: bool = False,
        restarted: Collection[str] = frozenset(),
    ) -> None:
        now = self._clock.now()
        nodes = [
            (held.task, due_nodes(held.task, now) if due_only else held.task.records)
            for held in self.processor.find_cached(task_ids)
        ]
        silent = self._watch.silent(nodes)
        woke = Woke(
            silent,
            restarted=frozenset(restarted),
            due_only=due_only,
            heard_since=self._hearing.since,
            heard_until=now,
        )
        await self._handle((), {task_id: [woke] for task_id in task_ids})

    # ------------------------------------------------------------ losses

    async def declare_lost(self, worker_id: str) -> None:
        """Requeue the runs of a worker that has ended, when its reports are read."""
        await self._watch.declare_lost(worker_id)
        await within(self._cfg.heartbeat_hard_sec, self._until_reports_are_read, clock=self._clock)
        await self._handle_lost_workers([worker_id])

    async def _until_reports_are_read(self) -> None:
        """Return when the reports that are on the bus now have been read."""
        cfg, ends = self._cfg, dict[int, int]()
        ask = partial(self._bus.outstanding, cfg.events_topic, cfg.coordinators_group)
        while True:
            reports = await patiently(ask, clock=self._clock, what="read the offsets of reports")
            if reports is None:
                return
            ends = ends or dict(ends_of(reports))
            if all_read(ends, reports):
                return
            await self._clock.sleep(REPORTS_PAUSE_SEC)

    async def _handle_lost_workers(self, worker_ids: Collection[str]) -> None:
        """Wake every task of which a lost worker has a node.

        A worker that stopped in order is not logged as lost, but a report of its last runs may be
        lost.
        """
        lost = set(worker_ids)
        if missing := sorted(lost - self._watch.stopped):
            logger.warning(
                "Workers are lost: %s", ", ".join(missing), extra={"action": "workers_lost"}
            )
        async for task_ids in self._tasks_of(lost):
            await self.wake(task_ids)

    async def _handle_restarted_workers(self, worker_ids: Collection[str]) -> None:
        """Ask workers whose process is a new one about the runs that the old one has left."""
        async for task_ids in self._tasks_of(worker_ids):
            await self.wake(task_ids, restarted=worker_ids)

    async def _tasks_of(self, worker_ids: Collection[str]) -> AsyncIterator[list[str]]:
        """Yield the tasks with a node of one of these workers, first those in memory."""
        concerned = [
            held.task.task_id
            for held in self.processor.cached()
            if any(record.worker_id in worker_ids for record in held.task.records.values())
        ]
        if concerned:
            yield concerned
        async for task_ids in tasks_of(self._store, worker_ids):
            others = [task_id for task_id in task_ids if not self.processor.find_cached((task_id,))]
            if others:
                yield others

    async def _resend(self, lost: Mapping[str, Sequence[SentCommand]]) -> None:
        """Send lost commands again. Skip tasks that another coordinator has changed meanwhile: that
        one sends their commands.
        """
        unchanged = await self.processor.evict_changed(lost)
        if unchanged:
            count = sum(len(lost[task_id]) for task_id in unchanged)
            logger.warning(
                "%d command%s lost and sent again",
                count,
                " was" if count == 1 else "s were",
                extra={"action": "commands_lost"},
            )
            await self._handle(
                (), {task_id: [CommandsLost(lost[task_id])] for task_id in unchanged}
            )


def _starts_a_node(event: Event) -> TypeGuard[NodeStarted | NodeSucceeded]:
    """Return whether a report starts a node."""
    if isinstance(event, NodeSucceeded):
        return event.next is not None
    return isinstance(event, NodeStarted)


# ---------------------------------------------------------------- the sweep


async def sweep(store: Store, clock: Clock, tick_sec: float, wake: Wake) -> None:
    """Wake tasks that no coordinator woke when they were due, now and after each tick."""
    while True:
        await _wake_overdue(store, clock.now() - tick_sec, wake)
        await clock.sleep(tick_sec)


async def _wake_overdue(store: Store, before: float, wake: Wake) -> None:
    """Wake each task once. A quarantined task stays due, and does not hide the others."""
    woken: set[str] = set()
    still_due = 0
    while True:
        limit = MOST_AT_ONCE + still_due
        task_ids = await store.due(before=before, limit=limit)
        fresh = [task_id for task_id in task_ids if task_id not in woken]
        still_due = len(task_ids) - len(fresh)
        if fresh:
            await wake(fresh)
            woken.update(fresh)
        if len(task_ids) < limit:
            return
