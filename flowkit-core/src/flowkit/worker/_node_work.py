"""How a node's work is done: input, batch after batch, end."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from flowkit._records import queries
from flowkit._runtime.deadlines import patiently
from flowkit._user_code.containment import Titled
from flowkit.errors import InputAdapterError
from flowkit.messages import RunContextData, RunNode, Source
from flowkit.worker._batch_retries import Tries
from flowkit.worker._batches import BatchLedger
from flowkit.worker._context import RunContext
from flowkit.worker._failures import BatchFailure, Judge
from flowkit.worker._functions import FunctionHandler
from flowkit.worker._handler_values import Numbers, bad_result, json_value, numbers
from flowkit.worker._handlers import Batch, BatchResult, FinalizeResult, Handler
from flowkit.worker._inputs import InputAdapter, InputRequest
from flowkit.worker._paging import Page, cut, item_of, one_by_one
from flowkit.worker._reports import RunReports
from flowkit.worker._services import Services

Pages = AsyncGenerator[Page, None]
STREAM_ADAPTER = "pull.from_artifacts"
"""Reads a streaming edge where no adapter is named."""


class Outcome(NamedTuple):
    """A good end."""

    result: Any
    metrics: Numbers
    batches: int
    skipped: int = 0


class Work:
    """Work in batches."""

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
    ) -> None:
        self._command = command
        self._data = data
        self._context = context
        self._services = services
        self._ending = ending
        self.pulled = False
        """The input adapter asked for the streams of the node's parents."""
        self.ledger = BatchLedger(
            command,
            writer=services.writer,
            reader=services.reader,
            reports=reports,
            hints=services.hints,
            clock=services.clock,
        )
        self.tries = Tries(
            command,
            context=context,
            reports=reports,
            ledger=self.ledger,
            judge=judge,
            ending=ending,
            services=services,
        )

    async def do(self, handler: Handler | FunctionHandler) -> Outcome:
        inline = self._data.io.get("input_inline")
        adapter = inline.get("input_adapter") if isinstance(inline, dict) else None
        if isinstance(handler, FunctionHandler):
            return await self._work_function(handler, self._data, adapter)
        return await self._work_batches(handler, self._data, adapter)

    # ------------------------------------------------ functions

    async def _work_function(
        self, handler: FunctionHandler, data: RunContextData, adapter: Any
    ) -> Outcome:
        ledger = self.ledger
        inline: Any = data.io.get("input_inline")
        if adapter is None and data.io.get("batching") is None and not data.streams:
            await self._generate(handler, inline, "")
        else:
            pages = self._pages_of_function(data, adapter)

            async def process(batch: Batch) -> None:
                item = item_of(batch.payload)
                if handler.generates:
                    await self._generate(handler, item, f"{batch.batch_uid}#")
                else:
                    await ledger.add(batch.batch_uid, await handler.call(item, self._context))

            await self.tries.work_through(self._batches(pages), process, sole=False)
        await ledger.settle()
        await self.tries.give_up_refused()
        return Outcome(None, *await ledger.totals(), self.tries.skipped)

    def _pages_of_function(self, data: RunContextData, adapter: Any) -> Pages:
        inline: Any = data.io.get("input_inline")
        if adapter is not None:
            return self._adapted(adapter, inline.get("input_args"))
        return (
            self._adapted(STREAM_ADAPTER, None)
            if data.streams
            else cut(inline, data.io["batching"])
        )

    async def _generate(self, handler: FunctionHandler, item: Any, prefix: str) -> None:
        """Store what the function yields. In a later attempt it yields again, and what is there
        already is not counted again.
        """
        number = 0
        async with aclosing(handler.iterate(item, self._context)) as values:
            async for value in values:
                if value is None:
                    raise bad_result(
                        f"{handler.__name__} yielded None; what is yielded is a batch's artifact, a"
                        " JSON object"
                    )
                await self.ledger.add(f"{prefix}{number}", value)
                await self.tries.give_up_refused()
                number += 1
                await self._services.turns.give()
                self._context.raise_if_cancelled()

    # ------------------------------------------------ handlers with batches

    async def _work_batches(self, handler: Handler, data: RunContextData, adapter: Any) -> Outcome:
        command, context, ledger = self._command, self._context, self.ledger
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

        async def process(batch: Batch) -> None:
            await ledger.add(
                batch.batch_uid, *_checked(batch, await handler.process_batch(batch, context))
            )

        pages, sole = self._route(handler, data, adapter, loaded)
        await self.tries.work_through(self._batches(pages), process, sole=sole)
        final = await handler.finalize(context)
        if final is None:
            return Outcome(None, *await ledger.totals(), self.tries.skipped)
        if not isinstance(final, FinalizeResult):
            raise bad_result(
                f"finalize returns a FinalizeResult or None, not {type(final).__name__}"
            )
        result, on_top = (
            json_value(final.result, "the result"),
            numbers(final.metrics, "the metrics of finalize"),
        )
        if final.artifacts_ref is not None:
            await ledger.complete(final.artifacts_ref)
        sums, count = await ledger.totals()
        return Outcome(result, sums | on_top, count, self.tries.skipped)

    def _route(
        self, handler: Handler, data: RunContextData, adapter: Any, loaded: Any
    ) -> tuple[Pages, bool]:
        """Return the batches, and whether there is only one, which is the whole input.

        They come from the adapter that the node names, else from the one that load_input proposes,
        else from the artifacts of a parent that streams, else from the handler.
        """
        if adapter is not None:
            return self._adapted(adapter, data.io["input_inline"].get("input_args")), False
        proposed = loaded.get("input_adapter") if isinstance(loaded, dict) else None
        if proposed is not None and (
            self._services.cfg.strict_input_adapters or self._knows(proposed)
        ):
            return self._adapted(proposed, loaded.get("input_args")), False
        if data.streams:
            return self._adapted(STREAM_ADAPTER, None), False
        own = type(handler).iter_batches is not Handler.iter_batches
        batching = data.io.get("batching")
        if batching is not None and not own:
            whole = isinstance(loaded, dict) and "input_inline" in loaded
            return cut(loaded["input_inline"] if whole else loaded, batching), False
        return one_by_one(handler.iter_batches(loaded)), not own

    async def _batches(self, pages: Pages) -> AsyncGenerator[Batch | None, None]:
        """What is to be processed; None between two pages, when something else may be done."""
        async with aclosing(pages) as all_pages:
            async for page in all_pages:
                for batch in (
                    await self.ledger.unseen([page] if isinstance(page, Batch) else page)
                    if page
                    else ()
                ):
                    self._context.raise_if_cancelled()
                    yield batch
                yield None

    # ------------------------------------------------ input

    def _knows(self, adapter: Any) -> bool:
        return isinstance(adapter, str) and adapter in self._services.plugins.input_adapters

    def _adapted(self, adapter: Any, args: Any) -> Pages:
        if not self._knows(adapter):
            known = ", ".join(sorted(self._services.plugins.input_adapters))
            raise InputAdapterError(
                f"there is no input adapter {adapter!r}; there are {known}",
                reason_code="bad_input_adapter",
            )
        if args is not None and not isinstance(args, dict):
            raise InputAdapterError(
                f"{adapter}: input_args is an object, not {args!r:.200}",
                reason_code="bad_input_args",
            )
        services = self._services
        make: InputAdapter = services.plugins.input_adapters[adapter]
        request = InputRequest(
            adapter=adapter,
            args=args or {},
            context=self._context,
            sources=self._sources,
            latest_sources=partial(latest_sources, self._command, services),
            reader=services.reader,
            watches=services.watches,
            poll_ms_default=services.cfg.pull_poll_ms_default,
        )
        pages = make(request)
        plugin = services.plugins.owner("input adapter", adapter)
        return (
            pages
            if plugin is None
            else self._named(pages, f"input adapter {adapter!r} of plugin {plugin!r}")
        )

    async def _named(self, pages: Pages, title: str) -> Pages:
        """Yield the pages of a plugin's adapter. What it raises names the plugin."""
        async with aclosing(pages):
            try:
                async for page in pages:
                    yield page
            except Exception as error:
                raise Titled(error, title) from error
            except BaseException as error:
                if issubclass(type(error), GeneratorExit) or self._ending():
                    raise
                raise Titled(error, title) from error

    async def _sources(self) -> Sequence[Source]:
        self.pulled = True
        return await sources_of(self._command, self._services)


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


async def asked_store(read: Any, command: RunNode, services: Services, what: str) -> Any:
    """What :mod:`flowkit._records.queries` finds of a node."""
    return await patiently(
        lambda: read(services.store, command.task_id, command.index),
        clock=services.clock,
        what=what,
    )


async def latest_sources(command: RunNode, services: Services) -> Sequence[Source]:
    """The streams of the node's parents as they are now."""
    found: Sequence[Source] = await asked_store(
        queries.sources, command, services, "read the state of a node's parents"
    )
    return found


async def sources_of(command: RunNode, services: Services) -> Sequence[Source]:
    """The streams of the node's parents, as the command has them if it does."""
    return (
        command.sources if command.sources is not None else await latest_sources(command, services)
    )
