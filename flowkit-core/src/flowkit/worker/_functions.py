"""Plain functions as handlers."""

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, get_args

import anyio.to_thread
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from flowkit._user_code import threads as _threads
from flowkit.errors import ConfigError, NodeFailure
from flowkit.worker._context import RunContext
from flowkit.worker._handlers import wrong_declaration

_END = object()


class FunctionHandler:
    """A function as the handler of a role: ``f(item, ctx)``, ``f(item)`` or ``f()``.

    It may be a coroutine function or an async generator function. A plain function or generator
    function runs in a worker thread. If the first parameter is annotated with a pydantic model, the
    item is validated. The handler can be called like its function.
    """

    def __init__(self, function: Callable[..., Any], *, role: str | None = None) -> None:
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
        self.role = role
        target = inspect.unwrap(function)
        while isinstance(target, functools.partial):
            target = target.func
        if not inspect.isroutine(target):
            target = type(target).__call__
        self._is_async = inspect.iscoroutinefunction(target)
        self._yields_async = inspect.isasyncgenfunction(target)
        self.generates = self._yields_async or inspect.isgeneratorfunction(target)
        self.threaded = not self._is_async and not self._yields_async
        self._signature = _signature(function, target)
        self._adapter = _adapter_for(self._signature.annotation, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    async def call(self, item: Any, ctx: RunContext) -> Any:
        """Call the function with one item and return its result."""
        args = self._arguments(item, ctx)
        if self._is_async:
            return await self.function(*args)
        result = await _threads.in_thread(self.function, *args)
        return await result if inspect.isawaitable(result) else result

    async def iterate(self, item: Any, ctx: RunContext) -> AsyncGenerator[Any, None]:
        """Call the function with one item and yield its values."""
        made = self.function(*self._arguments(item, ctx))
        if self._yields_async:
            try:
                async for value in made:
                    yield value
            finally:
                await made.aclose()
            return
        generator: Generator[Any, Any, Any] = made
        while (value := await _threads.in_thread(next, generator, _END)) is not _END:
            try:
                yield value
            except GeneratorExit:
                await _threads.in_thread(generator.close)
                raise

    def _arguments(self, item: Any, ctx: RunContext) -> tuple[Any, ...]:
        takes = self._signature
        if not takes.takes_item:
            return (ctx,) if takes.takes_ctx else ()
        if self._adapter is not None:
            item = self._validated(item, self._adapter)
        return (item, ctx) if takes.takes_ctx else (item,)

    def _validated(self, item: Any, adapter: TypeAdapter[Any]) -> Any:
        try:
            return adapter.validate_python(item)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the item"
            message = (
                f"the input of {self.__name__} does not match: {place}: {first['msg']}"
                f" ({error.error_count()} faults)"
            )
            raise NodeFailure(message, reason_code="schema_mismatch", permanent=True) from None

    __name__: str = "function"


def handler(role: str) -> Callable[[Callable[..., Any]], FunctionHandler]:
    """Make a function the handler of a role: ``@handler("resize")``.

    Raises:
        ConfigError: the role is missing, or the function cannot be called as a handler. The
            message names its file and line.
    """
    if not isinstance(role, str) or not role:
        raise ConfigError('a handler is declared with its role: @handler("role")')
    return lambda function: FunctionHandler(function, role=role)


def allow_threads(count: int) -> None:
    """Allow at least ``count`` synchronous functions at a time in this event loop.

    They count against anyio's own limit: virtual clocks read it to detect running threads.
    """
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(limiter.total_tokens, count)


@dataclass(frozen=True, slots=True)
class _Signature:
    """The parameters of a function that is a handler."""

    takes_item: bool
    takes_ctx: bool
    annotation: Any = None
    """The annotation of the item."""


def _signature(function: Callable[..., Any], target: Any) -> _Signature:
    name = getattr(function, "__name__", repr(function))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise wrong_declaration(name, "it has no readable signature", function) from None
    within = getattr(target, "__qualname__", "").rpartition(".")[0]
    if (
        next(iter(parameters), None) is not None
        and parameters[0].name == "self"
        and within
        and not within.endswith("<locals>")
    ):
        raise wrong_declaration(
            name,
            "it is a method, and would be called without self; use a plain function or a Handler"
            " class",
            function,
        )
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 2 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise wrong_declaration(
            name,
            "it is called with an item and a context, as f(item, ctx), f(item) or f()",
            function,
        )
    if len(positional) == 1 and _is_context(positional[0]):
        return _Signature(takes_item=False, takes_ctx=True)
    takes_ctx = len(positional) > 1 and (positional[1] in needed or _is_context(positional[1]))
    annotation = _resolved(positional[0], target, name) if positional else None
    return _Signature(bool(positional), takes_ctx, annotation)


def _is_context(parameter: inspect.Parameter) -> bool:
    return (
        parameter.name == "ctx"
        or parameter.annotation is RunContext
        or parameter.annotation == "RunContext"
    )


def _resolved(parameter: inspect.Parameter, target: Any, name: str) -> Any:
    annotation = parameter.annotation
    if annotation is parameter.empty or not isinstance(annotation, str):
        return annotation
    scope = dict(inspect.getclosurevars(target).nonlocals) if inspect.isfunction(target) else {}
    module = sys.modules.get(getattr(target, "__module__", ""), None)
    try:
        return eval(  # noqa: S307
            annotation, getattr(target, "__globals__", vars(module) if module else {}), scope
        )
    except Exception as error:
        fault = (
            f"the annotation {annotation!r} of {parameter.name!r} cannot be resolved ({error});"
            " import it at run time"
        )
        raise wrong_declaration(name, fault, target) from None


def _adapter_for(annotation: Any, function: Any) -> TypeAdapter[Any] | None:
    if not _mentions_model(annotation):
        return None
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError as error:
        name = getattr(function, "__name__", repr(function))
        raise wrong_declaration(
            name, f"pydantic cannot validate {annotation!r}: {str(error).splitlines()[0]}", function
        ) from None


def _mentions_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_mentions_model(part) for part in get_args(annotation))
