"""Batches of one run: where they come from, and where their results are stored."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import from_json

from flowkit._json.limits import MAX_UID_CHARS
from flowkit._json.metrics import Numbers, add_numbers
from flowkit._json.values import is_unicode
from flowkit._records import queries
from flowkit._records.kept_artifacts import artifact_record
from flowkit._records.shard_uids import shard_of, uid_of_shard
from flowkit._runtime.concurrency import Recent
from flowkit._runtime.retries import patiently
from flowkit._user_code.containment import Titled
from flowkit.errors import InputAdapterError, NodeFailure
from flowkit.graph._models import MAX_AHEAD
from flowkit.graph._node_checks import PULL, PULL_ADAPTERS
from flowkit.measures import Measure
from flowkit.messages import RunContextData, RunNode, Source
from flowkit.protocols import Clock
from flowkit.task import KeptArtifact
from flowkit.worker._artifacts import (
    COMPLETE_UID,
    ArtifactReader,
    ArtifactWriter,
    StreamHints,
    stream_of,
)
from flowkit.worker._context import RunContext, Services
from flowkit.worker._handlers import (
    Batch,
    Handler,
    bad_result,
    json_object,
    numbers,
    whole_batch,
)
from flowkit.worker._inputs import InputAdapter, InputRequest, Share
from flowkit.worker._kept_back import KeptBack, LateRuns
from flowkit.worker._reports import RunReports, heartbeat_every_sec
from flowkit.worker._slots import Slot
from flowkit.worker._windows import WindowLog, Windows, pull_windows

logger = logging.getLogger(__name__)

Page = Batch | Sequence[Batch]
Pages = AsyncGenerator[Page, None]
BATCHES_A_PAGE = 100
MAX_UNSTORED = 64


class BatchSource:
    """Choice of the source of a node's batches."""

    def __init__(
        self,
        command: RunNode,
        data: RunContextData,
        *,
        context: RunContext,
        ending: Callable[[], bool],
        services: Services,
        slot: Slot,
    ) -> None:
        self._command = command
        self._data = data
        self._context = context
        self._ending = ending
        self._services = services
        self._slot = slot
        self._inline: Any = data.io.get("input_inline")
        self._adapter = (
            self._inline.get("input_adapter") if isinstance(self._inline, dict) else None
        )
        self.pulled = False
        """Whether the input adapter read the streams of the node's parents."""

    def for_function(self) -> Pages:
        """Return the batches of a function.

        They come from the adapter of the node, else from a parent that streams, else from the list
        that ``io.batching`` cuts.
        """
        if self._adapter is not None:
            return self._adapted(self._adapter, self._inline.get("input_args"))
        if self._data.streams:
            return self._adapted(PULL, None)
        return cut(self._inline, self._data.io["batching"])

    def for_handler(self, handler: Handler, loaded: Any) -> Pages | Batch:
        """Return the batches of a handler, or its sole batch, which is the whole input.

        They come from the adapter of the node, else from the adapter that ``load_input`` proposes,
        else from a parent that streams, else from the handler.
        """
        if self._adapter is not None:
            return self._adapted(self._adapter, self._inline.get("input_args"))
        proposed = loaded.get("input_adapter") if isinstance(loaded, dict) else None
        if proposed is not None and (
            self._services.cfg.strict_input_adapters or self._has_adapter(proposed)
        ):
            return self._adapted(proposed, loaded.get("input_args"))
        if self._data.streams:
            return self._adapted(PULL, None)
        if getattr(handler.iter_batches, "__func__", None) is not Handler.iter_batches:
            return one_by_one(handler.iter_batches(loaded))
        batching = self._data.io.get("batching")
        if batching is not None:
            default = isinstance(loaded, dict) and "input_inline" in loaded
            return cut(loaded["input_inline"] if default else loaded, batching)
        return whole_batch(loaded)

    def _has_adapter(self, adapter: Any) -> bool:
        return isinstance(adapter, str) and adapter in self._services.plugins.input_adapters

    def _adapted(self, adapter: Any, args: Any) -> Pages:
        if not self._has_adapter(adapter):
            known = ", ".join(sorted(self._services.plugins.input_adapters))
            raise InputAdapterError(
                f"there is no input adapter {adapter!r}; there are {known}",
                reason_code="bad_input_adapter",
            )
        if args is not None and not isinstance(args, dict):
            raise InputAdapterError(
                f"{adapter}: input_args must be an object, not {args!r:.200}",
                reason_code="bad_input_args",
            )
        batching = self._data.io.get("batching")
        if batching is not None and adapter != PULL:
            raise InputAdapterError(
                f"{adapter}: io.batching makes windows over the artifacts that {PULL!r}"
                " pulls; remove it, or use that adapter",
                reason_code="bad_input_args",
            )
        share = None if self._command.shard is None else self._share(adapter, self._command.shard)
        services = self._services
        request = InputRequest(
            adapter=adapter,
            args=args or {},
            context=self._context,
            sources=self._sources,
            latest_sources=partial(latest_sources, self._command, services),
            reader=services.reader,
            watches=services.watches,
            readings=services.readings,
            slot=self._slot,
            max_ahead=self._data.io.get("max_ahead") or MAX_AHEAD,
            share=share,
            poll_ms_default=services.cfg.pull_poll_ms_default,
            pause_sec=heartbeat_every_sec(self._command),
            measure_lag=self._measure_lag if services.plugins.measures else None,
        )
        if batching is not None:
            return pull_windows(request, self._windows(batching))
        make: InputAdapter = services.plugins.input_adapters[adapter]
        pages = make(request)
        plugin = services.plugins.owner("input adapter", adapter)
        return (
            pages
            if plugin is None
            else self._named(pages, f"input adapter {adapter!r} of plugin {plugin!r}")
        )

    def _share(self, adapter: str, shard: int) -> Share:
        if adapter not in PULL_ADAPTERS:
            raise InputAdapterError(
                f"{adapter}: io.shards divides the artifacts that a node pulls; remove it, or use"
                f" {PULL!r}",
                reason_code="bad_input_args",
            )
        return Share(shard, self._data.io["shards"])

    def _measure_lag(self, lag_sec: float) -> None:
        labels = {"role": self._command.role}
        self._services.plugins.measure(Measure("stream_lag_sec", max(0.0, lag_sec), labels))

    def _windows(self, batching: dict[str, Any]) -> Windows:
        services = self._services
        log = WindowLog(
            self._command, reader=services.reader, writer=services.writer, clock=services.clock
        )
        return Windows(batching, log, services.clock)

    async def _named(self, pages: Pages, title: str) -> Pages:
        """Yield the pages of a plugin's adapter. Its errors name the plugin."""
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


