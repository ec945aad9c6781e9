"""Life cycle of a worker: start, loops and shutdown."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskGroup

from flowkit._backends import Backends, metrics_server, topics_for
from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import keep_alive, owner_leaves
from flowkit._runtime.store_probe import why_unreadable
from flowkit._user_code.child_processes import child_processes, log_children
from flowkit._user_code.containment import error_text, loggable
from flowkit._user_code.threads import Calls, counted
from flowkit.config import WorkerConfig
from flowkit.errors import WorkerIdTaken
from flowkit.protocols import Bus, Clock, Store
from flowkit.worker._commands import Attempts, CommandInbox
from flowkit.worker._context import Services
from flowkit.worker._control import ControlInbox
from flowkit.worker._functions import allow_threads
from flowkit.worker._membership import Membership
from flowkit.worker._offers import Offers, Requests
from flowkit.worker._reports import ReportBuffer, ReportSender
from flowkit.worker._roles import Served
from flowkit.worker._run_log import other_loggers_kept
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

FLUSH_SEC = 10.0
"""Time in which a stopping worker tries to send its last reports."""
END_SESSION_SEC = 5.0
"""Time in which a stopping worker tries to end its session. A session that is not ended expires."""


class StopRequest:
    """Whether the worker was asked to stop, and the grace for its runs."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.grace_sec = float("inf")
        self._shortened = anyio.Event()

    def ask(self, grace_sec: float) -> None:
        """Ask for a stop. A second call may shorten the grace."""
        if grace_sec < self.grace_sec:
            self.grace_sec = grace_sec
            self._shortened.set()
        self.asked.set()

    async def wait_shortened(self) -> None:
        """Return when the grace is shortened."""
        await self._shortened.wait()

    async def in_grace(self, wait: Callable[[], Awaitable[object]], *, clock: Clock) -> bool:
        """Wait no longer than the grace, and return whether the wait has ended in time.

        A grace that is shortened meanwhile starts again.
        """
        while True:
            self._shortened = shortened = anyio.Event()
            if not await within(self.grace_sec, partial(_first, wait, shortened.wait), clock=clock):
                return False
            if not shortened.is_set():
                return True


async def drain(
    stop: StopRequest,
    *,
    slots: Slots,
    attempts: Attempts,
    sender: ReportSender,
    cfg: WorkerConfig,
    clock: Clock,
) -> float:
    """Let runs end or cut them off, and send their reports.

    Return the time until which functions that were cut off may go on.
    """

    async def idle() -> None:
        await slots.wait_until(lambda slots: slots.is_idle)

    attempts.end_all_segments()
    await attempts.hand_over_waiting()
    in_time = await stop.in_grace(idle, clock=clock)
    until = clock.monotonic() + cfg.cancel_grace_sec
    if not in_time:
        attempts.hand_back_running()
        if not await within(cfg.cancel_grace_sec + 1, idle, clock=clock):
            logger.warning(
                "%d runs ignore their cancellation and are abandoned",
                slots.running + slots.resting,
                extra={"action": "runs_left"},
            )
            attempts.abandon_running()
    if not await within(FLUSH_SEC, sender.flush, clock=clock):
        logger.warning(
            "Worker %s stops with unsent reports",
            attempts.worker_id,
            extra={"action": "reports_unsent"},
        )
    return until


