"""The sources of triggers that a coordinator reads: it makes a task for each of their events."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import anyio
from anyio.abc import TaskGroup

from flowkit._json.limits import LAST_MOMENT
from flowkit._records.trigger_records import KIND, StoredTrigger, decode_trigger
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import keep_alive, notices_of, patiently
from flowkit.client._trigger_runs import TriggerRuns
from flowkit.config import CoordinatorConfig
from flowkit.errors import BusError, ConfigError, CorruptRecord, PluginError
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Delivery, EventStream, Store

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 100
"""Events whose tasks are made together."""
MOST_TRIGGERS = 1_000
PAUSE_SEC = 5.0
"""Pause before a source that is unavailable is opened again."""


class TriggerSources:
    """Reads the sources of triggers, one reader for each trigger. Each coordinator runs one.

    An event is acknowledged after its task is stored. It is read no faster than that, and what
    waits stays in the source.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        plugins: Plugins,
        cfg: CoordinatorConfig,
        runs: TriggerRuns,
        leaving: Callable[[], bool],
    ) -> None:
        """Readers run in this task group until ``leaving`` returns True."""
        self._group = group
        self._records = store.records
        self._clock = clock
        self._plugins = plugins
        self._cfg = cfg
        self._runs = runs
        self._leaving = leaving
        self._changed = asyncio.Event()
        self._readers: dict[str, anyio.CancelScope] = {}
        """Readers that run, by the group in which they share events."""

    def wake(self) -> None:
        """Read the triggers again: one was put, resumed or deleted."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def run(self) -> None:
        """Start and stop readers as triggers come and go."""
        while True:
            changed = self._changed
            wanted = await self._wanted()
            for group in self._readers.keys() - wanted.keys():
                self._readers[group].cancel()
            for group in wanted.keys() - self._readers.keys():
                self._start(group, wanted[group])
            await within(self._cfg.scheduler_tick_sec, changed.wait, clock=self._clock)

    async def _wanted(self) -> Mapping[str, StoredTrigger]:
        wanted: dict[str, StoredTrigger] = {}
        for record in await self._records.due(KIND, before=LAST_MOMENT, limit=MOST_TRIGGERS):
            try:
                stored = decode_trigger(record)
            except CorruptRecord as error:
                notices_of(self._clock).trouble(
                    logger,
                    ("trigger", record.key),
                    "A source cannot be read",
                    error,
                    action="trigger_damaged",
                )
            else:
                wanted[stored.group_in(self._cfg.namespace)] = stored
        return wanted

    def _start(self, group: str, stored: StoredTrigger) -> None:
        scope = self._readers[group] = anyio.CancelScope()
        name = f"reader of trigger {stored.trigger.id}"

        async def run() -> None:
            try:
                with scope:
                    await keep_alive(
                        name,
                        partial(self._read_again, group, stored),
                        clock=self._clock,
                        ending=lambda: scope.cancel_called or self._leaving(),
                    )
            finally:
                del self._readers[group]

        self._group.start_soon(run, name=name)

    # ------------------------------------------------------------ one reader

    async def _read_again(self, group: str, first: StoredTrigger) -> None:
        """Read events until the trigger is gone. Open the source again after it was unavailable."""
        trigger, notices = first.trigger, notices_of(self._clock)
        while True:
            try:
                source = self._plugins.open_trigger(trigger.source, self._cfg)
                async with source.subscribe(group, since=first.since) as stream:
                    await self._read(group, first.trigger.id, stream)
                return
            except (BusError, ConfigError, PluginError) as error:
                notices.trouble(
                    logger,
                    ("source", trigger.id),
                    f"The source of trigger {trigger.id} cannot be read",
                    error,
                    action="source_unavailable",
                )
            await self._clock.sleep(PAUSE_SEC)

    async def _read(self, group: str, trigger_id: str, stream: EventStream) -> None:
        """Make the tasks of events, and acknowledge these, until the trigger is gone."""
        notices = notices_of(self._clock)
        while True:
            deliveries = await stream.receive(max_messages=MOST_AT_ONCE)
            notices.over(logger, ("source", trigger_id))
            stored = await self._unpaused(group, trigger_id)
            if stored is None:
                return
            await self._make(stored, deliveries)
            await stream.ack(deliveries)

    async def _make(self, stored: StoredTrigger, deliveries: Sequence[Delivery]) -> None:
        await patiently(
            partial(self._runs.make_read, stored, deliveries),
            clock=self._clock,
            what="make the tasks of triggers",
        )

    async def _unpaused(self, group: str, trigger_id: str) -> StoredTrigger | None:
        """Return the trigger as it is stored, once it is not paused; None if it is gone or has
        another source.
        """
        while True:
            changed = self._changed
            found = await patiently(
                partial(self._runs.triggers, [trigger_id]),
                clock=self._clock,
                what="read the triggers",
            )
            stored = found.get(trigger_id)
            if stored is None or stored.group_in(self._cfg.namespace) != group:
                return None
            if not stored.paused:
                return stored
            await within(self._cfg.scheduler_tick_sec, changed.wait, clock=self._clock)
