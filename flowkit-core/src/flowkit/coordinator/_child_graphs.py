"""Graphs of child tasks."""

from flowkit._records.record_parts import corrupt
from flowkit._records.task_records import PLANS
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit.errors import FlowNotFound, NodeFailure
from flowkit.graph import FlowRef
from flowkit.graph._expanded_plan import node_of
from flowkit.graph._nested_graphs import MOST_NESTED
from flowkit.task import ParentNode, Task, TaskFlow


class ChildGraphs:
    """Graphs that child tasks run: those in the graph of the parent, and those of flows."""

    def __init__(self, flows: RegisteredFlows) -> None:
        self._flows = flows

    async def of(self, task: Task, node: ParentNode) -> tuple[TaskFlow | None, bytes]:
        """Return the graph of the child task of a node as JSON, and the flow that has it, if any.

        Raises:
            NodeFailure: the child task would be too deep, or the flow was deleted.
            CorruptRecord: the record of the flow is damaged.
        """
        if task.spec.depth >= MOST_NESTED:
            raise NodeFailure(
                f"its child task would be {task.spec.depth + 1} tasks below the root task, above"
                f" the limit of {MOST_NESTED}",
                reason_code="subflow_limit",
                permanent=True,
            )
        nested = task.spec.plan.nested[node_of(task.spec.plan, node.index)]
        if not isinstance(nested, FlowRef):
            return None, nested
        flow = task.spec.fixed(nested)
        try:
            if flow.version is None:
                raise FlowNotFound(flow.name)
            source = (await self._flows.graph(flow.name, flow.version)).source
            PLANS.get(source)
        except FlowNotFound as error:
            raise NodeFailure(str(error), reason_code="flow_not_found", permanent=True) from error
        except ValueError as error:
            raise corrupt(f"the graph of {flow}", error) from None
        return TaskFlow(flow.name, flow.version, latest=nested.version is None), source