async def let_threads_end(calls: Calls, stop: StopRequest, *, until: float, clock: Clock) -> None:
    """Wait for the threads of runs that were cut off, until this time or a shorter grace."""
    left_sec = until - clock.monotonic()
    if calls.names and stop.grace_sec > 0 and left_sec > 0:
        await within(
            left_sec,
            lambda: _first(calls.wait_until_quiet, stop.wait_shortened),
            clock=clock,
        )
    if calls.names:
        logger.warning(
            "%d functions still run in threads, until they return or the process ends: %s",
            len(calls.names),
            ", ".join(calls.names),
            extra={"action": "threads_left"},
        )


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them does."""
    async with anyio.create_task_group() as group:

        async def wait_for(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(wait_for, wait)


class WorkerService:
    """The task of a running worker. Its methods may be called from any task."""

    def __init__(
        self,
        *,
        worker_id: str,
        cfg: WorkerConfig,
        backends: Backends,
        served: Mapping[str, Served],
    ) -> None:
        self._worker_id = worker_id
        self._cfg = cfg
        self._backends = backends
        self._clock = backends.clock
        self._served = served
        self._store: Store | None = None
        self._ready = anyio.Event()
        self._stop = StopRequest()
        self._id_taken: WorkerIdTaken | None = None
        self.ended = anyio.Event()
        self.host = asyncio.create_task(self._run(), name=f"flowkit worker {worker_id}")
        self.host.add_done_callback(self._on_end)

    # ------------------------------------------------ called by the owner

    async def start(self) -> None:
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
        """Ask the worker to stop. A second call may shorten the grace."""
        self._stop.ask(grace)

    async def outcome(self) -> None:
        """Return when the worker has ended.

        Raises the error that ended it, if it ended before it was asked to stop.
        """
        await asyncio.wait({self.host})
        if not self.host.cancelled():
            self.host.result()
        elif not self._stop.asked.is_set():
            raise RuntimeError(f"the task of worker {self._worker_id} was cancelled by other code")

    # ------------------------------------------------ the task

    def _on_end(self, host: "asyncio.Task[None]") -> None:
        if (
            self._ready.is_set()
            and not host.cancelled()
            and (error := host.exception()) is not None
        ):
            logger.error(
                "Worker %s ended with an error: %s",
                self._worker_id,
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "worker_broken"},
            )
        self._ready.set()
        self.ended.set()

    async def _run(self) -> None:
        topics = topics_for(self._cfg, self._served)
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(
                metrics_server(
                    self._cfg,
                    self._backends.plugins,
                    client=None,
                    why_not_ready=self._why_not_ready,
                )
            )
            store, connection = await self._backends.open(opened, topics=topics)
            self._store = store
            await self._serve(store, await connection.connect(patience_sec=None))

    async def _why_not_ready(self) -> str | None:
        if self._store is None or not self._ready.is_set() or self._stop.asked.is_set():
            return "the worker is not started, or stops"
        return await why_unreadable(self._store, self._clock)

    async def _serve(self, store: Store, bus: Bus) -> None:
        cfg = self._cfg
        services = Services.on(
            store,
            bus,
            worker_id=self._worker_id,
            cfg=cfg,
            clock=self._clock,
            plugins=self._backends.plugins,
        )
        allow_threads(cfg.max_concurrency)
        with counted() as calls:
            slots_of_worker = Slots(cfg.max_concurrency)
        async with (
            _children_logged(f"worker {self._worker_id}"),
            other_loggers_kept(services.log_lines),
            slots_of_worker as slots,
            anyio.create_task_group() as group,
        ):
            membership = Membership(
                store=store,
                cfg=cfg,
                worker_id=self._worker_id,
                roles=tuple(self._served),
                running=lambda: slots.running,
                waiting=lambda: slots.resting,
                clock=self._clock,
            )
            parts = self._parts(bus, group=group, slots=slots, services=services)
            await membership.join()
            leaving = owner_leaves(group.cancel_scope)
            loops = {
                "control": parts.control.listen,
                "report": parts.sender.send_reports,
                "progress": parts.buffer.release_delayed,
                **services.loops(),
                "session": lambda: membership.keep_renewing(self._stop_without_id),
                "parking": parts.control.park_unusable,
                "offer": parts.offers.offer_runs,
                "request": parts.requests.request_runs,
                "command": parts.commands.listen,
            }
            for name, loop in loops.items():
                supervised = partial(
                    keep_alive,
                    f"worker's {name}",
                    loop,
                    clock=self._clock,
                    ending=leaving,
                    # A loop that breaks before the worker is ready fails the start.
                    once=lambda: not self._ready.is_set(),
                )
                group.start_soon(supervised, name=f"worker's {name}")
            await parts.control.ready.wait()
            await parts.commands.ready.wait()
            self._ready.set()
            logger.info(
                "Worker %s serves %s",
                self._worker_id,
                ", ".join(self._served),
                extra={"action": "worker_started"},
            )
            await self._stop.asked.wait()
            parts.commands.stop()
            parts.requests.stop()
            until = await drain(
                self._stop,
                slots=slots,
                attempts=parts.attempts,
                sender=parts.sender,
                cfg=cfg,
                clock=self._clock,
            )
            await let_threads_end(calls, self._stop, until=until, clock=self._clock)
            await services.log_lines.wait_all_stored()
            group.cancel_scope.cancel()
        if not self._stop.asked.is_set():
            raise RuntimeError(
                f"a loop of worker {self._worker_id} has ended, and the worker with it"
            )
        if parts.attempts.holds_keys:
            logger.warning(
                "Worker %s stops, and runs with concurrency keys go on: end its process. They keep"
                " their places until the worker counts as lost",
                self._worker_id,
                extra={"action": "session_left"},
            )
        elif not await within(END_SESSION_SEC, membership.leave, clock=self._clock):
            logger.warning(
                "Worker %s stops and its session is not ended",
                self._worker_id,
                extra={"action": "session_left"},
            )
        if self._id_taken is not None:
            raise self._id_taken
        logger.info("Worker %s stopped", self._worker_id, extra={"action": "worker_stopped"})

    def _parts(self, bus: Bus, *, group: TaskGroup, slots: Slots, services: Services) -> "_Parts":
        cfg, clock, worker_id = self._cfg, self._clock, self._worker_id
        buffer = ReportBuffer(topic=cfg.events_topic, worker_id=worker_id, clock=clock)
        attempts = Attempts(
            group, bus=bus, served=self._served, slots=slots, buffer=buffer, services=services
        )
        offers = Offers(
            bus=bus,
            topic=cfg.control_topic,
            worker_id=worker_id,
            attempts=attempts,
            clock=clock,
            longest_pause_sec=cfg.announce_interval_sec,
        )
        requests = Requests(
            bus=bus,
            topic=cfg.control_topic,
            worker_id=worker_id,
            served=self._served,
            attempts=attempts,
            group=group,
            slots=slots,
            clock=clock,
            remember_sec=2 * cfg.announce_interval_sec,
        )
        sender = ReportSender(bus=bus, buffer=buffer, on_end=attempts.close, clock=clock)
        parking = Parking(store=services.store, clock=clock, plugins=services.plugins)
        commands = CommandInbox(
            bus=bus,
            topics=[cfg.command_topic(role) for role in self._served],
            group=cfg.workers_group,
            max_concurrency=cfg.max_concurrency,
            served=self._served,
            attempts=attempts,
            on_busy=offers.open,
            slots=slots,
            sender=sender,
            parking=parking,
            clock=clock,
        )
        control = ControlInbox(
            bus=bus,
            topic=cfg.control_topic,
            worker_id=worker_id,
            attempts=attempts,
            offers=offers,
            requests=requests,
            watches=services.watches,
            readers=services.readers,
            buffer=buffer,
            parking=parking,
            clock=clock,
        )
        return _Parts(attempts, offers, requests, buffer, sender, commands, control)

    def _stop_without_id(self, error: WorkerIdTaken) -> None:
        """Hand back all runs and end with the error.

        Reports under this id would count as reports of the other worker.
        """
        logger.error(
            "Worker %s hands back its runs and stops: %s",
            self._worker_id,
            error,
            extra={"action": "worker_id_taken"},
        )
        self._id_taken = error
        self.stop(0)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a running worker that take messages in and send reports out."""

    attempts: Attempts
    offers: Offers
    requests: Requests
    buffer: ReportBuffer
    sender: ReportSender
    commands: CommandInbox
    control: ControlInbox


@contextlib.asynccontextmanager
async def _children_logged(owner: str) -> AsyncIterator[None]:
    """Log the child processes that were started inside this context and still run at its end."""
    others = child_processes()
    try:
        yield
    finally:
        log_children(owner, except_for=others)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
