"""Plans of graphs, shared by the tasks that have the same graph."""

from collections import OrderedDict

from flowkit.graph import Graph, Plan

MAX_PLANS = 256
MAX_NODES = 100_000
"""Limit for the nodes of all cached plans together. A plan of 20,000 nodes takes some 25 MB."""


class PlanCache:
    """Plans by the JSON text of their graphs. The least recently used ones are evicted above the
    limits.
    """

    def __init__(self, max_plans: int = MAX_PLANS, max_nodes: int = MAX_NODES) -> None:
        self._max_plans, self._max_nodes = max_plans, max_nodes
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._nodes = 0

    def __contains__(self, graph: bytes) -> bool:
        return graph in self._plans

    def get(self, graph: bytes) -> Plan:
        """Return the plan of a graph, which is parsed if it is not cached."""
        plan = self._plans.get(graph)
        if plan is None:
            plan = Graph.restore(graph).plan
            self.add(graph, plan)
        else:
            self._plans.move_to_end(graph)
        return plan

    def add(self, graph: bytes, plan: Plan) -> None:
        """Cache the plan of a graph as the most recently used one."""
        replaced = self._plans.pop(graph, None)
        self._plans[graph] = plan
        self._nodes += len(plan.ids) - (0 if replaced is None else len(replaced.ids))
        while len(self._plans) > self._max_plans or (
            self._nodes > self._max_nodes and len(self._plans) > 1
        ):
            _, oldest = self._plans.popitem(last=False)
            self._nodes -= len(oldest.ids)


PLANS = PlanCache()
