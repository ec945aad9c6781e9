"""Lags of triggers: how many of their events wait for a task."""

import logging
import math
from collections.abc import Sequence

import anyio

from flowkit._records.trigger_records import EVENT_KIND, StoredTrigger, prefix_of
from flowkit._runtime.concurrency import within
from flowkit.config import CommonConfig
from flowkit.errors import FlowKitError
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, RecordStore

logger = logging.getLogger(__name__)

MOST = 1_000
"""Number at which the counting of ends of tasks stops."""
FRESH_SEC = 5.0
"""Time for which a lag is used again, so that many readers do not load the sources."""
PATIENCE_SEC = 2.0


class TriggerLags:
    """Reader of the lags of triggers. It asks each source at most every five seconds."""

    def __init__(self, *, plugins: Plugins, cfg: CommonConfig, clock: Clock) -> None:
        self._plugins = plugins
        self._cfg = cfg
        self._clock = clock
        self._lock = anyio.Lock()
        self._read: dict[str, int | None] = {}
        """The lags that were read last, by the group of the trigger."""
        self._read_at = -math.inf

    async def of(
        self, triggers: Sequence[StoredTrigger], records: RecordStore
    ) -> Sequence[int | None]:
        """Return the lag of each trigger, None if its source does not answer."""
        groups = [one.group_in(self._cfg.namespace) for one in triggers]
        async with self._lock:
            now = self._clock.monotonic()
            if now - self._read_at >= FRESH_SEC:
                self._read, self._read_at = {}, now
            async with anyio.create_task_group() as tasks:
                for group, one in zip(groups, triggers, strict=True):
                    if group not in self._read:
                        tasks.start_soon(self._ask, group, one, records)
            return [self._read[group] for group in groups]

    async def _ask(self, group: str, one: StoredTrigger, records: RecordStore) -> None:
        self._read[group] = None

        async def ask() -> None:
            self._read[group] = await self._count(one, records)

        try:
            await within(PATIENCE_SEC, ask, clock=self._clock)
        except FlowKitError as error:
            logger.debug(
                "The lag of trigger %s is not known: %s",
                one.trigger.id,
                error.fault,
                extra={"action": "trigger_lag_unknown", "trigger_id": one.trigger.id},
            )

    async def _count(self, one: StoredTrigger, records: RecordStore) -> int:
        if one.is_read:
            return await events_behind(one, self._plugins, self._cfg)
        prefix = prefix_of(one.trigger.id, one.token)
        return len(await records.scan(EVENT_KIND, prefix=prefix, limit=MOST))


async def events_behind(stored: StoredTrigger, plugins: Plugins, cfg: CommonConfig) -> int:
    """Ask the source of a trigger, which is that of a plugin, how many events wait."""
    source = plugins.open_trigger(stored.trigger.source, cfg)
    return await source.behind(stored.group_in(cfg.namespace), since=stored.since)
