"""Plain functions as handlers."""

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from copy import copy
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

import anyio.to_thread

from flowkit._flow_building import (
    FlowBuilding,
    NodeOptions,
    NodeRef,
    building_flow,
)
from flowkit._flow_building.drafts import Draft
from flowkit._flow_building.inputs import InputWriter
from flowkit._flow_building.maps import Mappable
from flowkit._flow_building.options import unknown_option
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.streams import stream_node
from flowkit._user_code import threads as _threads
from flowkit.errors import ConfigError
from flowkit.graph._control_types import role_fault
from flowkit.worker._context import RunContext
from flowkit.worker._handlers import wrong_declaration
from flowkit.worker._signatures import HandlerSignature, UnusableSignature, called_function

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)

_END = object()


class FunctionHandler(Mappable, Generic[P, R_co]):
    """A function as the handler of a role: ``f(item, ctx)``, ``f(item)``, ``f()`` or
    ``f(a, b, ctx)``.

    It may be a coroutine function or an async generator function. A plain function or generator
    function runs in a worker thread.

    In a flow in Python, its call makes a node. Elsewhere, it is the call of its function.
    """

    __name__: str = "function"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        role: str | None = None,
        options: NodeOptions | None = None,
    ) -> None:
        """Check the signature.

        Raises:
            ConfigError: the function has none of the forms above.
        """
        if isinstance(function, type):
            fault = (
                "it is a class; give it to the worker under its role, as handlers={'role': "
                + function.__name__
                + "}"
            )
            raise wrong_declaration(function.__name__, fault, function)
        functools.update_wrapper(self, function)
        self.function = function
        """The function itself."""
        self.role = role
        self.node_options = options or NodeOptions()
        """Options of the nodes that its calls make."""
        target = called_function(function)
        self._is_async = inspect.iscoroutinefunction(target)
        self._yields_async = inspect.isasyncgenfunction(target)
        self.generates = self._yields_async or inspect.isgeneratorfunction(target)
        self.threaded = not self._is_async and not self._yields_async
        try:
            self._signature = HandlerSignature.of(function, generates=self.generates)
        except UnusableSignature as error:
            name = getattr(function, "__name__", repr(function))
            raise wrong_declaration(name, str(error), function) from None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NodeRef[R_co]:
        """Make a node of the flow that is being built, or call the function."""
        flow = building_flow()
        if flow is not None:
            return flow.call(self, args, kwargs)
        return cast("NodeRef[R_co]", self.function(*args, **kwargs))

    def options(self, **options: Unpack[NodeOptions]) -> Self:
        """Return this handler with other options for the nodes that its calls make."""
        if (fault := unknown_option(options)) is not None:
            raise flow_error(f"{self.__name__}.options: {fault}")
        made = copy(self)
        made.node_options = {**self.node_options, **options}
        return made

    @overload
    def stream(
        self,
        source: NodeRef[Any],
        /,
        *more: NodeRef[Any],
        parallel: int | None = None,
        shards: int | None = None,
        max_ahead: int | None = None,
    ) -> NodeRef[None]: ...
    @overload
    def stream(
        self,
        source: NodeRef[Any],
        /,
        *more: NodeRef[Any],
        size: int,
        max_wait_sec: float | None = None,
        parallel: int | None = None,
        shards: int | None = None,
        max_ahead: int | None = None,
    ) -> NodeRef[None]: ...
    def stream(self, *sources: Any, **options: Any) -> NodeRef[None]:
        """Make a node that reads the artifacts of other nodes while these still run.

        The function is called with each artifact. With a ``size``, it is called with lists of that
        many, or of those that come within ``max_wait_sec`` after the first one. What it returns or
        yields is an artifact of the node, which has no result. With ``parallel``, up to that many
        calls are made at the same time. With ``shards``, the artifacts are divided among that many
        shards, which run on several workers. The other nodes wait while it runs and is
        ``max_ahead`` artifacts behind.
        """
        return stream_node(self, sources, options)

    def new_draft(self, flow: FlowBuilding) -> Draft:
        """Add a node with its role."""
        return flow.handler_node(self)

    def written_io(self, writer: InputWriter, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the input of a node that calls it with these arguments."""
        return {"input_inline": writer.arguments(self, given)}

    @property
    def takes_context(self) -> bool:
        """Whether the function has a parameter for the context."""
        return self._signature.context is not None

    @property
    def parameters(self) -> Sequence[inspect.Parameter]:
        """Parameters aside from the context."""
        return self._signature.parameters

    @property
    def returns(self) -> Any:
        """Annotation of its result. A generator has no result."""
        return None if self.generates else self._signature.returns

    async def call(self, item: Any, ctx: RunContext) -> Any:
        """Call the function with one item and return its result."""
        args, named = self._arguments(item, ctx)
        if self._is_async:
            return self._signature.checked_result(await self.function(*args, **named))
        result = await _threads.in_thread(functools.partial(self.function, *args, **named))
        return self._signature.checked_result(
            await result if inspect.isawaitable(result) else result
        )

    def iterate(self, item: Any, ctx: RunContext) -> AsyncGenerator[Any, None]:
        """Call the function with one item and return its values."""
        args, named = self._arguments(item, ctx)
        made = self.function(*args, **named)
        if not self._yields_async:
            return self._iterate_in_threads(made)
        return made if self._signature.result is None else self._checked(made)

    async def _checked(self, made: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        async with aclosing(made):
            async for value in made:
                yield self._signature.checked_result(value)

    async def _iterate_in_threads(
        self, generator: Generator[Any, Any, Any]
    ) -> AsyncGenerator[Any, None]:
        while (value := await _threads.in_thread(next, generator, _END)) is not _END:
            try:
                yield self._signature.checked_result(value)
            except GeneratorExit:
                await _threads.in_thread(generator.close)
                raise

    def _arguments(self, item: Any, ctx: RunContext) -> tuple[list[Any], dict[str, Any]]:
        return self._signature.arguments(item, ctx)


AnyFunctionHandler = FunctionHandler[..., Any]


class _TakesContext(Protocol[R_co]):
    def __call__(self, ctx: RunContext) -> R_co: ...


class _TakesItemAndContext(Protocol[Item_contra, R_co]):
    def __call__(self, item: Item_contra, /, ctx: RunContext) -> R_co: ...


class _TakesTwoAndContext(Protocol[R_co]):
    def __call__(self, first: Any, second: Any, /, ctx: RunContext) -> R_co: ...


class _TakesThreeAndContext(Protocol[R_co]):
    def __call__(self, first: Any, second: Any, third: Any, /, ctx: RunContext) -> R_co: ...


class _Declare(Protocol):
    """Decorator of handlers. The context is no parameter of the calls in a flow.

    Types cannot say that the last of several parameters is left out. For functions with two or
    three parameters before the context, calls are checked when the flow is built.
    """

    @overload
    def __call__(
        self, function: _TakesContext[Coroutine[Any, Any, R]], /
    ) -> FunctionHandler[[], R]: ...
    @overload
    def __call__(self, function: _TakesContext[R], /) -> FunctionHandler[[], R]: ...
    @overload
    def __call__(
        self, function: _TakesItemAndContext[Item, Coroutine[Any, Any, R]], /
    ) -> FunctionHandler[[Item], R]: ...
    @overload
    def __call__(
        self, function: _TakesItemAndContext[Item, R], /
    ) -> FunctionHandler[[Item], R]: ...
    @overload
    def __call__(
        self, function: _TakesTwoAndContext[Coroutine[Any, Any, R]], /
    ) -> FunctionHandler[..., R]: ...
    @overload
    def __call__(self, function: _TakesTwoAndContext[R], /) -> FunctionHandler[..., R]: ...
    @overload
    def __call__(
        self, function: _TakesThreeAndContext[Coroutine[Any, Any, R]], /
    ) -> FunctionHandler[..., R]: ...
    @overload
    def __call__(self, function: _TakesThreeAndContext[R], /) -> FunctionHandler[..., R]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> FunctionHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionHandler[P, R]: ...


def handler(role: str, **options: Unpack[NodeOptions]) -> _Declare:
    """Make a function the handler of a role: ``@handler("resize")``.

    ``options`` are fields of the nodes that its calls make in flows in Python, such as
    ``retry_policy``. Nodes of other graphs have their own.

    Raises:
        ConfigError: the role is missing or a built-in type, an option is unknown, or the function
            cannot be called as a handler. The message names its file and line.
    """
    if not isinstance(role, str) or not role:
        raise ConfigError('a handler is declared with its role: @handler("role")')

    def declare(function: Callable[..., Any]) -> Any:
        if (fault := role_fault(role) or unknown_option(options)) is not None:
            raise wrong_declaration(getattr(function, "__name__", repr(function)), fault, function)
        return FunctionHandler(function, role=role, options=options)

    return declare


def allow_threads(count: int) -> None:
    """Allow at least ``count`` synchronous functions at a time in this event loop.

    They count against anyio's own limit: virtual clocks read it to detect running threads.
    """
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(limiter.total_tokens, count)