async def read_node(read: Any, command: RunNode, services: Services, what: str) -> Any:
    """Read data of the node with a function of :mod:`flowkit._records.queries`, with retries."""
    return await patiently(
        lambda: read(services.store, command.task_id, command.index),
        clock=services.clock,
        what=what,
    )


async def latest_sources(command: RunNode, services: Services) -> Sequence[Source]:
    """Return the streams of the node's parents as they are now."""
    found: Sequence[Source] = await read_node(
        queries.sources, command, services, "read the state of a node's parents"
    )
    return found


async def sources_of(command: RunNode, services: Services) -> Sequence[Source]:
    """Return the streams of the node's parents: from the command, or else as they are now."""
    return (
        command.sources if command.sources is not None else await latest_sources(command, services)
    )


async def cut(value: Any, batching: dict[str, Any]) -> AsyncGenerator[Page, None]:
    """Yield the items of a list in batches of ``io.batching.size``."""
    items = value.get("items") if isinstance(value, dict) else value
    if not isinstance(items, list):
        message = (
            'io.batching takes a list, or an object with a list "items"; the input is'
            f" {value!r:.200}"
        )
        raise NodeFailure(message, reason_code="bad_input", permanent=True)
    size = batching["size"]
    batches = (
        Batch(str(number), {"items": items[start : start + size]})
        for number, start in enumerate(range(0, len(items), size))
    )
    page: list[Batch] = []
    for batch in batches:
        page.append(batch)
        if len(page) == BATCHES_A_PAGE:
            yield page
            page = []
    if page:
        yield page


async def one_by_one(made: Any) -> AsyncGenerator[Page, None]:
    """Yield the batches that ``iter_batches`` returned.

    An ordinary function may return any iterable.
    """
    batch: Any  # checked with the batches of all sources, in StoredBatches
    if inspect.isawaitable(made):
        made = await made
    if hasattr(made, "__aiter__"):
        if inspect.isasyncgen(made):
            async with aclosing(made):
                async for batch in made:
                    yield [batch]
        else:
            async for batch in made:
                yield [batch]
        return
    if not hasattr(made, "__iter__"):
        raise bad_result(f"iter_batches must give batches, not {type(made).__name__}")
    for batch in made:
        yield [batch]


