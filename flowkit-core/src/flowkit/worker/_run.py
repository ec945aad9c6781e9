"""One command, from its beginning to its report."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio

from flowkit import reading
from flowkit.config import WorkerConfig
from flowkit.errors import InputAdapterError
from flowkit.messages import NodeFailed, NodeReleased, NodeStopped, NodeSucceeded, RunContextData, RunNode, Source
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store, Stream
from flowkit.worker._batches import BatchLedger
from flowkit.worker._context import RunContext
from flowkit.worker._failures import BatchFailure, Verdict, dead_letter, judge, judge_plainly
from flowkit.worker._pages import Page, cut, item_of, one_by_one
from flowkit.worker._registry import Make
from flowkit.worker._reports import End, RunReports
from flowkit.worker._streams import StreamHints, StreamWatches
from flowkit.worker._values import Numbers, bad_result, json_value, numbers
from flowkit.worker._waiting import patiently
from flowkit.worker.artifacts import ArtifactReader, ArtifactWriter, RunArtifacts
from flowkit.worker.functions import FunctionHandler
from flowkit.worker.handlers import Batch, BatchResult, FinalizeResult, Handler, default_classification
from flowkit.worker.inputs import InputRequest

logger = logging.getLogger(__name__)

Pages = AsyncIterator[Page]


@dataclass(frozen=True, slots=True)
class Services:
    """What all runs of a worker share."""

    worker_id: str
    cfg: WorkerConfig
    clock: Clock
    store: Store
    plugins: Plugins
    writer: ArtifactWriter
    reader: ArtifactReader
    hints: StreamHints
    watches: StreamWatches
    threads: anyio.CapacityLimiter


class Run:
    """An attempt of a node on this worker. :meth:`execute` always ends with a report, save when the worker itself is torn down."""

    __slots__ = ("_context", "_data", "_handed_back", "_handler", "_ledger", "_make", "_now_at", "_services", "command", "reports")

    def __init__(self, command: RunNode, make: Make, reports: RunReports, services: Services) -> None:
        self.command = command
        self.reports = reports
        self._handed_back = False
        self._make = make
        self._services = services
        self._handler: Handler | FunctionHandler | None = None
        self._data = command.data
        self._ledger: BatchLedger | None = None
        self._now_at: Batch | None = None
        self._context = RunContext(
            task_id=command.task_id,
            node_id=command.node_id,
            attempt=command.attempt,
            worker_id=services.worker_id,
            clock=services.clock,
            progress=command.progress,
            report=reports.progressed,
            artifacts=RunArtifacts(services.reader, Stream(command.task_id, command.node_id, command.generation), self._sources),
        )

    @property
    def priority(self) -> int:
        return self.command.priority

    def cancel(self, reason: str) -> None:
        """Ask the handler to end."""
        self._context._cancel(reason)  # noqa: SLF001 - the worker's side of the context

    def hand_back(self) -> None:
        """Give the attempt back, because the worker stops."""
        if not self._context.cancelled():
            self._handed_back = True
            self.cancel("the worker stops")

    # ------------------------------------------------ life

    async def execute(self) -> None:
        self.reports.start(self._services.clock.now())
        try:
            end = await self._attempt()
            await self._context._close(self._services.cfg.cancel_grace_sec)  # noqa: SLF001
        except asyncio.CancelledError:
            if not self._context.cancelled():
                raise
            with anyio.CancelScope(shield=True):
                await self._context._close(self._services.cfg.cancel_grace_sec)  # noqa: SLF001
            if isinstance(self._handler, FunctionHandler) and self._handler.threaded:
                logger.warning(
                    "Node %s was cut off, but its function goes on in its thread", self.command.node_id,
                    extra={"action": "thread_abandoned", "task_id": self.command.task_id},
                )  # fmt: skip
            self.reports.end(self._given_up())
            raise
        self.reports.end(end)

    async def _attempt(self) -> End:
        try:
            try:
                return await self._work()
            except asyncio.CancelledError as error:
                if _is_being_cancelled():
                    raise
                return await self._failure(error)  # the handler awaited something that was cancelled elsewhere
            except (Exception, SystemExit) as error:
                return await self._failure(error)
        except Exception as error:
            logger.exception("The failure of node %s could not be judged", self.command.node_id, extra=self._extra("run_failed"))
            return self._failed(judge_plainly(error), {})

    async def _work(self) -> NodeSucceeded:
        data = self._data
        if data is None:
            data = self._data = await self._asked_store(reading.run_data, "read the input of a node")
        context = self._context
        context.params, context.vars, context.results = data.params, data.vars, data.results
        handler = self._handler = self._make()
        inline = data.io.get("input_inline")
        adapter = inline.get("input_adapter") if isinstance(inline, dict) else None
        if isinstance(handler, FunctionHandler):
            if adapter is None and data.io.get("batching") is None and not handler.generates:
                result = await handler.call(inline, context, self._services.threads)
                return self._succeeded(json_value(result, "the result"), {}, 0)
            return await self._work_function(handler, data, adapter)
        return await self._work_batches(handler, data, adapter)

    # ------------------------------------------------ functions

    async def _work_function(self, handler: FunctionHandler, data: RunContextData, adapter: Any) -> NodeSucceeded:
        ledger = self._open_ledger()
        inline = data.io.get("input_inline")
        if adapter is None and data.io.get("batching") is None:
            await self._generate(handler, inline, "")
        else:
            pages = (
                cut(inline, data.io["batching"]) if adapter is None else self._adapted(adapter, data.io["input_inline"].get("input_args"))
            )
            async with aclosing(self._batches(pages)) as batches:
                async for batch in batches:
                    item = item_of(batch.payload)
                    if handler.generates:
                        await self._generate(handler, item, f"{batch.batch_uid}#")
                    else:
                        await ledger.add(batch.batch_uid, await handler.call(item, self._context, self._services.threads))
        await ledger.settle()
        return self._succeeded(None, *await ledger.totals())

    async def _generate(self, handler: FunctionHandler, item: Any, prefix: str) -> None:
        """Store what the function yields. In a later attempt it yields again, and what is there already is not counted again."""
        ledger = self._open_ledger()
        number = 0
        async with aclosing(handler.iterate(item, self._context, self._services.threads)) as values:
            async for value in values:
                if value is None:
                    raise bad_result(f"{handler.__name__} yielded None; what is yielded is a batch's artifact, a JSON object")
                await ledger.add(f"{prefix}{number}", value)
                number += 1
                self._context.raise_if_cancelled()

    # ------------------------------------------------ handlers with batches

    async def _work_batches(self, handler: Handler, data: RunContextData, adapter: Any) -> NodeSucceeded:
        command, context, ledger = self.command, self._context, self._open_ledger()
        await handler.init(
            {
                "task_id": command.task_id,
                "node_id": command.node_id,
                "role": command.role,
                "attempt": command.attempt,
                "worker_id": context.worker_id,
                "generation": command.generation,
                "params": data.params,
                "io": data.io,
            }
        )
        loaded = await handler.load_input(data.io.get("input_ref"), data.io.get("input_inline"))
        async with aclosing(self._batches(self._route(handler, data, adapter, loaded))) as batches:
            async for batch in batches:
                result = await handler.process_batch(batch, context)
                await ledger.add(batch.batch_uid, *_checked(batch, result))
        await ledger.settle()
        final = await handler.finalize(context)
        if final is None:
            return self._succeeded(None, *await ledger.totals())
        if not isinstance(final, FinalizeResult):
            raise bad_result(f"finalize returns a FinalizeResult or None, not {type(final).__name__}")
        result, on_top = json_value(final.result, "the result"), numbers(final.metrics, "the metrics of finalize")
        if final.artifacts_ref is not None:
            await ledger.complete(final.artifacts_ref)
        sums, count = await ledger.totals()
        return self._succeeded(result, sums | on_top, count)

    def _route(self, handler: Handler, data: RunContextData, adapter: Any, loaded: Any) -> Pages:
        """Where the batches come from: the adapter the node names, else the one that load_input proposes, else the handler."""
        if adapter is not None:
            return self._adapted(adapter, data.io["input_inline"].get("input_args"))
        proposed = loaded.get("input_adapter") if isinstance(loaded, dict) else None
        if proposed is not None and (self._services.cfg.strict_input_adapters or self._knows(proposed)):
            return self._adapted(proposed, loaded.get("input_args"))
        batching = data.io.get("batching")
        if batching is not None and type(handler).iter_batches is Handler.iter_batches:
            whole = isinstance(loaded, dict) and "input_inline" in loaded
            return cut(loaded["input_inline"] if whole else loaded, batching)
        return one_by_one(handler.iter_batches(loaded))

    async def _batches(self, pages: Pages) -> AsyncGenerator[Batch, None]:
        """What is to be processed, and where the run is should it fail."""
        ledger = self._open_ledger()
        async with aclosing(pages) as all_pages:  # type: ignore[type-var]
            async for page in all_pages:
                for batch in await ledger.unseen([page] if isinstance(page, Batch) else page):
                    self._context.raise_if_cancelled()
                    self._now_at = batch
                    yield batch
                    self._now_at = None

    # ------------------------------------------------ input

    def _knows(self, adapter: Any) -> bool:
        return isinstance(adapter, str) and adapter in self._services.plugins.input_adapters

    def _adapted(self, adapter: Any, args: Any) -> Pages:
        if not self._knows(adapter):
            known = ", ".join(sorted(self._services.plugins.input_adapters))
            raise InputAdapterError(f"there is no input adapter {adapter!r}; there are {known}", reason_code="bad_input_adapter")
        if args is not None and not isinstance(args, dict):
            raise InputAdapterError(f"{adapter}: input_args is an object, not {args!r:.200}", reason_code="bad_input_args")
        services = self._services
        request = InputRequest(
            adapter=adapter,
            args=args or {},
            context=self._context,
            sources=self._sources,
            latest_sources=self._latest_sources,
            reader=services.reader,
            watches=services.watches,
            poll_ms_default=services.cfg.pull_poll_ms_default,
        )
        pages: Pages = services.plugins.input_adapters[adapter](request)
        return pages

    async def _sources(self) -> Sequence[Source]:
        return self.command.sources if self.command.sources is not None else await self._latest_sources()

    async def _latest_sources(self) -> Sequence[Source]:
        latest: Sequence[Source] = await self._asked_store(reading.sources, "read the state of a node's parents")
        return latest

    async def _asked_store(self, read: Any, what: str) -> Any:
        command, services = self.command, self._services
        return await patiently(lambda: read(services.store, command.task_id, command.index), clock=services.clock, what=what)

    def _open_ledger(self) -> BatchLedger:
        if self._ledger is None:
            services, command = self._services, self.command
            self._ledger = BatchLedger(
                command,
                writer=services.writer,
                reader=services.reader,
                reports=self.reports,
                hints=services.hints,
                clock=services.clock,
            )
        return self._ledger

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
        return {"action": action, "task_id": self.command.task_id, "node_id": self.command.node_id, "attempt": self.command.attempt}

    def _succeeded(self, result: Any, metrics: Numbers, batches: int) -> NodeSucceeded:
        if logger.isEnabledFor(logging.INFO):
            took = self._services.clock.now() - self.reports.started_at
            logger.info("Node %s finished in %.3f s", self.command.node_id, took, extra=self._extra("node_finished"))
        return NodeSucceeded(**self._ids(), started_at=self.reports.started_at, result=result, metrics=metrics, batches=batches)

    def _given_up(self) -> NodeStopped | NodeReleased:
        if self._handed_back:
            return NodeReleased(**self._ids(), progress=self.reports.progress)
        return NodeStopped(**self._ids())

    async def _failure(self, error: BaseException) -> End:
        if self._context.cancelled():
            logger.info("Node %s was stopped: %s", self.command.node_id, self._context.cancel_reason, extra=self._extra("node_stopped"))
            return self._given_up()
        classify = self._handler.classify_error if isinstance(self._handler, Handler) else default_classification
        io = self._data.io if self._data is not None else {}
        verdict = judge(error, self.command, io=io, plugins=self._services.plugins, classify=classify)
        unexpected = verdict.reason_code == "unexpected_error" and not isinstance(error, BatchFailure)
        logger.warning(
            "Node %s failed, %s: %s", self.command.node_id, verdict.reason_code, verdict.error,
            extra=self._extra("node_failed"), exc_info=error if unexpected else None,
        )  # fmt: skip
        metrics: Numbers = {}
        if self._ledger is not None:
            await self._settled_anyway(self._ledger)
            metrics, _ = await self._ledger.totals()
            lost = self._ledger.refused or self._now_at
            if lost is not None and (verdict.permanent or self.command.last_attempt):
                letter = dead_letter(self.command, lost, verdict, at=self._services.clock.now())
                store = self._services.store
                await patiently(lambda: store.park([letter]), clock=self._services.clock, what="park a dead letter")
        return self._failed(verdict, metrics)

    async def _settled_anyway(self, ledger: BatchLedger) -> None:
        try:
            await ledger.settle()
        except Exception as error:
            logger.info("Not all batches of node %s were stored: %s", self.command.node_id, error, extra=self._extra("batches_unstored"))

    def _failed(self, verdict: Verdict, metrics: Numbers) -> NodeFailed:
        return NodeFailed(
            **self._ids(),
            started_at=self.reports.started_at,
            reason_code=verdict.reason_code,
            permanent=verdict.permanent,
            error=verdict.error,
            metrics=metrics,
        )


def _checked(batch: Batch, result: Any) -> tuple[Any, Any]:
    """The artifact and the metrics of a batch that went well."""
    if not isinstance(result, BatchResult):
        raise bad_result(f"process_batch returns a BatchResult, not {type(result).__name__}")
    if not result.success:
        raise BatchFailure(
            result.error or f"batch {batch.batch_uid!r} failed",
            reason_code=result.reason_code or "unexpected_error",
            permanent=result.permanent,
        )
    return result.artifacts_ref, result.metrics


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
