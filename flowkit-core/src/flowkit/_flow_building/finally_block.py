"""Block of a flow whose calls make nodes of ``finally``, and the values of the task."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from flowkit._flow_building.building import FlowBuilding, building_flow, required_flow
from flowkit._flow_building.drafts import Expression
from flowkit._flow_building.places import calling_place, flow_error
from flowkit._flow_building.values import Value


@dataclass(frozen=True)
class TaskScope:
    """Values of the task that expressions can read."""

    id: str
    pipeline: str | None
    labels: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class EndingTaskScope(TaskScope):
    """Values of the task that the nodes of ``finally`` can read."""

    status: Literal["finished", "failed", "cancelled"]
    """Status in which the task will end."""
    error: str | None


@dataclass(frozen=True)
class _OfTask:
    """Values of the task of the flow in which they are used."""

    source: str
    annotation: Any = None

    def expression(self) -> Expression:
        flow = building_flow()
        if flow is None:
            return Expression(self.source, annotation=self.annotation)
        return flow.expression(self.source, self.annotation)


_this_task: Any = Value(_OfTask("task", TaskScope))
this_task: TaskScope = _this_task
"""The task, as a value for arguments and conditions: ``this_task.id``."""
task_vars: Any = Value(_OfTask("vars"))
"""The vars of the task, as a value for arguments and conditions: ``task_vars.sla``."""


class _FinallyBlock(AbstractContextManager[EndingTaskScope]):
    def __init__(self, flow: FlowBuilding, place: str) -> None:
        self._flow = flow
        self._stack = ExitStack()
        flow.unused_blocks[self] = place

    def __enter__(self) -> EndingTaskScope:
        if self._flow.in_finally:
            raise flow_error("finally_ inside of finally_; call the handlers in one block")
        self._flow.unused_blocks.pop(self, None)
        self._stack.enter_context(self._flow.phase(is_final=True))
        made: Any = self._flow.value("task", EndingTaskScope)
        return made  # type: ignore[no-any-return]

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def finally_() -> AbstractContextManager[EndingTaskScope]:
    """Let the calls of a block make nodes of ``finally``, which run when all other nodes have
    ended, also if the task fails or is cancelled::

        with finally_() as task:
            release(seat) >> tell.options(when=task.status != "finished")(f"{task.error}")

    Raises:
        GraphError: no flow is being built, or this is such a block already. The message names the
            line.
    """
    return _FinallyBlock(required_flow("finally_ makes nodes"), calling_place())
