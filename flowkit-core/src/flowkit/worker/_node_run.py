"""One run of a node: claims the attempt, runs its handler, reports its end."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from flowkit._json.metrics import Numbers
from flowkit._records.claims import Claim
from flowkit._runtime.retries import patiently
from flowkit._tasks.run_inputs import evaluated_data, run_data
from flowkit._user_code.containment import (
    Escaped,
    awaited,
    error_text,
    origin,
    take_back,
    undo_cancellation,
)
from flowkit._user_code.failure_logs import log_failure
from flowkit._user_code.threads import counted
from flowkit.errors import NodeFailure
from flowkit.measures import Measure
from flowkit.messages import (
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RunContextData,
    RunNode,
)
from flowkit.tracing import continue_in, current_trace, use_trace
from flowkit.worker._batch_work import BatchWork
from flowkit.worker._batches import latest_sources, read_node, sources_of
from flowkit.worker._context import RunArtifacts, RunContext, Services, log_extra
from flowkit.worker._failures import (
    BatchFailed,
    Verdict,
    judge,
    keep_failure,
    node_of,
    own_classification,
    unclassified,
)
from flowkit.worker._functions import FunctionHandler
from flowkit.worker._handlers import PerRun, json_value
from flowkit.worker._reports import End, RunReports
from flowkit.worker._roles import AnyHandler, Served, make_handler
from flowkit.worker._segments import SegmentProgress
from flowkit.worker._slots import Slot
from flowkit.worker._surroundings import surrounded
from flowkit.worker._task_params import TaskParams

logger = logging.getLogger(__name__)


OUTCOMES = {
    NodeSucceeded: "succeeded",
    NodeFailed: "failed",
    NodeStopped: "stopped",
    NodeReleased: "handed_back",
}
"""Outcomes of attempts in measures."""


Following = tuple["Run", NodeSucceeded, bytes]
"""Run of the next node of a segment, and the end of the node before with its start: the report, and
its bytes.
"""
Follow = Callable[["Run", NodeSucceeded], Following | None]
"""Returns None if no run follows in the same slot."""


class _Ending:
    """Whether the worker cancels a run. Other cancellations are the handler's."""

    __slots__ = ("cut_off", "leaving")

    def __init__(self) -> None:
        self.cut_off = False
        """Whether the slot cancels the task of the run."""
        self.leaving: Callable[[], bool] = bool
        """Returns whether the worker ends and cancels its runs."""

    def __call__(self) -> bool:
        return self.cut_off or self.leaving()


