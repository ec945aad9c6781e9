"""Handlers: base class, batches and results."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkit._user_code.reason_codes import default_classification
from flowkit.errors import ConfigError
from flowkit.worker._declarations import check_made_without_arguments, check_methods

if TYPE_CHECKING:
    from flowkit.worker._context import RunContext


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
        yield Batch("0", loaded)

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


RoleHandler = Handler


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
