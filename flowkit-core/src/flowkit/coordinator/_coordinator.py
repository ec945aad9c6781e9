"""A coordinator's life: what it opens, which loops it runs, and how it ends."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import anyio

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._engine import (
    CallFunction,
    CommandsLost,
    Effect,
    EngineSettings,
    EvaluateCondition,
    Event,
    SendCancel,
    Woke,
)
from flowkit._records.task_records import Sent
from flowkit._runtime.lifecycle import Service, run_until_told
from flowkit._runtime.outage_notices import notices_of
from flowkit._runtime.supervision import keep_alive, owner_leaves
from flowkit._runtime.turns import Turns
from flowkit._tasks.event_processor import Applied, EventProcessor, Held, log_store_error
from flowkit._tasks.submission import Submission
from flowkit.client import Client
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._command_watch import CommandWatch
from flowkit.coordinator._conditions import Conditions
from flowkit.coordinator._function_calls import Calls
from flowkit.coordinator._outbox import Outbox
from flowkit.coordinator._report_inbox import read_reports
from flowkit.coordinator._retention import purge_regularly
from flowkit.coordinator._timers import Timers, sweep
from flowkit.coordinator._worker_watch import WorkerWatch, tasks_of
from flowkit.errors import StoreError
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, TopicSpec

logger = logging.getLogger(__name__)

LOOP_PAUSE_SEC = 1.0
STOP_SEC = 10.0
"""Seconds after a signal before the watchdog checks the event loop."""
TURNS = 4
"""Of the event loop: from here over the bus to a worker's slot."""