def item_of(payload: Any) -> Any:
    """Return the item of a batch for a function: its ``items``, ``meta`` or whole payload."""
    if isinstance(payload, dict):
        for key in ("items", "meta"):
            if key in payload:
                return payload[key]
    return payload


class Totals(NamedTuple):
    """Sums of the metrics of a node's batches, and their number."""

    metrics: Numbers
    batches: int


class StoredBatches:
    """The batches that this run and earlier attempts of the node have stored.

    Results are stored while the next batches are processed, at most ``MAX_UNSTORED`` of them at a
    time. A first attempt that finds no stored batch adds up its own; any other attempt counts the
    batches in the store.
    """

    def __init__(
        self,
        command: RunNode,
        *,
        writer: ArtifactWriter,
        reader: ArtifactReader,
        reports: RunReports,
        hints: StreamHints,
        late: LateRuns,
        clock: Clock,
        sharded: bool,
    ) -> None:
        """``sharded`` says that the node has shards, which all store into one stream."""
        self.stream = stream_of(command)
        self._shard = command.shard
        self._streamed = command.streamed
        self._mapped = command.mapped
        self._writer = writer
        self._reader = reader
        self._reports = reports
        self._hints = hints
        self._clock = clock
        self.ends_shards = sharded and command.shard is None
        """The run is the end of a node whose shards have processed all batches: it has none."""
        self._fresh = self.ends_shards or (command.attempt == 1 and not command.resumed)
        self._recent: Recent[str, None] = Recent(1000)
        self._warned = False
        self._sums: Numbers = {}
        self._stored = 0
        self._unstored = 0
        self._change = asyncio.Event()
        self._error: Exception | None = None
        self._reported = False
        self._given = 0
        self.produced = 0
        """Number of batches that are processed, in this run or before."""
        # No other node reads these artifacts during the run, and no attempt has stored any.
        self.kept = KeptBack(
            allowed=self._fresh and not (self._streamed or self._mapped or sharded)
        )
        self._late = late
        self.refused: list[tuple[Batch, NodeFailure]] = []
        """Batches that the store refused and that are not given up yet."""

    async def unprocessed_sole(self, batch: Batch) -> list[Batch]:
        """Return the batch that is the whole input, unless it is processed already."""
        return [batch] if self._fresh else await self.unprocessed([batch])

    async def unprocessed(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches that are not processed yet, each uid once."""
        for batch in batches:
            _check(batch)
        known: set[str] = set()
        if not self._fresh:
            uids = {self._uid(batch.batch_uid): batch.batch_uid for batch in batches}
            known = {uids[uid] for uid in await self._reader.known(self.stream, list(uids))}
            if known:
                self._report()
        todo = []
        for batch in batches:
            if batch.batch_uid in self._recent:
                self._warn_repeated(batch.batch_uid)
                continue
            self._recent[batch.batch_uid] = None
            if batch.batch_uid in known:
                self.produced += 1
            else:
                todo.append(batch)
        self._given += len(todo)
        if self._given > 1:
            self.release()
        return todo

    def _warn_repeated(self, uid: str) -> None:
        """Warn once that a uid was repeated in this run.

        Other content under the same uid is never processed.
        """
        if not self._warned:
            self._warned = True
            logger.warning(
                "Batch %r of node %s came more than once in one run: only the first with this uid"
                " is processed",
                uid,
                self.stream.node_id,
                extra={"action": "batch_repeated", "task_id": self.stream.task_id},
            )

    def _uid(self, uid: str) -> str:
        """Return the uid that a batch has in the stream."""
        return uid if self._shard is None else uid_of_shard(self._shard, uid)

    async def add(self, uid: str, artifact: Any, metrics: Any = None) -> None:
        """Keep a processed batch back, or store it in the background. Wait only while too many are
        not stored.
        """
        counted = numbers(metrics, f"the metrics of batch {uid!r}")
        one = self._artifact(uid, artifact, counted, partial=True)
        self.produced += 1
        if self._keep(one):
            return
        while self._unstored >= MAX_UNSTORED and self._error is None:
            await self._wait_for_change()
        if self._error is not None:
            raise self._error
        self._put(one, uid)

    def _put(self, one: KeptArtifact, uid: str | None = None) -> None:
        """Store an artifact in the background. ``uid`` is that of its batch in this run."""
        self._unstored += 1

        def stored(answer: bool | Exception) -> None:
            self._unstored -= 1
            if isinstance(answer, NodeFailure) and one.partial:
                self.refused.append((Batch(one.uid if uid is None else uid), answer))
            elif isinstance(answer, Exception):
                self._error = self._error or answer
            else:
                if one.partial:
                    self._count(one.metrics, is_new=answer)
                    self._report()
                if self._streamed:
                    self._hints.moved(self.stream, self._reports.headers)
            self._change.set()

        self._writer.add(artifact_record(self.stream, one), stored)

    def _count(self, metrics: Numbers, *, is_new: bool) -> None:
        if is_new:
            self._stored += 1
            add_numbers(self._sums, metrics)
        else:
            self._fresh = False

    async def complete(self, artifact: Any) -> None:
        """Keep the node's complete artifact back, or store it."""
        one = self._artifact(COMPLETE_UID, artifact, {}, partial=False)
        if not self._keep(one):
            self._put(one)
            await self.flush()

    # ------------------------------------------------ kept back

    def _keep(self, one: KeptArtifact) -> bool:
        """Keep an artifact back, or return False: it has to be stored, as all others."""
        if self.kept.add(one):
            self._late.add(self)
            return True
        self.release()
        return False

    def release(self) -> None:
        """Store what is kept back, in the background. Nothing is kept back from now on."""
        self._late.discard(self)
        for one in self.kept.take():
            self._put(one)

    async def store_kept(self) -> None:
        """Return when all added batches are stored, also what was kept back."""
        self.release()
        await self.flush()

    def seal(self, result: Any) -> None:
        """Keep the artifacts beside this result until the end is reported, however long that takes,
        unless the result is large.
        """
        if self.kept.is_beside(result):
            self._late.discard(self)
        else:
            self.release()

    # ------------------------------------------------ totals

    async def _wait_for_change(self) -> None:
        await self._change.wait()
        self._change.clear()

    async def flush(self) -> None:
        """Return when all added batches are stored."""
        while self._unstored and self._error is None:
            await self._wait_for_change()
        if self._error is not None:
            raise self._error

    async def totals(self) -> Totals:
        """Return the sums of the metrics of the node's batches, and the number of batches; for a
        shard, of its own batches.
        """
        sums: Numbers = {}
        count = 0
        if self._fresh:
            kept = [one.metrics for one in self.kept.artifacts if one.partial]
            for metrics in (self._sums, *kept):
                add_numbers(sums, metrics)
            return Totals(sums, self._stored + len(kept))
        async for record in self._reader.records(self.stream):
            if record.partial and (self._shard is None or shard_of(record.uid) == self._shard):
                count += 1
                add_numbers(sums, from_json(record.metrics))
        return Totals(sums, count)

    def _artifact(
        self, uid: str, artifact: Any, metrics: Numbers, *, partial: bool
    ) -> KeptArtifact:
        meta = json_object(
            artifact, f"the artifact of {f'batch {uid!r}' if partial else 'the node'}"
        )
        return KeptArtifact(
            self._uid(uid) if partial else uid, partial, meta, metrics, self._clock.now()
        )

    def _report(self) -> None:
        if self._mapped or not self._reported:
            self._reported = True
            self._reports.batch_stored()


def _check(batch: Any) -> None:
    if not isinstance(batch, Batch):
        raise bad_result(
            f"batches must be flowkit.worker.Batch objects, not {type(batch).__name__}"
        )
    uid = batch.batch_uid
    if not isinstance(uid, str) or not 0 < len(uid) <= MAX_UID_CHARS:
        raise bad_result(
            f"a batch_uid must be a string of 1 to {MAX_UID_CHARS} characters, not {uid!r:.200}"
        )
    if not is_unicode(uid):
        raise bad_result(
            f"a batch_uid must be valid Unicode, not {uid!r:.200}, which has a lone surrogate"
        )
    if uid == COMPLETE_UID:
        raise bad_result(
            f"no batch may have the uid {COMPLETE_UID!r}: it is reserved for the node's complete"
            " artifact"
        )
