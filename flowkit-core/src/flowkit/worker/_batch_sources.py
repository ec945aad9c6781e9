"""Sources of batches: artifacts of other nodes, a list cut into pieces, a handler's iteration."""

import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from flowkit._records import queries
from flowkit._runtime.deadlines import patiently
from flowkit._user_code.containment import Titled
from flowkit.errors import InputAdapterError, NodeFailure
from flowkit.messages import RunContextData, RunNode, Source
from flowkit.worker._context import RunContext
from flowkit.worker._handler_values import bad_result
from flowkit.worker._handlers import Batch, Handler
from flowkit.worker._inputs import InputAdapter, InputRequest, Pulled
from flowkit.worker._services import Services

Page = Batch | Sequence[Batch]
Pages = AsyncGenerator[Page, None]
STREAM_ADAPTER = "pull.from_artifacts"
"""The default adapter of a node with a parent that streams."""
BATCHES_A_PAGE = 100
MAX_UID = 200


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
    ) -> None:
        self._command = command
        self._data = data
        self._context = context
        self._ending = ending
        self._services = services
        self._inline: Any = data.io.get("input_inline")
        self._adapter = (
            self._inline.get("input_adapter") if isinstance(self._inline, dict) else None
        )
        self.pulled = False
        """Whether the input adapter read the streams of the node's parents."""

    @property
    def whole(self) -> bool:
        """Whether the input is not divided into batches."""
        return (
            self._adapter is None
            and self._data.io.get("batching") is None
            and not self._data.streams
        )

    def for_function(self) -> Pages:
        """Return the batches of a function.

        They come from the adapter of the node, else from a parent that streams, else from
        ``io.batching``.
        """
        if self._adapter is not None:
            return self._adapted(self._adapter, self._inline.get("input_args"))
        if self._data.streams:
            return self._adapted(STREAM_ADAPTER, None)
        return cut(self._inline, self._data.io["batching"])

    def for_handler(self, handler: Handler, loaded: Any) -> "Batches":
        """Return the batches of a handler.

        They come from the adapter of the node, else from the adapter that ``load_input`` proposes,
        else from a parent that streams, else from the handler.
        """
        if self._adapter is not None:
            return Batches(self._adapted(self._adapter, self._inline.get("input_args")))
        proposed = loaded.get("input_adapter") if isinstance(loaded, dict) else None
        if proposed is not None and (
            self._services.cfg.strict_input_adapters or self._has_adapter(proposed)
        ):
            return Batches(self._adapted(proposed, loaded.get("input_args")))
        if self._data.streams:
            return Batches(self._adapted(STREAM_ADAPTER, None))
        own = type(handler).iter_batches is not Handler.iter_batches
        batching = self._data.io.get("batching")
        if batching is not None and not own:
            default = isinstance(loaded, dict) and "input_inline" in loaded
            return Batches(cut(loaded["input_inline"] if default else loaded, batching))
        return Batches(one_by_one(handler.iter_batches(loaded)), sole=not own)

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


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of a handler."""

    pages: Pages
    sole: bool = False
    """Whether there is only one batch, which is the whole input."""


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


async def _take_pulled(request: InputRequest) -> list[Source]:
    sources = await request.take_sources()
    if not sources:
        raise request.bad(
            f"node {request.context.node_id!r} has no parents to pull from; add edges to it"
        )
    return sources


async def pull_from_artifacts(
    request: InputRequest,
) -> AsyncGenerator[Batch | Sequence[Batch], None]:
    """Yield one batch per artifact: ``{"from_node", "ref", "meta"}``.

    Arguments: ``from_node`` or ``from_nodes``, ``poll_ms``.
    """
    sources = await _take_pulled(request)
    poll_ms = request.take_poll_ms()
    request.no_other_arguments()
    async with aclosing(request.follow(sources, poll_ms=poll_ms)) as pages:
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
    node = pulled.from_node.replace("%", "%25").replace(":", "%3A")
    uid = ":".join((node, pulled.ref, *map(str, more)))
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
