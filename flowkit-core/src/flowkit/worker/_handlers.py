"""Handlers: base class, batches and results, and checks of their declarations and values."""

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkit._json.metrics import Numbers, is_finite
from flowkit._json.python_objects import PLAIN_TYPES, NotWritable, plain_object, read_object
from flowkit._json.values import NotJson, json_copy, short
from flowkit._text.redaction import shortened
from flowkit._user_code.containment import contained, error_text
from flowkit._user_code.reason_codes import default_classification
from flowkit.errors import ConfigError, NodeFailure

if TYPE_CHECKING:
    from flowkit.worker._context import RunContext

ARGUMENTS = {
    "init": ("run_info",),
    "load_input": ("input_ref", "input_inline"),
    "iter_batches": ("loaded",),
    "process_batch": ("batch", "ctx"),
    "finalize": ("ctx",),
    "classify_error": ("exc",),
}
"""The methods of a handler and the arguments of their calls."""
AWAITED = ("init", "load_input", "process_batch", "finalize")
_SAFE_INT = 2**63
_SHOWN_BITS = 128


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a node's work. The same part has the same ``batch_uid`` in every attempt."""

    batch_uid: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch.

    ``artifacts_ref``, a JSON object, is stored as the batch's artifact; ``metrics`` are added to
    the node's. A batch without ``success`` has failed with ``reason_code`` and ``error``;
    ``permanent`` says that a retry is useless.
    """

    success: bool
    metrics: Mapping[str, float | int] = field(default_factory=dict)
    artifacts_ref: Mapping[str, Any] | None = None
    reason_code: str | None = None
    permanent: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """The end of a node: its result, its complete artifact and its metrics.

    ``metrics`` replace the sums over the batches by name.
    """

    metrics: Mapping[str, float | int] = field(default_factory=dict)
    artifacts_ref: Mapping[str, Any] | None = None
    result: Any = None


class Handler:
    """The work of a role, in batches. Only :meth:`process_batch` is required.

    An instance that is given to a worker is shared by all its runs, which may overlap. If a handler
    keeps state of a run, give the worker its class, or :func:`per_run` with a function that makes
    an instance: then each run has its own.

    Raises:
        ConfigError: at the definition of a subclass, if a method does not match its call, such as
            a ``process_batch`` without ``async``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_methods(cls)

    async def init(self, run_info: dict[str, Any]) -> None:
        """Prepare the run.

        This is called first. ``run_info`` has ``task_id``, ``node_id``, ``role``, ``attempt``,
        ``worker_id``, ``generation``, ``params`` and ``io``.
        """

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        """Load the input.

        A returned dict with ``input_adapter`` (and ``input_args``) proposes an input adapter.
        """
        return {"input_ref": input_ref, "input_inline": input_inline}

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        """Yield the batches if there is no input adapter.

        The default is one batch, whose payload is the value that ``load_input`` returned. With
        ``io.batching = {"size": n}`` the default is the items of the input, n at a time, as
        ``{"items": [...]}``.
        """
        yield whole_batch(loaded)

    async def process_batch(self, batch: Batch, ctx: "RunContext") -> BatchResult:
        """Process a batch. Its result is stored and counted once, even if it is processed again."""
        raise NotImplementedError(f"{type(self).__name__} has no process_batch")

    async def finalize(self, ctx: "RunContext") -> FinalizeResult | None:
        """Return the end of the node. This is called when all batches are stored."""
        return None

    def classify_error(self, exc: BaseException) -> tuple[str, bool]:
        """Return the reason code of an error, and whether it is permanent.

        ``permanent_on`` in the node's ``retry_policy`` replaces this default. It is added to the
        answers of an override.
        """
        return default_classification(exc)


def whole_batch(loaded: Any) -> Batch:
    """Return the batch of an input that is not divided."""
    return Batch("0", loaded)


RoleHandler = Handler
"""Another name of :class:`flowkit.worker.Handler`."""


@dataclass(frozen=True, slots=True)
class PerRun:
    """A handler that is made separately for each run.

    Raises:
        ConfigError: ``make`` cannot be called without arguments.
    """

    make: Callable[[], Handler]

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise ConfigError(
                f"per_run takes a function that makes a handler, not {type(self.make).__name__}"
            )
        check_made_without_arguments(
            self.make, "give per_run a function without parameters, such as a lambda"
        )


def per_run(make: Callable[[], Handler]) -> PerRun:
    """Declare that each run has its own handler, made by calling ``make``.

    Raises:
        ConfigError: ``make`` cannot be called without arguments.
    """
    return PerRun(make)


def wrong_declaration(name: str, fault: str, declared: Any) -> ConfigError:
    """Return the error for an invalid declaration. It names the file and line of ``declared``."""
    return ConfigError(f"{name} cannot be a handler: {fault}{place_of(declared)}")