class Run:
    """One attempt of a node on this worker.

    :meth:`execute` always ends with a report, except when the worker itself is cancelled.

    Nothing that a run holds refers to the run, so its memory is free without a collection of
    garbage.
    """

    __slots__ = (
        "_context",
        "_data",
        "_end",
        "_ending",
        "_follow",
        "_handed_back",
        "_handler",
        "_served",
        "_services",
        "_slot",
        "_work",
        "after",
        "cancelled",
        "command",
        "following",
        "priority",
        "reports",
        "segment",
    )

    def __init__(
        self,
        command: RunNode,
        served: Served,
        reports: RunReports,
        services: Services,
        *,
        follow: Follow,
        segment: SegmentProgress | None,
        after: RunReports | None = None,
    ) -> None:
        """``after`` are the reports of the run before, if this one follows in its segment."""
        self.command = command
        self.priority = command.priority
        self.reports = reports
        self.segment = segment
        self.after = after
        self.following: tuple[str, str] | None = None
        """Task and token of the attempt that follows in the segment."""
        self._follow = follow
        self.cancelled = False
        """Whether the handler was asked to end."""
        self._handed_back = False
        self._end: End | None = None
        self._ending = _Ending()
        self._slot: Slot  # from the start on
        self._served = served
        self._services = services
        self._handler: AnyHandler | None = None
        self._data = command.data
        self._work: BatchWork | None = None
        self._context = RunContext(
            task_id=command.task_id,
            node_id=command.node_id,
            attempt=command.attempt,
            worker_id=services.worker_id,
            clock=services.clock,
            progress=command.progress,
            report=reports.progressed,
            log_lines=services.log_lines,
            artifacts=RunArtifacts(
                services.reader,
                command,
                partial(sources_of, command, services),
                partial(latest_sources, command, services),
            ),
        )

    def cancel(self, reason: str) -> None:
        """Ask the handler to end."""
        self.cancelled = True
        self._context._cancel(reason)  # noqa: SLF001 - the worker's side of the context

    def hand_back(self) -> None:
        """Cancel the run, which goes to another worker. The attempt does not count."""
        if not self.cancelled:
            self._handed_back = True
            self.cancel("the worker stops")

    def cut_off(self) -> None:
        """Record that the slot cancels the task of this run."""
        self._ending.cut_off = True

    def abandon(self) -> None:
        """Report the end of a run that ignores its cancellation, unless it has the place of a
        concurrency key: then it reports its end when it has ended. Later reports are ignored.
        """
        then = (
            "it holds the place of its concurrency key until it ends or the worker is killed"
            if self.command.exclusive
            else "the worker abandons this run"
        )
        logger.warning(
            "Node %s was cut off and goes on: %s",
            self.command.node_id,
            then,
            extra=log_extra(self.command, "run_abandoned"),
        )
        if not self.command.exclusive:
            self.reports.end(self._given_up({}))

    def broke(self, error: BaseException) -> None:
        """Report the end, unless it is reported, of a run whose :meth:`execute` raised an error."""
        if self._end is not None:
            self.reports.end(self._end)
        else:
            self.reports.end(
                self._given_up({}) if self.cancelled else self._failed(unclassified(error), {})
            )

    # ------------------------------------------------ execution

    async def execute(self, slot: Slot) -> "Run | None":
        """Run to the end and report it. Return the run of the next node of the segment, if the
        worker goes on with it.

        When ``slot.leaving()`` returns True, the worker ends and cancels its runs: then nothing is
        reported.
        """
        self._slot = slot
        self._ending.leaving = slot.leaving
        # Also without a trace: the slot may have been created inside the trace of another run.
        with use_trace(self.reports.trace):
            if await self._claimed():
                return await self._execute()
        return None

    async def _claimed(self) -> bool:
        """Claim the attempt before any user code runs.

        If that fails, report the reason and return False.
        """
        try:
            other = await awaited(self._claim(), ending=self._ending)
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
            # A run that is handed back before its claim is known returns to the queue unreported.
            # Within a segment its start is reported already.
            if not self._handed_back or self.after is not None:
                self.reports.end(self._given_up({}))
            return False
        except Exception as error:
            self.reports.end(self._failed(unclassified(error), {}))
            return False
        if other is not None:
            self.reports.end(
                NodeStarted(**self.reports.ids | {"worker_id": other.owner}, at=other.at)
            )
            return False
        if self.cancelled:
            self.reports.end(self._given_up({}))
            return False
        return True

    async def _claim(self) -> Claim | None:
        """Claim the attempt, and return the claim of another run that has it. Within a segment the
        claim of the first node is enough: wait until the bus has acknowledged the result of the
        node before, with the start of this one.
        """
        if self.after is None:
            return await self._services.claims.claim(self.command)
        if self.after.on_bus is not None:
            await self.after.on_bus.wait()
        if self.segment is not None and self.segment.is_late:
            self.hand_back()
        return None

    async def _execute(self) -> "Run | None":
        self.reports.start(self._services.clock.now(), is_reported=self.after is not None)
        if self.segment is not None and self.after is None:
            self.segment.begin()
        self._context._keep_other_loggers()  # noqa: SLF001
        if not self.command.exclusive:
            end = await self._end_of_attempt()
            following = self._follow(self, end) if isinstance(end, NodeSucceeded) else None
            if following is None:
                self.reports.end(end)
                return None
            run, self._end, encoded = following
            self.reports.end(self._end, encoded)
            return run
        with counted() as calls:
            end = await self._end_of_attempt()
            while calls.names:
                with suppress(Escaped):
                    await awaited(calls.wait_until_quiet(), ending=self._ending.leaving)
        self.reports.end(end)
        return None

    async def _end_of_attempt(self) -> End:
        try:
            end = self._end = await self._attempt()
            await self._close()
            await self._store_logs()
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
            # The cancellation was delivered. From here on only a leaving worker cancels the task.
            self._ending.cut_off = False
            with anyio.CancelScope(shield=True):
                await self._close()
                end = self._end = self._end or self._given_up(await self._stored_metrics())
            if isinstance(self._handler, FunctionHandler) and self._handler.threaded:
                logger.warning(
                    "Node %s was cut off, but its function goes on in its thread",
                    self.command.node_id,
                    extra={"action": "thread_abandoned", "task_id": self.command.task_id},
                )
        if self._services.plugins.measures:
            await self._measure(end)
        return end

    async def _measure(self, end: End) -> None:
        """Give the duration of this attempt to plugins."""
        took_sec = max(0.0, self._services.clock.now() - self.reports.started_at)
        labels = {"role": self.command.role, "outcome": OUTCOMES[type(end)]}
        self._services.plugins.measure(Measure("attempt_sec", took_sec, labels))
        await undo_cancellation(postpone=True)  # the end of the run is not reported yet

    async def _close(self) -> None:
        """Run the cleanups.

        They do not change the end of the run, even if one of them cancels this task.
        """
        if not self._context._state.cleanups:  # noqa: SLF001
            return
        closing = self._context._close(self._services.cfg.cancel_grace_sec, self._ending)  # noqa: SLF001
        try:
            await awaited(closing, ending=self._ending)
        except Exception as error:
            logger.warning(
                "The cleanups of node %s were interrupted: %s",
                self.command.node_id,
                error_text(error),
                extra=log_extra(self.command, "cleanup_failed"),
            )

    async def _store_logs(self) -> None:
        """Wait a moment for the log lines, so that they are there when the end is."""
        log = self._context._log  # noqa: SLF001
        if log is not None:
            with suppress(Escaped):  # the handler cancels its task after its end
                await awaited(log.wait_stored(), ending=self._ending)

    async def _attempt(self) -> End:
        try:
            try:
                return self._succeeded(await awaited(self._work_to_the_end(), ending=self._ending))
            except Exception as error:
                return await awaited(self._failure(error), ending=self._ending)
        except Exception as error:
            log_failure(
                logger,
                self._services.plugins,
                "The failure of node %s could not be classified",
                self.command.node_id,
                text=error_text(error),
                error=origin(error),
                level=logging.ERROR,
                extra=log_extra(self.command, "run_failed"),
            )
            return self._failed(unclassified(error), {})

    async def _work_to_the_end(self) -> Any:
        data = self._data
        if data is None or (data.results_apart and self._takes_results(data.io)):
            data = self._data = await read_node(
                run_data, self.command, self._services, "read the input of a node"
            )
        params_json = b""
        if data.params_key:
            params = await self._large_params(data.params_key)
            params_json = params.json
            data = data.model_copy(update={"params": params.shared})
        if data.expressions is not None:
            data = self._data = await evaluated_data(
                self.command.task_id, data, self._services.evaluations
            )
        context = self._context
        context.params, context.vars = params_json or data.params, data.vars
        context.results, context.errors = data.results, data.errors
        if not self._services.plugins.surrounds_attempts:
            return await self._handle(data)
        node, trace = node_of(self.command, data.io), current_trace()
        try:
            async with surrounded(
                self._services.plugins, "flowkit_around_attempt", node=node, ctx=context
            ):
                trace = current_trace()
                return await self._handle(data)
        finally:
            # Cleanups, and the log lines about the end, belong to the span of the attempt.
            continue_in(trace)

    def _takes_results(self, io: Mapping[str, Any]) -> bool:
        """Return whether the results of the parents may be seen, which are in the context."""
        plugins, served, inline = self._services.plugins, self._served, io.get("input_inline")
        if not isinstance(served, FunctionHandler) or served.takes_context:
            return True
        has_adapter = isinstance(inline, Mapping) and "input_adapter" in inline
        return has_adapter or plugins.surrounds_attempts or plugins.surrounds_batches

    async def _handle(self, data: RunContextData) -> Any:
        """Call the handler, and return the result."""
        context, served = self._context, self._served
        handler = self._handler = (
            make_handler(self.command.role, served) if isinstance(served, PerRun) else served
        )
        whole = _is_whole(data)
        if self.command.rated:
            self.reports.begin()
        if whole and isinstance(handler, FunctionHandler) and not handler.generates:
            return json_value(
                await handler.call(data.io.get("input_inline"), context), "the result"
            )
        self._work = BatchWork(
            self.command,
            data,
            context=context,
            reports=self.reports,
            judge=partial(_judged, self.command, data.io, handler, self._services, self._ending),
            ending=self._ending,
            services=self._services,
            slot=self._slot,
        )
        context.artifacts.store_own = self._work.stored.store_kept
        return await self._work.run(handler, whole=whole)

    async def _large_params(self, key: str) -> TaskParams:
        """Return the params of the task, which are too large for the commands of its children."""
        services = self._services
        return await patiently(
            partial(services.params.get, self.command.task_id, key),
            clock=services.clock,
            what="read the params of a task",
        )

    # ------------------------------------------------ ends

    def _succeeded(self, result: Any) -> NodeSucceeded:
        now, started_at = self._services.clock.now(), self.reports.started_at
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "Node %s finished in %.3f s",
                self.command.node_id,
                now - started_at,
                extra=log_extra(self.command, "node_finished"),
            )
        batches = {} if self._work is None else self._work.report()
        return NodeSucceeded(
            **self.reports.ids, at=now, started_at=started_at, result=result, **batches
        )

    def _given_up(self, metrics: Numbers) -> NodeStopped | NodeReleased:
        ids, now = self.reports.ids, self._services.clock.now()
        if self._handed_back:
            retries = self._work.processor.retries() if self._work is not None else None
            return NodeReleased(**ids, at=now, progress=self.reports.progress, retries=retries)
        return NodeStopped(**ids, at=now, metrics=metrics)

    async def _failure(self, error: BaseException) -> End:
        if self.cancelled:
            logger.info(
                "Node %s was stopped: %s",
                self.command.node_id,
                self._context.cancel_reason,
                extra=log_extra(self.command, "node_stopped"),
            )
            return self._given_up(await self._stored_metrics())
        cause: BaseException | None = origin(error)
        parked = False
        if isinstance(error, BatchFailed):
            verdict, cause, parked = error.verdict, error.__cause__, error.parked
        else:
            io = self._data.io if self._data is not None else {}
            verdict = await _judged(
                self.command, io, self._handler, self._services, self._ending, error
            )
        log_failure(
            logger,
            self._services.plugins,
            "Node %s failed, %s",
            self.command.node_id,
            verdict.reason_code,
            text=verdict.error,
            error=None if isinstance(cause, NodeFailure) else cause,
            extra=log_extra(self.command, "node_failed"),
        )
        if not isinstance(error, BatchFailed):
            keep_failure(self._context, "the attempt failed", verdict, cause)
        return self._failed(verdict, await self._stored_metrics(), parked=parked)

    async def _stored_metrics(self) -> Numbers:
        return {} if self._work is None else await self._work.stored_metrics()

    def _failed(self, verdict: Verdict, metrics: Numbers, *, parked: bool = False) -> NodeFailed:
        return NodeFailed(
            **self.reports.ids,
            at=self._services.clock.now(),
            started_at=self.reports.started_at,
            reason_code=verdict.reason_code,
            permanent=verdict.permanent,
            error=verdict.error,
            metrics=metrics,
            parked=parked,
        )


async def _judged(
    command: RunNode,
    io: dict[str, Any],
    handler: AnyHandler | None,
    services: Services,
    ending: Callable[[], bool],
    error: BaseException,
) -> Verdict:
    """Return the verdict about an error of a run."""
    verdict = judge(
        error, command, io=io, plugins=services.plugins, classify=own_classification(handler)
    )
    await take_back(ending)  # the classifying code may have cancelled the task
    return verdict


def _is_whole(data: RunContextData) -> bool:
    """Return whether the input of a node is not divided into batches."""
    inline = data.io.get("input_inline")
    adapter = inline.get("input_adapter") if isinstance(inline, dict) else None
    return adapter is None and data.io.get("batching") is None and not data.streams
