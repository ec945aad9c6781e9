"""A worker between its start and its stop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio

from flowkit._codecs.bus_codec import sealed
from flowkit._codecs.store_codec import encoded
from flowkit._runtime.deadlines import within
from flowkit._runtime.supervision import keep_alive, owner_leaves
from flowkit._runtime.turns import Turns
from flowkit._user_code.child_processes import child_processes, log_children
from flowkit._user_code.containment import error_text, loggable
from flowkit._user_code.threads import Calls, counted
from flowkit.clock import StoreClock
from flowkit.config import WorkerConfig
from flowkit.errors import WorkerIdTaken
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, TopicSpec
from flowkit.worker._artifacts import ArtifactReader, ArtifactWriter
from flowkit.worker._claims import Claims
from flowkit.worker._functions import allow_threads
from flowkit.worker._handler_registry import Make
from flowkit.worker._inbox import Inbox
from flowkit.worker._listeners import CommandListener, ControlListener
from flowkit.worker._reports import Reporter
from flowkit.worker._services import Services
from flowkit.worker._session import Session
from flowkit.worker._slots import Slots
from flowkit.worker._streams import StreamHints, StreamWatches

logger = logging.getLogger(__name__)

MOST_TURNS = 20
"""Turns of the event loop between two batches: enough for the steps of a heartbeat."""
LAST_WORDS_SEC = 10.0
"""How long a worker that stops tries to tell what became of its runs."""
FAREWELL_SEC = 5.0
"""How long it then tries to say that it is gone; who is told nothing notices by its silence."""


class Life:
    """The task in which a worker lives, so that start and stop may be called from different
    ones.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        cfg: WorkerConfig,
        clock: Clock,
        plugins: Plugins,
        served: Mapping[str, Make],
        db: Any,
        bus: Bus | str | None,
        store: Store | None,
    ) -> None:
        self._worker_id = worker_id
        self._cfg = cfg
        self._clock = clock
        self._plugins = plugins
        self._served = served
        self._db = db
        self._bus = bus
        self._store = store
        self._ready = anyio.Event()
        self._stop_asked = anyio.Event()
        self._hurry = anyio.Event()
        self._grace = float("inf")
        self._taken: WorkerIdTaken | None = None
        self.ended = anyio.Event()
        self.host = asyncio.create_task(self._live(), name=f"flowkit worker {worker_id}")
        self.host.add_done_callback(self._on_end)

    async def begin(self) -> None:
        """Return when the worker takes commands."""
        try:
            await self._ready.wait()
        except BaseException:
            self.host.cancel()
            with anyio.CancelScope(shield=True), contextlib.suppress(asyncio.CancelledError):
                await self.host
            raise
        if self.host.done():
            try:
                await self.host
            except BaseExceptionGroup as group:
                raise _first_of(group) from None

    def stop(self, grace: float) -> None:
        """Ask it to end; asked again, with a shorter grace, it hurries."""
        if grace < self._grace:
            self._grace = grace
            self._hurry.set()
        self._stop_asked.set()

    async def outcome(self) -> None:
        """Return when the worker has ended.

        Raises what ended it, if it has ended before it was asked to.
        """
        await asyncio.wait({self.host})
        if not self.host.cancelled():
            self.host.result()
        elif not self._stop_asked.is_set():
            raise RuntimeError(f"the task of worker {self._worker_id} was cancelled by other code")

    def _name_taken(self, error: WorkerIdTaken) -> None:
        """Hand back all runs and end with the error: reports under this name would be taken for
        those of the other worker.
        """
        logger.error(
            "Worker %s hands back its runs and stops: %s",
            self._worker_id,
            error,
            extra={"action": "worker_id_taken"},
        )
        self._taken = error
        self.stop(0)

    def _on_end(self, host: "asyncio.Task[None]") -> None:
        if (
            self._ready.is_set()
            and not host.cancelled()
            and (error := host.exception()) is not None
        ):
            logger.error(
                "Worker %s has ended: %s",
                self._worker_id,
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "worker_broken"},
            )
        self._ready.set()
        self.ended.set()

    async def _live(self) -> None:
        cfg = self._cfg
        async with AsyncExitStack() as opened:
            store, bus = self._store, self._bus
            if store is None:
                store = await opened.enter_async_context(self._plugins.open_store(self._db, cfg))
            if isinstance(self._clock, StoreClock):
                await opened.enter_async_context(self._clock.following(store))
            if bus is None or isinstance(bus, str):
                bus = await opened.enter_async_context(
                    self._plugins.open_bus(bus or cfg.bus_address(self._db), cfg)
                )
            store, bus = encoded(store, self._plugins), sealed(bus, cfg, self._plugins)
            topics = [cfg.command_topic(role) for role in self._served]
            await bus.ensure_topics(
                [
                    *(TopicSpec(topic) for topic in topics),
                    TopicSpec(cfg.events_topic),
                    TopicSpec(cfg.control_topic, broadcast=True),
                    TopicSpec(cfg.dead_letter_topic),
                ]
            )
            await self._work(store, bus, topics)

    async def _work(self, store: Store, bus: Bus, topics: list[str]) -> None:
        cfg, clock = self._cfg, self._clock
        reader = ArtifactReader(store.artifacts, clock=clock)
        services = Services(
            worker_id=self._worker_id,
            cfg=cfg,
            clock=clock,
            store=store,
            plugins=self._plugins,
            claims=Claims(store.artifacts, worker_id=self._worker_id, clock=clock),
            writer=ArtifactWriter(store.artifacts, clock=clock),
            reader=reader,
            hints=StreamHints(bus=bus, topic=cfg.control_topic, clock=clock),
            watches=StreamWatches(),
            turns=Turns(least=1, most=MOST_TURNS),
        )
        reporter = Reporter(bus=bus, topic=cfg.events_topic, worker_id=self._worker_id, clock=clock)
        allow_threads(cfg.max_concurrency)
        with counted() as calls:
            slots_of_worker = Slots(cfg.max_concurrency)
        async with (
            _children_logged(f"worker {self._worker_id}"),
            slots_of_worker as slots,
            anyio.create_task_group() as group,
        ):
            session = Session(
                store=store,
                cfg=cfg,
                worker_id=self._worker_id,
                roles=tuple(self._served),
                running=lambda: slots.running,
                clock=clock,
            )
            inbox = Inbox(
                group, slots=slots, reporter=reporter, services=services, served=self._served
            )
            commands = CommandListener(
                bus=bus,
                topics=topics,
                group=cfg.workers_group,
                max_concurrency=cfg.max_concurrency,
                inbox=inbox,
                slots=slots,
                clock=clock,
            )
            control = ControlListener(bus=bus, topic=cfg.control_topic, inbox=inbox, clock=clock)
            await session.open()
            leaving = owner_leaves(group.cancel_scope)
            for name, loop in {
                "control": control.listen,
                "report": reporter.send_reports,
                "progress": reporter.send_late_progress,
                "artifact": services.writer.store_records,
                "claim": services.claims.write_claims,
                "hint": services.hints.send_hints,
                "session": lambda: session.keep_renewing(self._name_taken),
                "parking": inbox.keep_refused,
                "command": commands.listen,
            }.items():
                group.start_soon(self._keep_alive, name, loop, leaving)
            await control.ready.wait()
            await commands.ready.wait()
            self._ready.set()
            logger.info(
                "Worker %s serves %s",
                self._worker_id,
                ", ".join(self._served),
                extra={"action": "worker_started"},
            )
            await self._stop_asked.wait()
            commands.stop()
            until = await self._drain(slots, inbox, reporter)
            await self._let_threads_end(calls, until)
            group.cancel_scope.cancel()
        if not self._stop_asked.is_set():
            raise RuntimeError(
                f"a loop of worker {self._worker_id} has ended, and the worker with it"
            )
        if not await within(FAREWELL_SEC, session.end, clock=self._clock):
            logger.warning(
                "Worker %s stops without having ended its session",
                self._worker_id,
                extra={"action": "session_left"},
            )
        if self._taken is not None:
            raise self._taken
        logger.info("Worker %s stopped", self._worker_id, extra={"action": "worker_stopped"})

    async def _keep_alive(
        self, name: str, loop: Callable[[], Awaitable[None]], leaving: Callable[[], bool]
    ) -> None:
        """A loop that fails before the worker is ready fails the start; later it is restarted."""
        await keep_alive(
            f"worker's {name}",
            loop,
            clock=self._clock,
            ending=leaving,
            once=lambda: not self._ready.is_set(),
        )

    async def _drain(self, slots: Slots, inbox: Inbox, reporter: Reporter) -> float:
        """Let runs end or cut them off, and report it. Return until when functions that were cut
        off may go on.
        """
        await inbox.hand_over_waiting()
        in_time = await self._idle_in_time(slots)
        until = self._clock.monotonic() + self._cfg.cancel_grace_sec
        if not in_time:
            inbox.hand_back_running()
            if not await within(
                self._cfg.cancel_grace_sec + 1, lambda: _idle(slots), clock=self._clock
            ):
                logger.warning(
                    "%d runs do not end and are left behind",
                    slots.running,
                    extra={"action": "runs_left"},
                )
                inbox.abandon_running()
        if not await within(LAST_WORDS_SEC, reporter.flush, clock=self._clock):
            logger.warning(
                "Worker %s stops with reports unsent",
                self._worker_id,
                extra={"action": "reports_unsent"},
            )
        return until

    async def _let_threads_end(self, calls: Calls, until: float) -> None:
        """Wait for the threads of runs that were cut off."""
        left_sec = until - self._clock.monotonic()
        if calls.names and self._grace > 0 and left_sec > 0:
            await within(
                left_sec,
                lambda: _first(calls.wait_until_quiet, self._hurry.wait),
                clock=self._clock,
            )
        if calls.names:
            logger.warning(
                "%d functions still run in threads, until they return or the process ends: %s",
                len(calls.names),
                ", ".join(calls.names),
                extra={"action": "threads_left"},
            )

    async def _idle_in_time(self, slots: Slots) -> bool:
        while True:
            self._hurry = hurry = anyio.Event()
            if not await within(
                self._grace,
                lambda: _first(lambda: _idle(slots), self._hurry.wait),
                clock=self._clock,
            ):
                return False
            if not hurry.is_set():
                return True


@contextlib.asynccontextmanager
async def _children_logged(owner: str) -> AsyncIterator[None]:
    """Log the child processes that have started within this and still run when it ends."""
    others = child_processes()
    try:
        yield
    finally:
        log_children(owner, except_for=others)


async def _idle(slots: Slots) -> None:
    await slots.wait_until(lambda slots: slots.running == 0 and slots.queued == 0)


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them does."""
    async with anyio.create_task_group() as group:

        async def wait_for(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(wait_for, wait)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
