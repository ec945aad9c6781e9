"""The coordinator: its life cycle."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio

from flowkit._backends import Backends, coordinator_topics, metrics_server
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.lifecycle import LifeState
from flowkit._runtime.services import Service, run_until_signalled
from flowkit._runtime.store_probe import why_unreadable
from flowkit._tasks.event_processor import EventProcessor
from flowkit.client import TaskVerbs
from flowkit.client._hints import Hints
from flowkit.client._session import Session, engine_settings, new_lifecycle
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._scheduler import Scheduler
from flowkit.coordinator._shared_resources import SharedResources
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store

logger = logging.getLogger(__name__)

STOP_SEC = 10.0
"""Seconds after a signal before the watchdog checks the event loop."""
KEEP_SETTLED_SEC = 60.0
"""Tasks that have finished stay in memory for this time, for callers that wait for them."""


class Coordinator(TaskVerbs):
    """Decides which nodes run, and dispatches them to workers. Any number of coordinators may share
    one store.

    It has the verbs of a :class:`~flowkit.client.Client`. The first plugin that knows ``db`` opens
    it as a store. A ``store`` or ``bus`` that is given as an object wins; the caller enters and
    leaves it.
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
        self.cfg = cfg or CoordinatorConfig()
        self._backends = Backends.of(
            cfg=self.cfg, db=db, bus=bus, store=store, clock=clock, plugins=plugins
        )
        self.clock = self._backends.clock
        self.plugins = self._backends.plugins
        self.coordinator_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._settings = replace(
            engine_settings(self.cfg), sends=True, publishes=self.cfg.publish_changes
        )
        self._life = new_lifecycle(self)
        self._service = Service(type(self).__name__, self._serve)

    async def start(self) -> None:
        """Connect and start to work; return when ready."""
        await self._service.start()

    async def stop(self) -> None:
        """Stop. What is in progress is recorded, and other coordinators continue it."""
        await self._service.stop()

    async def run(self) -> None:
        """Work until cancelled, or until SIGTERM or SIGINT; a second signal ends the process at
        once.

        If a signal ended this, the process is ended 10 seconds after the signal, but not before 3
        seconds after the return, unless it has ended by itself or runs a worker or coordinator
        again. Use ``async with`` in a program that continues.
        """
        await run_until_signalled(
            name=f"Coordinator {self.coordinator_id}",
            start=self.start,
            wait_ended=self._service.wait_ended,
            stop=self.stop,
            abort=self._service.abort,
            task=lambda: self._service.task,
            patience_sec=STOP_SEC,
        )

    async def declare_lost(self, worker_id: str) -> None:
        """Run the nodes of a worker elsewhere, without the wait for its heartbeats to stop.

        Call it when the process of the worker has ended, and before another worker with this id
        starts. The attempts of its nodes count as failed with ``worker_lost``, unless a report of
        their end is on the bus. Of a worker that is still alive, the first success counts, as after
        a long silence.

        Raises:
            NotRunning: this is not started, or is stopped.
            StoreUnavailable: the store is unavailable; call it again.
        """
        self._life.check_open()
        await self._scheduler.declare_lost(worker_id)

    @property
    def bus(self) -> Bus:
        """The bus, while this is open.

        Raises:
            NotRunning: this is not started, or is stopped.
        """
        return self._life.resource.connection.bus

    async def _why_not_ready(self) -> str | None:
        if self._life.state is not LifeState.OPEN:
            return "the coordinator is not started, or stops"
        return await why_unreadable(self.store, self.clock)

    async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                metrics_server(
                    self.cfg, self.plugins, client=self, why_not_ready=self._why_not_ready
                )
            )
            store, connection = await self._backends.open(
                stack, topics=coordinator_topics(self.cfg)
            )
            shared = SharedResources(self._backends.effective_config)
            stack.push_async_callback(shared.close)
            resources = stack.pop_all()
        try:
            bus = await connection.connect(patience_sec=None)
            async with (
                bus.subscribe(
                    [self.cfg.events_topic], group=self.cfg.coordinators_group
                ) as reports,
                anyio.create_task_group() as group,
            ):
                self._scheduler = scheduler = self._new_scheduler(group, store, connection, shared)
                scheduler.start(group, reports)
                self._life.open(self._session(store, connection, scheduler))
                logger.info(
                    "Coordinator %s is ready",
                    self.coordinator_id,
                    extra={"action": "coordinator_ready"},
                )
                ready()
                await stopping.wait()
                self._life.close()
                group.cancel_scope.cancel()
            await scheduler.leave()
            if not stopping.is_set():
                raise RuntimeError(
                    f"a loop of coordinator {self.coordinator_id} has ended, and the coordinator"
                    " with it"
                )
        finally:
            self._life.close()
            with anyio.CancelScope(shield=True):
                await resources.aclose()
            logger.info(
                "Coordinator %s has stopped",
                self.coordinator_id,
                extra={"action": "coordinator_stopped"},
            )

    def _new_scheduler(
        self,
        group: anyio.abc.TaskGroup,
        store: Store,
        connection: BusConnection,
        resources: SharedResources,
    ) -> Scheduler:
        return Scheduler(
            group=group,
            coordinator_id=self.coordinator_id,
            cfg=self.cfg,
            clock=self.clock,
            plugins=self.plugins,
            store=store,
            bus=connection.bus,
            hints=Hints(
                connection=connection,
                topic=self.cfg.events_topic,
                control_topic=self.cfg.control_topic,
                clock=self.clock,
            ),
            processor=EventProcessor(
                store=store,
                clock=self.clock,
                plugins=self.plugins,
                settings=self._settings,
                keep_nodes=self.cfg.max_cached_nodes,
                keep_settled_sec=min(
                    KEEP_SETTLED_SEC, self.cfg.finished_retention_sec or KEEP_SETTLED_SEC
                ),
                patience_sec=None,
            ),
            resources=resources,
        )

    def _session(self, store: Store, connection: BusConnection, scheduler: Scheduler) -> Session:
        return Session(
            cfg=self.cfg,
            clock=self.clock,
            plugins=self.plugins,
            store=store,
            connection=connection,
            processor=scheduler.processor,
            dispatcher=scheduler,
            life=self._life,
        )
