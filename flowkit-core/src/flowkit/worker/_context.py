"""Context of runs: the handler's access to its run, and the services that all runs share."""

import inspect
import logging
import os
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import Any, Self, TypeVar

import anyio
from pydantic_core import from_json

from flowkit._records.queries import check_complete
from flowkit._runtime.concurrency import Turns
from flowkit._tasks.evaluation import Evaluations
from flowkit._user_code.containment import awaited, loggable
from flowkit.clock import SystemClock
from flowkit.config import WorkerConfig
from flowkit.errors import RunCancelled, TaskNotFound
from flowkit.messages import RunNode, Source
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, Stream
from flowkit.worker._artifacts import (
    ArtifactReader,
    ArtifactWriter,
    Claims,
    StreamHints,
    StreamWatches,
    stream_of,
)
from flowkit.worker._kept_back import LateRuns
from flowkit.worker._log_lines import LogLines
from flowkit.worker._run_log import RunLog, RunPlace, keep_other_loggers
from flowkit.worker._stream_readers import Readings, StreamReaders
from flowkit.worker._subprocesses import run_process
from flowkit.worker._task_params import TaskParamsCache

T = TypeVar("T")
_first_use_of_log = threading.Lock()
"""Held while a run gets its log: several threads of a handler may use it first."""
MAX_TURNS = 20
"""Turns of the event loop between two batches: enough for the steps of a heartbeat."""


