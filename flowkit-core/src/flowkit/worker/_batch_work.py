"""Work of a node in batches: read the input, process each batch, finalize."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from flowkit._json.metrics import Numbers, is_finite
from flowkit.messages import RunContextData, RunNode
from flowkit.worker._batches import BatchSource, Pages, StoredBatches, Totals, item_of
from flowkit.worker._context import RunContext, Services, log_extra
from flowkit.worker._failures import BatchFailure, BatchProcessor, Judge
from flowkit.worker._functions import AnyFunctionHandler, FunctionHandler
from flowkit.worker._handlers import (
    Batch,
    BatchResult,
    FinalizeResult,
    Handler,
    bad_result,
    json_value,
    numbers,
)
from flowkit.worker._reports import RunReports
from flowkit.worker._slots import Slot

logger = logging.getLogger(__name__)


class BatchWork:
    """The work of one run in batches."""

    def __init__(
        self,
        command: RunNode,
        data: RunContextData,
        *,
        context: RunContext,
        reports: RunReports,
        judge: Judge,
        ending: Callable[[], bool],
        services: Services,
        slot: Slot,
    ) -> None:
        self._command = command
        self._data = data
        self._context = context
        self._services = services
        self._ending = ending
        self._slot = slot
        self._source: BatchSource | None = None
        self._totals = Totals({}, 0)
        self.stored = StoredBatches(
            command,
            writer=services.writer,
            reader=services.reader,
            reports=reports,
            hints=services.hints,
            late=services.late,
            clock=services.clock,
            sharded=data.io.get("shards") is not None,
        )
        self.processor = BatchProcessor(
            command,
            context=context,
            reports=reports,
            stored=self.stored,
            judge=judge,
            ending=ending,
            services=services,
            slot=slot,
            parallel=data.io.get("parallel") or 1,
            shards=data.io.get("shards") or 0,
        )

    async def run(self, handler: Handler | AnyFunctionHandler, *, whole: bool) -> Any:
        """Do the work to its end, and return the result.

        ``whole`` says that the input is not divided into batches.
        """
        if isinstance(handler, FunctionHandler):
            if not self.stored.ends_shards:
                await self._run_function(handler, whole=whole)
            return await self._end(None, {})
        if not self.stored.ends_shards:
            await self._run_handler(handler)
        if self._command.shard is not None:
            return await self._end(None, {})
        return await self._finalize(handler)

    def report(self) -> dict[str, Any]:
        """Return the fields about batches in the report of a run that has succeeded."""
        return {
            "metrics": numbers(self._totals.metrics, "the sums of its metrics"),
            "batches": self._totals.batches,
            "in_batches": True,
            "pulled": self._source is not None and self._source.pulled,
            "skipped": self.processor.skipped,
            "kept": tuple(self.stored.kept.artifacts),
        }

    async def stored_metrics(self) -> Numbers:
        """Store what is kept back, and return the sums over the batches that are stored, for a run
        that did not succeed.
        """
        try:
            await self.stored.store_kept()
        except Exception as error:
            logger.info(
                "Not all batches of node %s were stored: %s",
                self._command.node_id,
                error,
                extra=log_extra(self._command, "batches_unstored"),
            )
        try:
            totals = await self.stored.totals()
        except Exception as error:
            logger.warning(
                "The metrics of node %s could not be read: %s",
                self._command.node_id,
                error,
                extra=log_extra(self._command, "metrics_unread"),
            )
            return {}
        return {name: value for name, value in totals.metrics.items() if is_finite(value)}

    async def _end(self, result: Any, metrics: Numbers) -> Any:
        """Keep the totals of the batches, and return the result.

        ``metrics`` replace the sums of the batches by name.
        """
        self.stored.seal(result)
        await self.stored.flush()
        await self.processor.give_up_refused()
        totals = await self.stored.totals()
        self._totals = Totals(totals.metrics | metrics, totals.batches)
        return result

    # ------------------------------------------------ functions

    async def _run_function(self, handler: AnyFunctionHandler, *, whole: bool) -> None:
        if whole:
            await self._generate(handler, self._data.io.get("input_inline"), "", self._context)
        else:

            async def process(batch: Batch, context: RunContext) -> None:
                item = item_of(batch.payload)
                if handler.generates:
                    await self._generate(handler, item, f"{batch.batch_uid}#", context)
                else:
                    result = await handler.call(item, context)
                    await self.stored.add(batch.batch_uid, result)

            batches = self._batches(self._divided().for_function())
            await self.processor.process_all(batches, process)

    async def _generate(
        self, handler: AnyFunctionHandler, item: Any, prefix: str, context: RunContext
    ) -> None:
        """Store the values that the function yields.

        A later attempt yields them again; those that are stored already do not count twice.
        """
        number = 0
        async with aclosing(handler.iterate(item, context)) as values:
            async for value in values:
                if value is None:
                    raise bad_result(
                        f"{handler.__name__} yielded None; it must yield the artifacts of batches,"
                        " which are JSON objects"
                    )
                await self.stored.add(f"{prefix}{number}", value)
                if self.stored.refused:
                    await self.processor.give_up_refused()
                if number:
                    await self._services.turns.give()
                number += 1
                context.raise_if_cancelled()
                await self.processor.wait_for_readers(context)

    # ------------------------------------------------ handlers

    async def _run_handler(self, handler: Handler) -> None:
        io = self._data.io
        await handler.init(self._run_info())
        loaded = await handler.load_input(io.get("input_ref"), io.get("input_inline"))

        async def process(batch: Batch, context: RunContext) -> None:
            result = await handler.process_batch(batch, context)
            await self.stored.add(batch.batch_uid, *_checked(batch, result))

        batches = self._divided().for_handler(handler, loaded)
        if isinstance(batches, Batch):
            await self.processor.process_sole(await self.stored.unprocessed_sole(batches), process)
        else:
            await self.processor.process_all(self._batches(batches), process)

    async def _finalize(self, handler: Handler) -> Any:
        final = await handler.finalize(self._context)
        if final is None:
            return await self._end(None, {})
        if not isinstance(final, FinalizeResult):
            raise bad_result(
                f"finalize must return a FinalizeResult or None, not {type(final).__name__}"
            )
        result = json_value(final.result, "the result")
        metrics = numbers(final.metrics, "the metrics of finalize")
        if final.artifacts_ref is not None:
            await self.stored.complete(final.artifacts_ref)
        return await self._end(result, metrics)

    def _run_info(self) -> dict[str, Any]:
        command = self._command
        return {
            "task_id": command.task_id,
            "node_id": command.node_id,
            "role": command.role,
            "attempt": command.attempt,
            "worker_id": self._context.worker_id,
            "generation": command.generation,
            "params": self._context.params,
            "io": self._data.io,
        }

    def _divided(self) -> BatchSource:
        """Return the source of the batches."""
        self._source = BatchSource(
            self._command,
            self._data,
            context=self._context,
            ending=self._ending,
            services=self._services,
            slot=self._slot,
        )
        return self._source

    async def _batches(self, pages: Pages) -> AsyncGenerator[Batch | None, None]:
        """Yield the batches to process, and None between two pages, when retries may run."""
        async with aclosing(pages) as all_pages:
            async for page in all_pages:
                if page:
                    batches = [page] if isinstance(page, Batch) else page
                    for batch in await self.stored.unprocessed(batches):
                        self._context.raise_if_cancelled()
                        yield batch
                else:
                    await self.processor.keep_alive()
                yield None


def _checked(batch: Batch, result: Any) -> tuple[Any, Any]:
    """Return the artifact and the metrics of a batch that succeeded."""
    if not isinstance(result, BatchResult):
        raise bad_result(f"process_batch must return a BatchResult, not {type(result).__name__}")
    if not result.success:
        raise BatchFailure(
            result.error or f"batch {batch.batch_uid!r} failed",
            reason_code=result.reason_code or "unexpected_error",
            permanent=result.permanent,
        )
    return result.artifacts_ref, result.metrics
