"""Input adapters: sources of a node's batches other than its handler.

An adapter is an async generator function that takes an :class:`InputRequest` and yields
:class:`~flowkit.worker.Batch` objects, or lists of them. Plugins register adapters through
``flowkit_register_input_adapters(register)``::

    async def lines(request: InputRequest) -> AsyncIterator[Batch]:
        path = request.take("path", str)
        request.no_other_arguments()
        ...

The same batch must get the same ``batch_uid`` in every attempt, so that a later attempt skips the
batches that are done.
"""

from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from math import inf
from typing import Any, NamedTuple, TypeVar

import anyio

from flowkit._records.queries import check_complete, no_artifacts_error
from flowkit._records.shard_uids import shard_of
from flowkit._runtime.concurrency import within
from flowkit.errors import InputAdapterError, TaskNotFound
from flowkit.messages import Source
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker._artifacts import ArtifactReader, StreamWatch, StreamWatches
from flowkit.worker._context import RunContext
from flowkit.worker._handlers import Batch
from flowkit.worker._slots import REST_AFTER_SEC, Slot
from flowkit.worker._stream_readers import Reading, Readings

T = TypeVar("T")
READ_AT_ONCE = 8
_MISSING: Any = object()

InputAdapter = Callable[["InputRequest"], AsyncGenerator[Batch | Sequence[Batch], None]]
"""Function that yields the batches of a node, one at a time or several together.

A node chooses it with ``input_inline: {input_adapter: NAME}``. Plugins add input adapters.
"""
MAX_UID = 200


@dataclass(frozen=True, slots=True)
class Pulled:
    """An artifact of another node: the node, the uid, the handler's ``artifacts_ref``, and the
    position in the node's stream.
    """

    from_node: str
    ref: str
    meta: Any
    position: int


class Share(NamedTuple):
    """The shard of a node that runs, and the number of its shards."""

    shard: int
    shards: int

    def has(self, position: int) -> bool:
        """Return whether the artifact at this position, from 1 on, is for this shard."""
        return (position - 1) % self.shards == self.shard


@dataclass(slots=True)
class _Position:
    """Position up to which a stream was read."""

    source: Source
    position: int = 0
    batches: int = 0
    of_shards: list[int] = field(default_factory=list)
    """Number of batches of each shard of the source."""
    artifacts: int = 0

    def __post_init__(self) -> None:
        self.of_shards = [0] * self.source.shards

    def advance(
        self, page: Sequence[ArtifactRecord], reader: ArtifactReader, share: Share | None
    ) -> list[Pulled]:
        """Move past a page, and return its artifacts, or those for this share."""
        self.position = page[-1].position
        self.batches += sum(record.partial for record in page)
        for record in page if self.of_shards else ():
            if record.partial:
                self.of_shards[shard_of(record.uid)] += 1
        pulled = [
            Pulled(record.stream.node_id, record.uid, reader.meta(record), record.position)
            for record in page
        ]
        found = [item for item in pulled if item.meta is not None]
        self.artifacts += len(found)
        return [item for item in found if share.has(item.position)] if share else found


