"""What users write: handlers, and the values they take and give."""

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
    """A piece of a node's work. Its ``batch_uid`` is the same whenever the same piece is met
    again.
    """

    batch_uid: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch.

    ``artifacts_ref``, a JSON object, is stored as the batch's artifact; ``metrics`` are added to
    the node's. A batch without ``success`` fails the attempt with ``reason_code`` and ``error``;
    ``permanent`` says that trying again is of no use.
    """

    success: bool
    metrics: Mapping[str, float | int] = field(default_factory=dict)
    artifacts_ref: Mapping[str, Any] | None = None
    reason_code: str | None = None
    permanent: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """A node's end: ``metrics`` laid over the sums of its batches, its complete artifact, its
    result.
    """

    metrics: Mapping[str, float | int] = field(default_factory=dict)
    artifacts_ref: Mapping[str, Any] | None = None
    result: Any = None


class Handler:
    """The work of a role, in batches. Every method may be left out except :meth:`process_batch`.

    An instance given to a worker is shared by all its runs, which may overlap; where a handler
    keeps state of a run, give its class (or :func:`per_run` with a function that makes one), and
    every run gets its own.

    Raises:
        ConfigError: where a subclass is defined, if a method is not written as it is called, such
            as a ``process_batch`` without ``async``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_methods(cls)

    async def init(self, run_info: dict[str, Any]) -> None:
        """Called first, with ``task_id``, ``node_id``, ``role``, ``attempt``, ``worker_id``,
        ``generation``, ``params`` and ``io``.
        """

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        """Prepare the input. A dict with ``input_adapter`` (and ``input_args``) in it proposes an
        input adapter.
        """
        return {"input_ref": input_ref, "input_inline": input_inline}

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        """The batches, where no input adapter is chosen: by default one, whose payload is what
        ``load_input`` returned.

        With ``io.batching = {"size": n}`` and this default, the items of the input come n at a time
        as ``{"items": [...]}``.
        """
        yield Batch("0", loaded)

    async def process_batch(self, batch: Batch, ctx: "RunContext") -> BatchResult:
        """Do the work of a batch. It is stored and counted once, however often it is delivered."""
        raise NotImplementedError(f"{type(self).__name__} has no process_batch")

    async def finalize(self, ctx: "RunContext") -> FinalizeResult | None:
        """Called when all batches are stored."""
        return None

    def classify_error(self, exc: BaseException) -> tuple[str, bool]:
        """Return the reason code of an error, and whether it is permanent.

        A ``permanent_on`` in the node's ``retry_policy`` replaces this default, but adds to the
        answers of an override.
        """
        return default_classification(exc)


RoleHandler = Handler


@dataclass(frozen=True, slots=True)
class PerRun:
    """A handler that is made for each run, by calling ``make``.

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
    """Give each run a handler of its own, made by calling ``make``.

    Raises:
        ConfigError: ``make`` cannot be called without arguments.
    """
    return PerRun(make)