def place_of(declared: Any) -> str:
    """Return the place of a function or class as ``" (file.py, line 3)"``, or ``""``."""
    if isinstance(declared, type):
        try:
            return (
                f" ({inspect.getsourcefile(declared)}, line {inspect.getsourcelines(declared)[1]})"
            )
        except (OSError, TypeError, SyntaxError):
            methods = [value for value in vars(declared).values() if inspect.isfunction(value)]
            declared = methods[0] if methods else declared
    code = getattr(inspect.unwrap(declared), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""


def check_methods(owner: type) -> None:
    """Check the methods of a subclass of Handler, including those inherited from other classes.

    Raises:
        ConfigError: a method does not match its call.
    """
    for method in ARGUMENTS:
        found = inspect.getattr_static(owner, method)
        written = inspect.unwrap(found) if callable(found) else None
        if not inspect.isfunction(written):
            continue
        if method in AWAITED and inspect.isasyncgenfunction(written):
            raise wrong_declaration(
                owner.__name__, f"{method} yields; let it return a value", written
            )
        if method in AWAITED and not inspect.iscoroutinefunction(written):
            raise wrong_declaration(
                owner.__name__, f"{method} is awaited; write it with 'async def'", written
            )
        if method == "classify_error" and inspect.iscoroutinefunction(written):
            raise wrong_declaration(
                owner.__name__, "classify_error is not awaited; write it with 'def'", written
            )
        _check_arguments(owner, method, written)


def _check_arguments(owner: type, method: str, written: Callable[..., Any]) -> None:
    wanted = ARGUMENTS[method]
    try:
        inspect.signature(written).bind("self", *wanted)
    except TypeError:
        fault = f"{method} is called with ({', '.join(wanted)}) and does not accept these arguments"
        raise wrong_declaration(owner.__name__, fault, written) from None


def check_made_without_arguments(make: Any, advice: str) -> None:
    """Check that a handler can be made by calling ``make()``.

    Raises:
        ConfigError: ``make`` needs arguments, or has abstract methods.
    """
    name = getattr(make, "__name__", type(make).__name__)
    if inspect.isabstract(make):
        raise wrong_declaration(
            name, f"it has abstract methods: {', '.join(sorted(make.__abstractmethods__))}", make
        )
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise wrong_declaration(
            name, f"each run makes its own by calling {name}(): {error}; {advice}", make
        ) from None
    except ValueError:
        return  # a class written in another language, without a signature


def bad_result(message: str) -> NodeFailure:
    """Return the failure of a handler that returned an invalid value."""
    return NodeFailure(message, reason_code="bad_result", permanent=True)


def json_value(value: Any, what: str) -> Any:
    """Return a copy of ``value`` as its readers get it from JSON.

    :mod:`flowkit._json.values` lists the accepted types.

    Raises:
        NodeFailure: ``bad_result``; a part of the value is not accepted.
    """
    if (
        value is None
        or value is True
        or value is False
        or (type(value) is int and -_SAFE_INT < value < _SAFE_INT)
    ):
        return value
    try:
        return json_copy(value, what)
    except NotJson as error:
        raise bad_result(str(error)) from None


def json_object(value: Any, what: str) -> dict[str, Any] | None:
    """Return a copy of a value that must be a JSON object or None."""
    if value is None:
        return None
    copy = json_value(value, what)
    if not isinstance(copy, dict):
        raise bad_result(f"{what} must be a JSON object or None, not {type(value).__name__}")
    return copy


def numbers(metrics: Any, what: str) -> Numbers:
    """Return a copy of metrics, which are finite numbers by name.

    Raises:
        NodeFailure: ``bad_result``; a name or a number is invalid.
    """
    if metrics is None:
        return {}
    if _is_usual(metrics):
        return dict(metrics)
    try:
        found = metrics if _is_plain(metrics) else contained(_by_name, metrics)
    except NotWritable as error:
        raise bad_result(f"{what} cannot be stored: it {error}") from None
    except Exception as error:
        raise bad_result(f"{what} cannot be read: {error_text(error, most=400)}") from None
    if found is None:
        raise bad_result(f"{what} must be numbers by name, not {shortened(type(metrics).__name__)}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, int | float) or not is_finite(value):
            raise bad_result(
                f"{what} must be finite numbers by name; {short(name)} is {_shown(value)}"
            )
    return {name: int(value) if isinstance(value, bool) else value for name, value in found.items()}


def _is_usual(metrics: Any) -> bool:
    """Return whether no closer look at the metrics is needed."""
    if type(metrics) is not dict:
        return False
    for name, value in metrics.items():
        kind = type(value)
        if type(name) is not str or not (
            (kind is int and -_SAFE_INT < value < _SAFE_INT)
            or (kind is float and value - value == 0.0)
        ):
            return False
    return True


def _is_plain(metrics: Any) -> bool:
    """Return whether reading the metrics runs no foreign code."""
    return (
        type(metrics) is dict
        and {str}.issuperset(map(type, metrics))
        and PLAIN_TYPES.issuperset(map(type, metrics.values()))
    )


def _by_name(metrics: Any) -> dict[Any, Any] | None:
    """Return the content of metrics, or None if they are not a mapping."""
    if not metrics:
        return {}
    if not isinstance(metrics, Mapping):
        return None
    return {
        name: value if type(value) in PLAIN_TYPES else read_object(value)
        for name, value in plain_object(metrics.items()).items()
    }


def _shown(value: object) -> str:
    # Python refuses to convert very large integers to text.
    return (
        f"an integer of {value.bit_length()} bits"
        if isinstance(value, int) and value.bit_length() > _SHOWN_BITS
        else short(value)
    )