class RunArtifacts:
    """The artifacts that a handler may read: those of its own node and of the node's parents."""

    def __init__(
        self,
        reader: ArtifactReader,
        command: RunNode,
        sources: Callable[[], Awaitable[Sequence[Source]]],
        latest_sources: Callable[[], Awaitable[Sequence[Source]]],
    ) -> None:
        self._reader = reader
        self._command = command
        self.store_own: Callable[[], Awaitable[None]] | None = None
        """Stores what the run has kept back of its own artifacts."""
        self._sources = sources
        self._latest_sources = latest_sources

    async def read(self, node_id: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield the stored artifacts of a parent, or of this node, in order.

        An artifact is the ``artifacts_ref`` of the handler that stored it.

        Raises:
            ValueError: the node is not a parent of this one.
            NodeFailure: ``artifact_lost``; an artifact that was stored is missing.
        """
        command = self._command
        own = stream_of(command)
        source = None
        if node_id is not None and node_id not in (command.node_id, own.node_id):
            source = await self._source(node_id)
        if source is None:
            if self.store_own is not None:
                await self.store_own()
            stream = own
        else:
            stream = Stream(command.task_id, source.node_id, source.generation)
        batches = 0
        async for record in self._reader.records(stream, kept=source.kept if source else ()):
            batches += record.partial
            meta = self._reader.meta(record)
            if meta is not None:
                yield meta
        if source is not None:
            check_complete(stream, stored=source.batches, found=batches)

    async def _source(self, node_id: str) -> Source:
        """Return the stream of a parent.

        If it had not ended when the command was issued, it is loaded again, because it may have
        ended since.
        """
        found = _named(node_id, await self._sources())
        if found is None:
            raise ValueError(
                f"node {self._command.node_id!r} can read its own artifacts and those of its"
                f" parents; {node_id!r} is not one of them"
            )
        if found.ended:
            return found
        with suppress(TaskNotFound):  # the outcome of a deleted task is ignored
            latest = _named(node_id, await self._latest_sources())
            if latest is not None and latest.generation == found.generation:
                return latest
        return found


def _named(node_id: str, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if source.node_id == node_id), None)


class _Done:
    """The result of :meth:`RunContext.heartbeat`. It may be awaited and returns at once."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_done = _Done()


@dataclass(slots=True)
class _RunState:
    """State of a run that all its contexts share."""

    params: Mapping[str, Any] | bytes
    cancel_reason: str | None = None
    cancelled: bool = False
    scopes: set[anyio.CancelScope] = field(default_factory=set)
    stops: list[Callable[[], None]] = field(default_factory=list)
    cleanups: list[Callable[[], Any]] = field(default_factory=list)


class RunContext:
    """One attempt of a node, for its handler. Tests may create one directly."""

    def __init__(
        self,
        *,
        task_id: str,
        node_id: str,
        attempt: int = 1,
        worker_id: str = "",
        params: Mapping[str, Any] | None = None,
        vars: Mapping[str, Any] | None = None,  # noqa: A002 - its name in graphs and conditions
        results: Mapping[str, Any] | None = None,
        errors: Mapping[str, Mapping[str, Any]] | None = None,
        clock: Clock | None = None,
        artifacts: RunArtifacts | None = None,
        progress: Any = None,
        report: Callable[[Any], None] | None = None,
        log_lines: LogLines | None = None,
    ) -> None:
        self.task_id = task_id
        self.node_id = node_id
        # The log refers to it and not to this object, so that no circle of references is left.
        self._place = RunPlace(task_id, node_id, attempt)
        self.worker_id = worker_id
        self._state = _RunState(params if params is not None else {})
        self.vars = vars if vars is not None else {}
        self.results = results if results is not None else {}
        """Results of the parents and of the nodes that its expressions read, by node id."""
        self.errors = errors if errors is not None else {}
        """``reason_code``, ``error`` and ``attempt`` of the parents that failed, by node id."""
        self.clock = clock or SystemClock()
        self.progress = progress
        """The progress that the last attempt reported."""
        self._artifacts = artifacts
        self._report = report
        self._log_lines = log_lines
        self._log: RunLog | None = None

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return self._place.attempt

    @attempt.setter
    def attempt(self, attempt: int) -> None:
        self._place.attempt = attempt

    @property
    def batch_uid(self) -> str | None:
        """Batch that is being processed, if the node works in batches."""
        return self._place.batch_uid

    @batch_uid.setter
    def batch_uid(self, batch_uid: str | None) -> None:
        self._place.batch_uid = batch_uid

    @property
    def params(self) -> Mapping[str, Any]:
        """The params of the task."""
        params = self._state.params
        if isinstance(params, bytes):
            params = self._state.params = dict(from_json(params))
        return params

    @params.setter
    def params(self, params: Mapping[str, Any] | bytes) -> None:
        """Set the params. As JSON, they are decoded when they are first read."""
        self._state.params = params

    @property
    def artifacts(self) -> RunArtifacts:
        """The artifacts that this node and its parents have stored so far."""
        if self._artifacts is None:
            raise RuntimeError("this context has no artifacts: it was created without them")
        return self._artifacts

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the ids of the run. The worker keeps its lines in the store,
        for :meth:`flowkit.Client.logs`.
        """
        return self._run_log

    def heartbeat(self, progress: Any = None) -> Awaitable[None]:
        """Report that the run is alive, and its progress.

        This may be called from any thread, and need not be awaited.

        The worker sends at most a few reports a second; the last one is always sent.
        """
        if self._report is not None:
            self._report(progress)
        return _done

    # ------------------------------------------------ cancellation

    @property
    def cancel_reason(self) -> str | None:
        """The reason of the cancellation, if the run was cancelled."""
        return self._state.cancel_reason

    def cancelled(self) -> bool:
        """Return whether the run was cancelled. It is cut off after the grace period."""
        return self._state.cancelled

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelled if the run was cancelled."""
        if self._state.cancelled:
            raise RunCancelled(self.cancel_reason or "the run was cancelled")

    async def cancellable(self, awaitable: Awaitable[T]) -> T:
        """Await ``awaitable``, and cancel it as soon as the run is cancelled.

        Raises:
            RunCancelled: the run was cancelled.
        """
        if self._state.cancelled:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            self.raise_if_cancelled()
        with anyio.CancelScope() as scope:
            self._state.scopes.add(scope)
            try:
                return await awaitable
            finally:
                self._state.scopes.discard(scope)
        raise RunCancelled(self.cancel_reason or "the run was cancelled")

    async def run_subprocess(
        self,
        *cmd: str,
        input: bytes | None = None,  # noqa: A002 - as in the standard library
        cwd: "str | os.PathLike[str] | None" = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> CompletedProcess[bytes]:
        """Run a program in a process group of its own and return its output.

        When the run is cancelled, the group gets SIGTERM, and SIGKILL after the grace period.

        Raises:
            RunCancelled: the run was cancelled.
            subprocess.CalledProcessError: with ``check``, if the program's exit status is not 0.
        """
        self.raise_if_cancelled()
        done = await run_process(
            cmd,
            stops=self._state.stops,
            cancelled=self.cancelled,
            clock=self.clock,
            input=input,
            cwd=cwd,
            env=env,
        )
        self.raise_if_cancelled()
        if check:
            done.check_returncode()
        return done

    def on_cleanup(self, function: Callable[[], Any]) -> None:
        """Call ``function`` at any end of the run, the last added function first.

        It may be a coroutine function.
        """
        self._state.cleanups.append(function)

    # ------------------------------------------------ for the worker

    @property
    def _run_log(self) -> RunLog:
        if self._log is None:
            with _first_use_of_log:
                self._log = self._log or RunLog(self._place, self._log_lines)
        return self._log

    def _keep_other_loggers(self) -> None:
        """Keep what other loggers log in the current task, if the worker keeps their lines."""
        if self._log_lines is not None and self._log_lines.cfg.loggers:
            keep_other_loggers(self._run_log)

    def _for_lane(self) -> Self:
        """Return a context of the same run for batches that are in process at the same time."""
        made = copy(self)
        made._place = copy(self._place)  # noqa: SLF001 - a copy of this object
        made._log = self._run_log.at(made._place)  # noqa: SLF001
        return made

    def _cancel(self, reason: str) -> None:
        state = self._state
        if state.cancelled:
            return
        state.cancel_reason = reason
        state.cancelled = True
        for scope in tuple(state.scopes):
            scope.cancel()
        for stop in tuple(state.stops):
            stop()

    async def _close(self, limit_sec: float, ending: Callable[[], bool]) -> None:
        """Run the cleanups, for at most ``limit_sec`` in total.

        Their errors are logged. ``ending`` returns whether the worker cancels them.
        """
        cleanups = self._state.cleanups
        if not cleanups:
            return
        done = False
        async with anyio.create_task_group() as group:

            async def expire() -> None:
                await self.clock.sleep(limit_sec)
                group.cancel_scope.cancel()

            group.start_soon(expire)
            while cleanups:
                cleanup = _called(cleanups.pop())
                try:
                    await awaited(
                        cleanup, ending=lambda: group.cancel_scope.cancel_called or ending()
                    )
                except Exception as error:
                    self.log.warning(
                        "A cleanup of node %s failed",
                        self.node_id,
                        exc_info=loggable(error),
                        extra={"action": "cleanup_failed"},
                    )
            done = True
            group.cancel_scope.cancel()
        if not done:
            self.log.warning(
                "The cleanups of node %s took longer than %.1f s and were cut off",
                self.node_id,
                limit_sec,
                extra={"action": "cleanup_cut_off"},
            )


async def _called(function: Callable[[], Any]) -> None:
    result = function()
    if inspect.isawaitable(result):
        await result


def log_extra(command: RunNode, action: str) -> dict[str, Any]:
    """Return the ``extra`` of a log line about a run."""
    return {
        "action": action,
        "task_id": command.task_id,
        "node_id": command.node_id,
        "attempt": command.attempt,
    }


@dataclass(frozen=True, slots=True)
class Services:
    """Access of runs to the store, to hints about streams, and to the configuration."""

    worker_id: str
    cfg: WorkerConfig
    clock: Clock
    store: Store
    plugins: Plugins
    claims: Claims
    writer: ArtifactWriter
    reader: ArtifactReader
    late: LateRuns
    hints: StreamHints
    watches: StreamWatches
    readings: Readings
    readers: StreamReaders
    evaluations: Evaluations
    params: TaskParamsCache
    log_lines: LogLines
    turns: Turns
    """Lets other tasks run between two batches: a handler may never wait for anything."""

    @classmethod
    def on(
        cls,
        store: Store,
        bus: Bus,
        *,
        worker_id: str,
        cfg: WorkerConfig,
        clock: Clock,
        plugins: Plugins,
    ) -> "Services":
        """Return the services of a worker on this store and bus."""
        hints = StreamHints(bus=bus, topic=cfg.control_topic, clock=clock)
        return cls(
            worker_id=worker_id,
            cfg=cfg,
            clock=clock,
            store=store,
            plugins=plugins,
            claims=Claims(store.artifacts, worker_id=worker_id, clock=clock),
            writer=ArtifactWriter(store.artifacts, clock=clock),
            reader=ArtifactReader(store.artifacts, clock=clock),
            late=LateRuns(clock),
            hints=hints,
            watches=StreamWatches(),
            readings=Readings(hints, clock),
            readers=StreamReaders(clock),
            evaluations=Evaluations(),
            params=TaskParamsCache(store),
            log_lines=LogLines(store.records, worker_id=worker_id, cfg=cfg.logs, clock=clock),
            turns=Turns(least=1, most=MAX_TURNS),
        )

    def loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return the loops that have to run while these services are used, by name."""
        return {
            "artifact": self.writer.store_records,
            "kept artifact": self.late.release,
            "claim": self.claims.write_claims,
            "hint": self.hints.send_hints,
            "stream position": self.readings.repeat,
            "log line": self.log_lines.store_lines,
        }
