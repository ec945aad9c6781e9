"""Figures about an installation, which are read from its store."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from flowkit import FlowKitError, QueueView, TaskStatus, TriggerView, WorkerView
from flowkit_telemetry._label_values import LabelValues

MOST = 1_000
"""Number at which counting stops."""
FRESH_SEC = 15.0
READ_SEC = 4.0
"""Time in which the figures are read. After it, the store counts as unavailable."""

Values = Mapping[tuple[str, ...], float]
"""Values of a gauge by those of its labels."""
Figures = Mapping[str, Values]
"""Gauges by name."""
_NO_LABELS = ()
UNAVAILABLE: Figures = {"flowkit_store_up": {_NO_LABELS: 0.0}}


class FigureReader:
    """Reader of the figures, which reads them at most every 15 seconds."""

    def __init__(self, client: Any) -> None:
        """``client`` is a client or a coordinator, which may not be started yet."""
        self._client = client
        self._labels = LabelValues()
        self._lock = asyncio.Lock()
        self._figures: Figures = {}
        self._read_at = -math.inf
        self._failures = 0

    async def read(self) -> Figures:
        """Return the figures; without the store, only that it is unavailable."""
        failures = self._failures
        async with self._lock:
            if self._failures > failures:
                return UNAVAILABLE
            now = self._client.clock.monotonic()
            if now - self._read_at >= FRESH_SEC:
                try:
                    async with asyncio.timeout(READ_SEC):
                        self._figures = dict([figure async for figure in self._all()])
                    self._read_at = now
                except (FlowKitError, TimeoutError):
                    self._failures += 1
                    return UNAVAILABLE
            return self._figures

    async def _all(self) -> Any:
        client = self._client
        yield (
            "flowkit_open_tasks",
            {
                (status.value,): float(await client.count_tasks(status=status, most=MOST))
                for status in TaskStatus
                if not status.terminal
            },
        )
        retrying = await client.count_tasks(retrying=True, most=MOST)
        yield "flowkit_retrying_tasks", {_NO_LABELS: float(retrying)}
        workers = await client.workers()
        for figure in self._of_queues(await client.queues(), workers):
            yield figure
        for figure in self._of_workers(workers):
            yield figure
        yield "flowkit_trigger_behind", self._of_triggers(await client.list_triggers(behind=True))
        coordinators = [one for one in await client.coordinators() if not one.silent]
        yield "flowkit_coordinators", {_NO_LABELS: float(len(coordinators))}
        yield "flowkit_store_up", {_NO_LABELS: 1.0}

    def _of_queues(
        self, queues: list[QueueView], workers: list[WorkerView]
    ) -> Iterator[tuple[str, Values]]:
        now, bounded = self._client.clock.now_dt(), self._labels.bounded
        served = {bounded("role", role) for one in workers for role in one.roles}
        depths, oldest = dict.fromkeys(served, 0.0), dict.fromkeys(served, 0.0)
        for queue in queues:
            role = bounded("role", queue.role)
            age_sec = (now - queue.oldest_at).total_seconds()
            depths[role] = depths.get(role, 0.0) + queue.waiting
            oldest[role] = max(oldest.get(role, 0.0), age_sec)
        yield "flowkit_queue_depth", {(role,): value for role, value in depths.items()}
        yield "flowkit_queue_oldest_seconds", {(role,): value for role, value in oldest.items()}

    def _of_triggers(self, triggers: list[TriggerView]) -> Values:
        behind: dict[tuple[str, ...], float] = {}
        for one in triggers:
            if one.behind is not None and not one.paused:
                values = (self._labels.bounded("trigger", one.id),)
                behind[values] = behind.get(values, 0.0) + one.behind
        return behind

    def _of_workers(self, workers: list[WorkerView]) -> Iterator[tuple[str, Values]]:
        live = [one for one in workers if not one.silent]
        roles = Counter(self._labels.bounded("role", role) for one in live for role in one.roles)
        yield "flowkit_workers", {(role,): float(count) for role, count in roles.items()}
        yield "flowkit_silent_workers", {_NO_LABELS: float(len(workers) - len(live))}
        yield "flowkit_worker_slots", {_NO_LABELS: float(sum(one.slots for one in live))}
        yield "flowkit_worker_runs", {_NO_LABELS: float(sum(one.running for one in live))}
        yield "flowkit_worker_waiting_runs", {_NO_LABELS: float(sum(one.waiting for one in live))}