class Coordinator(Client, Service):
    """Decides what runs, and sees that it does. Any number of them may work on one store.

    It has the verbs of a :class:`~flowkit.client.Client`. ``db`` is turned into a store by the
    first plugin that knows it; a ``store`` or ``bus`` given as an object wins, and is entered and
    left by whoever gave it.
    """

    cfg: CoordinatorConfig

    def __init__(
        self,
        *,
        db: Any = None,
        cfg: CoordinatorConfig | None = None,
        bus: Bus | str | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        plugins: Collection[object] | Plugins | None = None,
    ) -> None:
        super().__init__(
            db=db,
            bus=bus,
            cfg=cfg or CoordinatorConfig(),
            store=store,
            clock=clock,
            plugins=plugins,
        )
        self._turns = Turns(least=TURNS, most=TURNS)
        self.coordinator_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect and begin to work; returns when ready."""
        await Service.start(self)

    async def stop(self) -> None:
        """Stop working. What is under way is recorded, and other coordinators go on with it."""
        await Service.stop(self)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def run(self) -> None:
        """Work until cancelled, or until SIGTERM or SIGINT; a second signal ends the process at
        once.

        If a signal ended this, the process is ended 10 seconds after the signal, but not before 3
        seconds after the return, unless it has ended by itself or runs a worker or coordinator
        again. Use ``async with`` to go on instead.
        """
        await run_until_told(
            name=f"Coordinator {self.coordinator_id}",
            start=self.start,
            ended=self.ended,
            stop=self.stop,
            hurry=self.hurry,
            host=lambda: self._serving,
            patience_sec=STOP_SEC,
        )

    @property
    def bus(self) -> Bus:
        """The bus, while this runs.

        Raises:
            NotRunning: it is not started, or is stopped.
        """
        self._check_running()
        return self._bus

    async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
        await self._connect()
        try:
            self._bus = bus = await self._connection.connect(patience_sec=None)
            await bus.ensure_topics(self._topics())
            async with (
                bus.subscribe(
                    [self.cfg.events_topic], group=self.cfg.coordinators_group
                ) as reports,
                anyio.create_task_group() as group,
            ):
                self._begin(group)
                store, parking = self._store, Parking(store=self._store, clock=self.clock)
                group.start_soon(
                    self._keep_up,
                    "inbox",
                    lambda: read_reports(
                        reports, parking, self.clock, self._handle, ending=self._leaving
                    ),
                )
                group.start_soon(self._keep_up, "beginning", self._begin_new)
                group.start_soon(
                    self._keep_up, "timers", lambda: self._timers.run(self._time_is_up)
                )
                group.start_soon(
                    self._keep_up,
                    "sweep",
                    lambda: sweep(store, self.clock, self.cfg.scheduler_tick_sec, self._wake),
                )
                group.start_soon(self._keep_up, "worker watch", lambda: self._watch.run(self._lost))
                group.start_soon(
                    self._keep_up, "command watch", lambda: self._commands.run(self._resend)
                )
                if (keep_sec := self.cfg.finished_retention_sec) is not None:
                    interval_sec = self.cfg.purge_interval_sec
                    purge = partial(
                        purge_regularly,
                        store,
                        self.clock,
                        keep_sec=keep_sec,
                        interval_sec=interval_sec,
                    )
                    group.start_soon(self._keep_up, "retention", purge)
                logger.info(
                    "Coordinator %s is ready",
                    self.coordinator_id,
                    extra={"action": "coordinator_ready"},
                )
                self._is_running = True
                ready()
                await stopping.wait()
                self._is_running = False
                group.cancel_scope.cancel()
            if not stopping.is_set():
                raise RuntimeError(
                    f"a loop of coordinator {self.coordinator_id} has ended, and the coordinator"
                    " with it"
                )
        finally:
            with anyio.CancelScope(shield=True):
                await Client.stop(self)
            logger.info(
                "Coordinator %s has stopped",
                self.coordinator_id,
                extra={"action": "coordinator_stopped"},
            )

    def _new_applier(self) -> EventProcessor:
        return EventProcessor(
            store=self._store,
            clock=self.clock,
            plugins=self.plugins,
            settings=self._settings,
            keep_nodes=self.cfg.max_cached_nodes,
            patience_sec=None,
        )

    def _begin(self, group: anyio.abc.TaskGroup) -> None:
        self._leaving = leaving = owner_leaves(group.cancel_scope)
        store, bus = self._store, self._bus
        self._commands = CommandWatch(
            bus=bus, clock=self.clock, config=self.cfg, processor=self._processor
        )
        self._outbox = Outbox(
            bus=bus,
            store=store,
            clock=self.clock,
            config=self.cfg,
            processor=self._processor,
            commands=self._commands,
        )
        self._timers = Timers(self.clock)
        self._new: list[tuple[Held, list[Effect]]] = []
        self._something_new = asyncio.Event()
        self._watch = WorkerWatch(store=store, clock=self.clock, config=self.cfg)
        self._calls = Calls(
            group=group,
            store=store,
            clock=self.clock,
            plugins=self.plugins,
            worker_id=self.coordinator_id,
            report=self._report,
            leaving=leaving,
        )
        self._conditions = Conditions(
            group=group, store=store, report=self._report, leaving=leaving
        )

    def _topics(self) -> list[TopicSpec]:
        return [
            TopicSpec(self.cfg.events_topic),
            TopicSpec(self.cfg.control_topic, broadcast=True),
            TopicSpec(self.cfg.dead_letter_topic),
            *(TopicSpec(self.cfg.command_topic(role)) for role in self.cfg.worker_types),
        ]

    def _engine_settings(self) -> EngineSettings:
        return replace(super()._engine_settings(), sends=True)

    async def _keep_up(self, name: str, loop: Callable[[], Any]) -> None:
        """Run a loop again and again. It waits while the store is away, and nothing that it calls
        ends it.
        """

        async def repeat() -> None:
            while True:
                try:
                    await loop()
                except StoreError as error:
                    log_store_error(logger, notices_of(self.clock), error)
                await self.clock.sleep(LOOP_PAUSE_SEC)

        await keep_alive(f"coordinator's {name}", repeat, clock=self.clock, ending=self._leaving)

    # ------------------------------------------------------------ work

    async def _handle(
        self, touched: Collection[str], events: Mapping[str, Sequence[Event]]
    ) -> None:
        """Take in hints and reports, and carry out what comes of them."""
        if touched:
            await self._carry_out(await self._processor.look(touched))
        if events:
            await self._carry_out(await self._processor.apply(events))

    async def _carry_out(self, applied: Applied) -> None:
        for held, _ in applied.effects:
            if held.task.wake_at is not None:
                self._timers.add(held.task.task_id, held.task.wake_at)
        for held, effect in await self._outbox.carry_out(applied.effects):
            match effect:
                case CallFunction(index, attempt):
                    self._calls.begin(held.task, index, attempt)
                case EvaluateCondition(index):
                    self._conditions.begin(held.task, index)
                case SendCancel(index, attempt):
                    self._calls.cancel(held.task, index, attempt)

    async def _report(self, task_id: str, event: Event) -> None:
        await self._handle((), {task_id: [event]})

    async def _time_is_up(self, task_ids: Collection[str]) -> None:
        """Look at those of these tasks whose time has not moved meanwhile. One that is held no
        longer is left to the sweep.
        """
        due = []
        for held in self._processor.held_of(task_ids):
            wake_at = held.task.wake_at
            if wake_at is not None and wake_at > self.clock.now():
                self._timers.add(held.task.task_id, wake_at)
            elif wake_at is not None:
                due.append(held.task.task_id)
        if due:
            await self._woke(await self._processor.forget_changed(due))

    async def _wake(self, task_ids: Collection[str]) -> None:
        """It is time to look at these tasks, whoever did so before."""
        await self._handle(task_ids, {})
        await self._woke(task_ids)

    async def _woke(self, task_ids: Collection[str]) -> None:
        silent = self._watch.silent(held.task for held in self._processor.held_of(task_ids))
        await self._handle((), {task_id: [Woke(silent)] for task_id in task_ids})

    async def _lost(self, worker_ids: Collection[str]) -> None:
        """Workers are lost: look at every task that one of them has a node of, first at those in
        memory.

        One that stopped in order is no loss; but a report of its last runs may be.
        """
        lost = set(worker_ids)
        if missing := sorted(lost - self._watch.stopped):
            logger.warning("Lost: %s", ", ".join(missing), extra={"action": "workers_lost"})
        concerned = [
            held.task.task_id
            for held in self._processor.held()
            if any(record.worker_id in lost for record in held.task.records.values())
        ]
        if concerned:
            await self._wake(concerned)
        async for task_ids in tasks_of(self._store, lost):
            others = [task_id for task_id in task_ids if not self._processor.held_of((task_id,))]
            if others:
                await self._wake(others)

    async def _resend(self, lost: Mapping[str, Sequence[Sent]]) -> None:
        """Commands are lost. Those of tasks that others have changed meanwhile are for those to
        look after.
        """
        mine = await self._processor.forget_changed(lost)
        if mine:
            logger.warning(
                "%d commands were lost and are sent again",
                sum(len(lost[task_id]) for task_id in mine),
                extra={"action": "commands_lost"},
            )
            await self._handle(
                (), {task_id: [CommandsLost(tuple(lost[task_id]))] for task_id in mine}
            )

    async def _submitted(self, submissions: Sequence[Submission], stored: Sequence[str]) -> None:
        """Begin tasks that are new at once. Whoever gets their reports goes on with them from
        there.
        """
        mine = [one for one in submissions if one.certainly_new]
        if mine:
            self._new += [
                (self._processor.adopt(one.task, one.record), one.effects) for one in mine
            ]
            self._something_new.set()
            # A program may end right after it has submitted, or submit in a tight loop.
            await self._turns.give()
        others = {
            task_id: one.task.spec.trace
            for one, task_id in zip(submissions, stored, strict=True)
            if not one.certainly_new
        }
        if others:
            await self._touch(others)

    async def _begin_new(self) -> None:
        """Carry out what tasks that were submitted here begin with; those of many submissions go
        together.
        """
        while True:
            await self._something_new.wait()
            self._something_new.clear()
            new, self._new = self._new, []
            await self._carry_out(Applied(effects=new))

    async def _change(self, task_id: str, event: Event) -> None:
        self._check_running()
        applied = await self._apply(task_id, event)
        await self._carry_out(applied)
        await self._touch(
            {task_id: next((held.task.spec.trace for held, _ in applied.effects), None)}
        )