class InputRequest:
    """The input of an adapter: its arguments, the node's parents, and their artifacts."""

    def __init__(
        self,
        *,
        adapter: str,
        args: Mapping[str, Any],
        context: RunContext,
        sources: Callable[[], Awaitable[Sequence[Source]]],
        latest_sources: Callable[[], Awaitable[Sequence[Source]]],
        reader: ArtifactReader,
        watches: StreamWatches,
        readings: Readings,
        slot: Slot,
        max_ahead: int,
        share: Share | None,
        poll_ms_default: int,
        pause_sec: float | None,
        measure_lag: Callable[[float], None] | None,
    ) -> None:
        """The run needs no ``slot`` while the request waits for artifacts.

        ``max_ahead`` is the number of batches that the parents may be ahead.

        ``share`` says which artifacts a shard reads.

        ``pause_sec`` is the longest time between two pages, after which the worker sends a
        heartbeat. ``measure_lag`` gets the age of the first artifact of each page of a node that
        runs.
        """
        self.adapter = adapter
        self.context = context
        """The context of the run.

        ``context.cancellable`` ends a wait of the adapter when the run is cancelled.
        """
        self._args = dict(args)
        self._sources = sources
        self._latest_sources = latest_sources
        self._reader = reader
        self._watches = watches
        self._readings = readings
        self._slot = slot
        self._max_ahead = max_ahead
        self._share = share
        self._poll_ms_default = poll_ms_default
        self._pause_sec = pause_sec
        self._measure_lag = measure_lag

    # ------------------------------------------------ arguments

    def take(self, name: str, kind: type[T], default: Any = _MISSING) -> T:
        """Take an argument of this type.

        Raises:
            InputAdapterError: ``bad_input_args``; the argument is missing and has no default, or
                has another type.
        """
        value = self._args.pop(name, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                raise self.bad(f"{name} is missing")
            return default  # type: ignore[no-any-return]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.bad(f"{name} must be of type {kind.__name__}, not {value!r}")
        return value

    def no_other_arguments(self) -> None:
        """Reject arguments that were not taken."""
        if self._args:
            raise self.bad(f"there is no argument {', '.join(map(repr, sorted(self._args)))}")

    def bad(self, message: str) -> InputAdapterError:
        """Return the error for a wrong argument."""
        return InputAdapterError(f"{self.adapter}: {message}", reason_code="bad_input_args")

    async def take_sources(self) -> list[Source]:
        """Return the parents that ``from_node`` or ``from_nodes`` name, by default all."""
        one, many = self._args.pop("from_node", None), self._args.pop("from_nodes", None)
        if one is not None and many is not None:
            raise self.bad("give from_node or from_nodes, not both")
        names = [one] if one is not None else many
        parents = {source.node_id: source for source in await self._sources()}
        if names is None:
            return list(parents.values())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.bad("from_node must be a node id, from_nodes a list of node ids")
        if not names:
            raise self.bad(
                "from_nodes is empty; name parents of the node, or leave it out to read all of them"
            )
        if unknown := [name for name in names if name not in parents]:
            raise self.bad(
                f"{', '.join(map(repr, unknown))}: not among the parents of node"
                f" {self.context.node_id!r}"
            )
        return [parents[name] for name in dict.fromkeys(names)]

    def take_poll_ms(self) -> int:
        """Return the argument ``poll_ms``: the time between two polls without a hint."""
        poll_ms = self.take("poll_ms", int, self._poll_ms_default)
        if poll_ms < 1:
            raise self.bad(f"poll_ms must be at least 1, not {poll_ms}")
        return poll_ms

    # ------------------------------------------------ artifacts

    async def follow(
        self,
        sources: Sequence[Source],
        *,
        poll_ms: int,
        wake_at: Callable[[], float | None] = lambda: None,
    ) -> AsyncGenerator[list[Pulled], None]:
        """Yield the artifacts of these nodes in pages, as they are stored.

        The sources take turns. The iteration ends when all nodes have ended and all artifacts are
        read.

        An empty page means that there is nothing more at the moment. Yield it on, so that retries
        of batches run meanwhile, and heartbeats are sent. While the iteration waits for more,
        another empty page comes at the time ``wake_at()`` by the monotonic clock, if there is one.

        Raises:
            NodeFailure: ``artifact_lost``; an artifact that was stored is missing.
            InputAdapterError: ``bad_input_args``; a node finished with a result and stored no
                artifact.
        """
        task_id = self.context.task_id
        positions = {
            Stream(task_id, source.node_id, source.generation): _Position(source)
            for source in sources
        }
        watch = StreamWatch(list(positions))
        watch.ended.update(stream for stream, one in positions.items() if one.source.ended)
        poll_sec = min(poll_ms / 1000, self._pause_sec or inf)
        self._watches.add(watch)
        try:
            with self._readings.of(
                self.context.node_id,
                self._max_ahead,
                {stream: one.of_shards for stream, one in positions.items()},
                watch.ended,
            ) as reading:
                merged = self._merged(positions, watch, reading, poll_sec, wake_at)
                async with aclosing(merged) as pages:
                    async for page in pages:
                        yield page
        finally:
            self._watches.remove(watch)
        self._check_complete(positions)

    async def _merged(
        self,
        positions: Mapping[Stream, _Position],
        watch: StreamWatch,
        reader: Reading,
        poll_sec: float,
        wake_at: Callable[[], float | None],
    ) -> AsyncGenerator[list[Pulled], None]:
        reading = dict.fromkeys(positions)
        due = deque(positions)
        clock = self.context.clock
        poll_at = clock.monotonic()  # a stream may have ended since the command was sent
        rest_at: float | None = None
        while reading:
            while due:
                turn = [due.popleft() for _ in range(min(READ_AT_ONCE, len(due)))]
                was_ended = watch.ended.intersection(turn)
                watch.moved.difference_update(turn)
                await self._load_ended(was_ended, positions)
                for stream, page in zip(
                    turn, await self._pages(turn, positions, was_ended), strict=True
                ):
                    if page:
                        due.append(stream)
                        if self._measure_lag is not None and stream not in was_ended:
                            self._measure_lag(clock.now() - page[0].created_at)
                        for start in range(0, len(page), reader.step):
                            part = page[start : start + reader.step]
                            one = positions[stream]
                            if found := one.advance(part, self._reader, self._share):
                                yield found
                                rest_at = None
                            reader.moved(stream, one.position, one.of_shards)
                    elif stream in was_ended:
                        reading.pop(stream, None)
                if watch.moved:
                    waiting = set(due)
                    due.extend(one for one in _moved(reading, watch) if one not in waiting)
            yield []
            if reading:
                at = wake_at()
                if rest_at is None:
                    rest_at = clock.monotonic() + REST_AFTER_SEC
                until = poll_at if at is None else min(poll_at, at)
                next_due = await self._next_due(reading, watch, until=until, rest_at=rest_at)
                if clock.monotonic() >= poll_at:
                    await self._find_ended(reading, watch)
                    next_due, poll_at = list(reading), clock.monotonic() + poll_sec
                due.extend(next_due)

    async def _load_ended(
        self, ended: Collection[Stream], positions: Mapping[Stream, _Position]
    ) -> None:
        """Load the sources of streams that ended during the run: their nodes may have kept their
        artifacts, and the number of batches is known now.
        """
        if all(positions[stream].source.ended for stream in ended):
            return
        with suppress(TaskNotFound):  # the outcome of a deleted task is ignored
            for source in await self._latest_sources():
                stream = Stream(self.context.task_id, source.node_id, source.generation)
                if stream in ended:
                    positions[stream].source = source

    def _check_complete(self, positions: Mapping[Stream, _Position]) -> None:
        """Check that every stored batch was read."""
        for stream, one in positions.items():
            source = one.source
            check_complete(stream, stored=source.batches, found=one.batches)
            if source.result_only and not one.artifacts:
                instead = "read its result from ctx.results"
                raise self.bad(no_artifacts_error(stream.node_id, use="pull", instead=instead))

    async def _pages(
        self,
        turn: Sequence[Stream],
        positions: Mapping[Stream, _Position],
        ended: Collection[Stream],
    ) -> list[Sequence[ArtifactRecord]]:
        async def page(stream: Stream) -> Sequence[ArtifactRecord]:
            one = positions[stream]
            return await self._reader.page(
                stream, after=one.position, to_the_end=stream in ended, kept=one.source.kept
            )

        if len(turn) == 1:
            return [await page(turn[0])]
        pages: list[Sequence[ArtifactRecord]] = [()] * len(turn)

        async def read(place: int, stream: Stream) -> None:
            pages[place] = await page(stream)

        async with anyio.create_task_group() as group:
            for place, stream in enumerate(turn):
                group.start_soon(read, place, stream)
        return pages

    async def _next_due(
        self, reading: Collection[Stream], watch: StreamWatch, *, until: float, rest_at: float
    ) -> list[Stream]:
        """Wait for streams that have moved, and return them; at ``until``, return all streams.

        The wait needs no slot: at ``rest_at`` the run gives it up.
        """
        if moved := _moved(reading, watch):
            return moved
        self._slot.pause(self.context)
        now = self.context.clock.monotonic()
        if rest_at < until:
            if rest_at > now and await self._has_moved(reading, watch, for_sec=rest_at - now):
                return _moved(reading, watch)
            self._slot.rest(self.context)
            now = self.context.clock.monotonic()
        has_moved = await self._has_moved(reading, watch, for_sec=max(until - now, 0))
        return _moved(reading, watch) if has_moved else list(reading)

    async def _has_moved(
        self, reading: Collection[Stream], watch: StreamWatch, *, for_sec: float
    ) -> bool:
        """Wait for streams that have moved, and return whether one has within this time."""
        wait = within(for_sec, partial(watch.wait, reading), clock=self.context.clock)
        return await self.context.cancellable(wait)

    async def _find_ended(self, reading: Collection[Stream], watch: StreamWatch) -> None:
        open_now = {
            (source.node_id, source.generation)
            for source in await self._latest_sources()
            if not source.ended
        }
        watch.ended.update(
            stream for stream in reading if (stream.node_id, stream.generation) not in open_now
        )


def _moved(reading: Collection[Stream], watch: StreamWatch) -> list[Stream]:
    return [stream for stream in reading if stream in watch.moved]


async def _take_pulled(request: InputRequest) -> list[Source]:
    sources = await request.take_sources()
    if not sources:
        raise request.bad(
            f"node {request.context.node_id!r} has no parents to pull from; add edges to it"
        )
    return sources


async def pulled_pages(
    request: InputRequest, *, wake_at: Callable[[], float | None] = lambda: None
) -> AsyncGenerator[list[Pulled], None]:
    """Take the arguments of ``pull.from_artifacts``, and return the pages of artifacts."""
    sources = await _take_pulled(request)
    poll_ms = request.take_poll_ms()
    request.no_other_arguments()
    return request.follow(sources, poll_ms=poll_ms, wake_at=wake_at)


async def pull_from_artifacts(
    request: InputRequest,
) -> AsyncGenerator[Batch | Sequence[Batch], None]:
    """Yield one batch per artifact: ``{"from_node", "ref", "meta"}``.

    Arguments: ``from_node`` or ``from_nodes``, ``poll_ms``.
    """
    async with aclosing(await pulled_pages(request)) as pages:
        async for page in pages:
            yield [
                Batch(_uid(item), {"from_node": item.from_node, "ref": item.ref, "meta": item.meta})
                for item in page
            ]


async def pull_rechunked(request: InputRequest) -> AsyncGenerator[Batch | Sequence[Batch], None]:
    """Yield the items of each artifact, ``size`` at a time: ``{"from_node", "items", "parent"}``.

    The items are the list ``meta_list_key`` of the artifact. Without that argument they are its
    only list; an artifact that does not have exactly one list is itself the one item. Further
    arguments: ``from_node`` or ``from_nodes``, ``poll_ms``.
    """
    size = request.take("size", int)
    if size < 1:
        raise request.bad(f"size must be at least 1, not {size}")
    key = request.take("meta_list_key", str, None)
    sources = await _take_pulled(request)
    poll_ms = request.take_poll_ms()
    request.no_other_arguments()
    async with aclosing(request.follow(sources, poll_ms=poll_ms)) as pages:
        async for page in pages:
            if not page:
                yield []
            for pulled in page:
                yield _chunks(
                    request, pulled, size, key if key is not None else _only_list(pulled.meta)
                )


def _chunks(request: InputRequest, pulled: Pulled, size: int, list_key: str | None) -> list[Batch]:
    items = [pulled.meta] if list_key is None else pulled.meta.get(list_key)
    if not isinstance(items, list):
        raise request.bad(
            f"meta_list_key: {list_key!r} is not a list in artifact {pulled.ref!r} of node"
            f" {pulled.from_node!r}"
        )
    parent = {"ref": pulled.ref, "list_key": list_key}
    return [
        Batch(
            _uid(pulled, number),
            {
                "from_node": pulled.from_node,
                "items": items[start : start + size],
                "parent": parent | {"chunk": number},
            },
        )
        for number, start in enumerate(range(0, len(items), size))
    ]


def _uid(pulled: Pulled, *more: int) -> str:
    """Return a uid that is unique for each artifact, and short even after a long chain of nodes."""
    return _short(":".join((_escaped(pulled.from_node), pulled.ref, *map(str, more))))


def ranges_uid(ranges: Iterable[tuple[str, int, int]]) -> str:
    """Return the uid of artifacts of some nodes, from the first to the last position of each."""
    return _short("+".join(f"{_escaped(node)}:{first}-{last}" for node, first, last in ranges))


def _escaped(node: str) -> str:
    return node.replace("%", "%25").replace(":", "%3A")


def _short(uid: str) -> str:
    return (
        uid
        if len(uid) <= MAX_UID
        else f"{uid[: MAX_UID - 40]}~{sha256(uid.encode()).hexdigest()[:32]}"
    )


def _only_list(meta: Any) -> str | None:
    lists = [key for key, value in meta.items() if isinstance(value, list)]
    return lists[0] if len(lists) == 1 else None


def register_input_adapters(register: Callable[[str, InputAdapter], None]) -> None:
    """Register the built-in adapters."""
    register("pull.from_artifacts", pull_from_artifacts)
    register("pull.from_artifacts.rechunk:size", pull_rechunked)
