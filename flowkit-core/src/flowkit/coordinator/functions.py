"""Coordinator functions, which nodes of ``type: "coordinator_fn"`` call.

A function is ``async def f(ctx, **args)``, or a plain function, which then runs in a thread.
``ctx`` is a :class:`FunctionContext`, ``args`` are the node's ``io.fn_args``, and the JSON that the
function returns is the node's result. A function may run more than once for one node, because it is
called again after a crash. The changes that it records on ``ctx`` are stored only together with the
node's end, and so count once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar, cast

from pydantic_core import from_json, to_json

from flowkit._engine import TaskEnding
from flowkit._engine.vars import VarsOp, check
from flowkit._json.values import NotJson, json_copy
from flowkit.coordinator._shared_resources import Opener, SharedResources
from flowkit.errors import NodeFailure, VarsError
from flowkit.protocols import Clock
from flowkit.task import TaskStatus

ENDINGS = ("finished", "failed", "cancelled")
"""Statuses in which a coordinator function can end its task."""

T = TypeVar("T")


class TaskReading(Protocol):
    """Access of a function to nodes of its task other than the node's parents."""

    async def results(self, node_ids: Sequence[str]) -> dict[str, Any]:
        """Return the results of these nodes by id. A node without a result (yet) has None; one that
        is not in the task is left out.
        """

    async def batch_metrics(self, node_id: str) -> tuple[int, dict[str, float]]:
        """Return the number of a node's stored batches, and the sums of their metrics."""


@dataclass(frozen=True, slots=True)
class BatchMetrics:
    """The number of a node's stored batches, and the sums of their metrics."""

    count: int
    sums: dict[str, float]


class FunctionContext:
    """Context of a coordinator function: the data of its node, and its changes of the vars."""

    __slots__ = (
        "_copies",
        "_ending",
        "_errors",
        "_ops",
        "_params",
        "_reading",
        "_resources",
        "_results",
        "_vars",
        "clock",
        "node_id",
        "task_id",
    )

    def __init__(
        self,
        *,
        task_id: str,
        node_id: str,
        params: Mapping[str, Any],
        vars: Mapping[str, Any],  # noqa: A002 - the name in graphs and expressions
        results: Mapping[str, Any],
        errors: Mapping[str, dict[str, Any]],
        clock: Clock,
        reading: TaskReading,
        resources: SharedResources,
    ) -> None:
        self.task_id = task_id
        self.node_id = node_id
        self.clock = clock
        self._params, self._vars, self._results, self._errors = params, vars, results, errors
        self._reading = reading
        self._resources = resources
        self._copies: dict[str, Any] = {}
        self._ops: list[VarsOp] = []
        self._ending: TaskEnding | None = None

    @property
    def params(self) -> dict[str, Any]:
        """A copy of the task's params."""
        return self._copy("params", self._params)

    @property
    def vars(self) -> dict[str, Any]:
        """A copy of the task's vars at the time of the call, without the changes recorded since."""
        return self._copy("vars", self._vars)

    @property
    def results(self) -> dict[str, Any]:
        """A copy of the results of the node's parents, by node id."""
        return self._copy("results", self._results)

    @property
    def errors(self) -> dict[str, dict[str, Any]]:
        """A copy of the ``reason_code``, ``error`` and ``attempt`` of the parents that failed, by
        node id.
        """
        return self._copy("errors", self._errors)

    @property
    def ops(self) -> tuple[VarsOp, ...]:
        """The changes recorded so far."""
        return tuple(self._ops)

    def set_vars(self, kv: Mapping[str, Any], block_sensitive: bool = False) -> None:
        """Record that each value replaces the value at its path.

        Raises:
            VarsError: a key or value is beyond the limits or, with ``block_sensitive``, looks like
                a secret.
        """
        self._record("set", kv=kv, block_sensitive=block_sensitive)

    def merge_vars(self, data: Mapping[str, Any], block_sensitive: bool = False) -> None:
        """Record that ``data`` is merged into the vars, objects into objects.

        Raises:
            VarsError: a key or value is beyond the limits or, with ``block_sensitive``, looks like
                a secret.
        """
        self._record("merge", data=data, block_sensitive=block_sensitive)

    def incr_var(self, key: str, by: float = 1) -> None:
        """Record that ``by`` is added to a number. A missing number counts as 0.

        Raises:
            VarsError: ``by`` is not a finite number, or the key is beyond the limits.
        """
        self._record("incr", key=key, by=by)

    def unset_vars(self, keys: Sequence[str] | str) -> None:
        """Record that these paths are removed, with the parents that become empty.

        Raises:
            VarsError: a key is beyond the limits.
        """
        self._record("unset", keys=keys)

    def end_task(self, status: str, error: str | None = None) -> None:
        """Record that the task ends when this function has returned: as ``finished``, ``failed`` or
        ``cancelled``. The node's result becomes that of the task. ``error`` is the error of a
        failed task, or the reason of a cancelled one. In undos and ``finally`` this has no effect.

        Raises:
            NodeFailure: the status is another one, or ``error`` does not fit.
        """
        if status not in ENDINGS:
            _refuse(f"task.end: status must be 'finished', 'failed' or 'cancelled', not {status!r}")
        if error is not None and not isinstance(error, str):
            _refuse(f"task.end: error must be a text, not {type(error).__name__}")
        if error is not None and status == TaskStatus.FINISHED:
            _refuse("task.end: a finished task has no error; remove error")
        self._ending = TaskEnding(TaskStatus(status), error)

    @property
    def ending(self) -> TaskEnding | None:
        """The end that was recorded."""
        return self._ending

    async def result_of(self, node_id: str) -> Any:
        """Return the result of any node of the task; None if it has none (yet).

        Raises:
            NodeFailure: the node is not in the task.
        """
        return (await self.results_of([node_id]))[node_id]

    async def results_of(self, node_ids: Sequence[str]) -> dict[str, Any]:
        """Return the results of any nodes of the task, by node id and in this order; None for nodes
        that have none (yet).

        Raises:
            NodeFailure: one of them is not in the task.
        """
        found = await self._reading.results(node_ids)
        for node_id in node_ids:
            if node_id not in found:
                _refuse(f"node {node_id!r} is not in the task")
        return {node_id: found[node_id] for node_id in node_ids}

    async def metrics_of(self, node_id: str) -> BatchMetrics:
        """Return the metrics of the batches that a node has stored so far.

        Raises:
            NodeFailure: the node is not in the task.
        """
        await self.results_of([node_id])
        return BatchMetrics(*await self._reading.batch_metrics(node_id))

    async def resource(self, opener: Opener[T]) -> T:
        """Return a resource that all calls in this coordinator share, such as a connection.

        ``opener(config)`` returns an asynchronous context manager. It is called and entered at the
        first use of this opener, so give a function or class of a module, not a lambda. The
        resource is left when the coordinator stops, after its calls have ended. Both happen in a
        task of its own. In ``config``, ``bus`` is the address of the coordinator's bus, or None if
        the bus was given as an object.

        Raises the error of the opener, or of entering; the next call tries again.
        """
        return await self._resources.get(opener)

    def _record(self, name: Any, **args: Any) -> None:
        try:
            op = VarsOp(name, json_copy(args, "the arguments"))
        except NotJson as error:
            raise VarsError(f"vars.{name}: {error}") from None
        check(op)
        self._ops.append(op)

    def _copy(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        if name not in self._copies:
            self._copies[name] = from_json(to_json(dict(values)))
        return cast("dict[str, Any]", self._copies[name])


def _refuse(message: str) -> NoReturn:
    raise NodeFailure(message, reason_code="bad_input", permanent=True)
