"""One command, from its beginning to its report."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from flowkit._records import queries
from flowkit._user_code.containment import awaited, error_text, origin, take_back
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import NodeFailure
from flowkit.messages import (
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RunNode,
)
from flowkit.protocols import Stream
from flowkit.tracing import use_trace
from flowkit.worker._artifacts import RunArtifacts
from flowkit.worker._batches import BatchLedger
from flowkit.worker._context import RunContext
from flowkit.worker._failures import BatchFailed, Verdict, judge, judge_plainly, own_classification
from flowkit.worker._functions import FunctionHandler
from flowkit.worker._handler_registry import Make
from flowkit.worker._handler_values import Numbers, is_finite, json_value, numbers
from flowkit.worker._handlers import Handler
from flowkit.worker._node_work import Outcome, Work, asked_store, latest_sources, sources_of
from flowkit.worker._reports import End, RunReports
from flowkit.worker._services import Services

logger = logging.getLogger(__name__)


class Run:
    """An attempt of a node on this worker. :meth:`execute` always ends with a report, save when the
    worker itself is torn down.
    """

    __slots__ = (
        "_context",
        "_cut_off",
        "_data",
        "_end",
        "_handed_back",
        "_handler",
        "_leaving",
        "_make",
        "_services",
        "_work",
        "command",
        "reports",
    )

    def __init__(
        self, command: RunNode, make: Make, reports: RunReports, services: Services
    ) -> None:
        self.command = command
        self.reports = reports
        self._handed_back = False
        self._cut_off = False
        self._end: End | None = None
        self._leaving: Callable[[], bool] = bool
        self._make = make
        self._services = services
        self._handler: Handler | FunctionHandler | None = None
        self._data = command.data
        self._work: Work | None = None
        stream = Stream(command.task_id, command.node_id, command.generation)
        self._context = RunContext(
            task_id=command.task_id,
            node_id=command.node_id,
            attempt=command.attempt,
            worker_id=services.worker_id,
            clock=services.clock,
            progress=command.progress,
            report=reports.progressed,
            artifacts=RunArtifacts(
                services.reader,
                stream,
                partial(sources_of, command, services),
                partial(latest_sources, command, services),
            ),
        )

    @property
    def priority(self) -> int:
        return self.command.priority

    @property
    def cancelled(self) -> bool:
        """It was asked to end."""
        return self._context.cancelled()

    def cancel(self, reason: str) -> None:
        """Ask the handler to end."""
        self._context._cancel(reason)  # noqa: SLF001 - the worker's side of the context

    def hand_back(self) -> None:
        """Give the attempt back, because the worker stops."""
        if not self._context.cancelled():
            self._handed_back = True
            self.cancel("the worker stops")

    def cut_off(self) -> None:
        """Take note that the task that executes this is cancelled now."""
        self._cut_off = True

    def abandon(self) -> None:
        """Tell the end of a run that does not end. Whatever comes of it later counts for
        nothing.
        """
        logger.warning(
            "Node %s was cut off and goes on all the same: it is left to itself",
            self.command.node_id,
            extra=self._extra("run_abandoned"),
        )
        self.reports.end(self._given_up({}))

    def broke(self, error: BaseException) -> None:
        """Report the end of a run whose :meth:`execute` ended with this error, unless it was
        reported.
        """
        if self._end is not None:
            self.reports.end(self._end)
        else:
            self.reports.end(
                self._given_up({})
                if self._context.cancelled()
                else self._failed(judge_plainly(error), {})
            )

    # ------------------------------------------------ life

    async def execute(self, leaving: Callable[[], bool]) -> None:
        """Run to the end. ``leaving`` says whether the worker ends and cancels what still runs:
        then nothing is reported.
        """
        self._leaving = leaving
        # Also where there is none: the slot may have been begun within somebody else's.
        with use_trace(self.reports.trace):
            if await self._claimed():
                await self._execute()

    async def _claimed(self) -> bool:
        """Claim the attempt before any code of the user runs. Without the claim, report why nothing
        runs here and return False.
        """
        try:
            other = await awaited(self._services.claims.claim(self.command), ending=self._ending)
        except asyncio.CancelledError:
            if not self._context.cancelled():
                raise
            # What is handed back before its claim is known goes back to the queue without a report.
            if not self._handed_back:
                self.reports.end(self._given_up({}))
            return False
        except Exception as error:
            self.reports.end(self._failed(judge_plainly(error), {}))
            return False
        if other is not None:
            self.reports.leave(
                NodeStarted(**self._ids() | {"worker_id": other.owner, "at": other.at})
            )
        elif self._context.cancelled():
            self.reports.end(self._given_up({}))
        return not self.reports.ended

    async def _execute(self) -> None:
        self.reports.start(self._services.clock.now())
        try:
            end = self._end = await self._attempt()
            await self._close()
        except asyncio.CancelledError:
            if not self._context.cancelled():
                raise
            self._cut_off = False  # it was delivered; from here on the task is cancelled again only if the worker leaves
            with anyio.CancelScope(shield=True):
                await self._close()
                end = self._end = self._end or self._given_up(await self._stored_metrics())
            if isinstance(self._handler, FunctionHandler) and self._handler.threaded:
                logger.warning(
                    "Node %s was cut off, but its function goes on in its thread",
                    self.command.node_id,
                    extra={"action": "thread_abandoned", "task_id": self.command.task_id},
                )
        self.reports.end(end)

    async def _close(self) -> None:
        """Run the cleanups. The end of the run stands, even if one of them has this task cancelled
        when it is over.
        """
        closing = self._context._close(self._services.cfg.cancel_grace_sec, self._ending)  # noqa: SLF001
        try:
            await awaited(closing, ending=self._ending)
        except Exception as error:
            logger.warning(
                "The cleanups of node %s were interrupted: %s",
                self.command.node_id,
                error_text(error),
                extra=self._extra("cleanup_failed"),
            )

    def _ending(self) -> bool:
        """The worker cancels the run. At any other time a cancellation is the handler's own."""
        return self._cut_off or self._leaving()

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
                "The failure of node %s could not be judged",
                self.command.node_id,
                text=error_text(error),
                error=origin(error),
                level=logging.ERROR,
                extra=self._extra("run_failed"),
            )
            return self._failed(judge_plainly(error), {})

    async def _work_to_the_end(self) -> Outcome:
        data = self._data
        if data is None:
            data = self._data = await asked_store(
                queries.run_data, self.command, self._services, "read the input of a node"
            )
        context = self._context
        context.params, context.vars, context.results, context.errors = (
            data.params,
            data.vars,
            data.results,
            data.errors,
        )
        handler = self._handler = self._make()
        inline = data.io.get("input_inline")
        if (
            isinstance(handler, FunctionHandler)
            and not handler.generates
            and data.io.get("batching") is None
            and not data.streams
            and not (isinstance(inline, dict) and inline.get("input_adapter") is not None)
        ):
            return Outcome(json_value(await handler.call(inline, context), "the result"), {}, 0)
        self._work = Work(
            self.command,
            data,
            context=context,
            reports=self.reports,
            judge=self._judge,
            ending=self._ending,
            services=self._services,
        )
        return await self._work.do(handler)

    # ------------------------------------------------ ends

    def _ids(self) -> dict[str, Any]:
        command = self.command
        return {
            "task_id": command.task_id,
            "index": command.index,
            "attempt": command.attempt,
            "token": command.token,
            "worker_id": self._services.worker_id,
            "at": self._services.clock.now(),
        }

    def _extra(self, action: str) -> dict[str, Any]:
        return {
            "action": action,
            "task_id": self.command.task_id,
            "node_id": self.command.node_id,
            "attempt": self.command.attempt,
        }

    def _succeeded(self, outcome: Outcome) -> NodeSucceeded:
        if logger.isEnabledFor(logging.INFO):
            took = self._services.clock.now() - self.reports.started_at
            logger.info(
                "Node %s finished in %.3f s",
                self.command.node_id,
                took,
                extra=self._extra("node_finished"),
            )
        return NodeSucceeded(
            **self._ids(),
            started_at=self.reports.started_at,
            result=outcome.result,
            metrics=numbers(outcome.metrics, "the sums of its metrics"),
            batches=outcome.batches,
            in_batches=self._work is not None,
            pulled=self._work is not None and self._work.pulled,
            skipped=outcome.skipped,
        )

    def _given_up(self, metrics: Numbers) -> NodeStopped | NodeReleased:
        if self._handed_back:
            retries = self._work.tries.to_hand_over() if self._work is not None else None
            return NodeReleased(**self._ids(), progress=self.reports.progress, retries=retries)
        return NodeStopped(**self._ids(), metrics=metrics)

    async def _judge(self, error: BaseException) -> Verdict:
        io = self._data.io if self._data is not None else {}
        verdict = judge(
            error,
            self.command,
            io=io,
            plugins=self._services.plugins,
            classify=own_classification(self._handler),
        )
        await take_back(self._ending)  # what classifies may have cancelled the task
        return verdict

    async def _failure(self, error: BaseException) -> End:
        if self._context.cancelled():
            logger.info(
                "Node %s was stopped: %s",
                self.command.node_id,
                self._context.cancel_reason,
                extra=self._extra("node_stopped"),
            )
            return self._given_up(await self._stored_metrics())
        cause: BaseException | None = origin(error)
        parked = False
        if isinstance(error, BatchFailed):
            verdict, cause, parked = error.verdict, error.__cause__, error.parked
        else:
            verdict = await self._judge(error)
        told = isinstance(cause, NodeFailure)
        log_failure(
            logger,
            self._services.plugins,
            "Node %s failed, %s",
            self.command.node_id,
            verdict.reason_code,
            text=verdict.error,
            error=None if told else cause,
            extra=self._extra("node_failed"),
        )
        return self._failed(verdict, await self._stored_metrics(), parked=parked)

    async def _stored_metrics(self) -> Numbers:
        """The sums over the batches that are stored."""
        if self._work is None:
            return {}
        try:
            await self._settled_anyway(self._work.ledger)
            sums, _ = await self._work.ledger.totals()
        except Exception as error:
            logger.warning(
                "The metrics of node %s could not be read: %s",
                self.command.node_id,
                error,
                extra=self._extra("metrics_unread"),
            )
            return {}
        return {name: value for name, value in sums.items() if is_finite(value)}

    async def _settled_anyway(self, ledger: BatchLedger) -> None:
        try:
            await ledger.settle()
        except Exception as error:
            logger.info(
                "Not all batches of node %s were stored: %s",
                self.command.node_id,
                error,
                extra=self._extra("batches_unstored"),
            )

    def _failed(self, verdict: Verdict, metrics: Numbers, *, parked: bool = False) -> NodeFailed:
        return NodeFailed(
            **self._ids(),
            started_at=self.reports.started_at,
            reason_code=verdict.reason_code,
            permanent=verdict.permanent,
            error=verdict.error,
            metrics=metrics,
            parked=parked,
        )
