"""The fan-in rules for one stored state of a task, written without the engine."""

from collections.abc import Collection, Mapping, Set

from flowkit.graph import Edge, Plan, Route
from flowkit.task import ENDED, STATUS_OF_MARK, Mark, NodeStatus

_NOT_BEGUN = frozenset({Mark.WAITING, Mark.CHECKING})
_AT_WORK = frozenset({Mark.ISSUED, Mark.RUNNING})


def broken_fan_in(
    plan: Plan,
    marks: str,
    reason_codes: Mapping[int, str | None],
    resolved: Collection[int] = (),
) -> str | None:
    """Describe the first node that runs or has finished although its fan-in does not hold.

    Return None if there is no such node. ``reason_codes`` are those of the skipped nodes. An
    operator may finish a node whose fan-in does not hold: it is one of the ``resolved`` ones.
    """
    state = _State(plan, marks.encode(), reason_codes)
    for index, mark in enumerate(state.marks):
        if mark == Mark.FINISHED and index in resolved:
            continue
        if mark == Mark.FINISHED or mark in _AT_WORK:
            if plan.nodes[index].fan_in == "all":
                wrong = next(
                    filter(
                        None, (state.fault_of_parent(index, edge) for edge in plan.parents[index])
                    ),
                    None,
                )
            elif plan.nodes[index].fan_in == "ended":
                wrong = state.fault_of_end(index)
            else:
                wrong = state.fault_of_count(index)
            if wrong is not None:
                did = "has finished" if mark == Mark.FINISHED else "has started"
                return f"node {plan.ids[index]!r} {did}, but {wrong}"
    return None


class _State:
    def __init__(self, plan: Plan, marks: bytes, reason_codes: Mapping[int, str | None]) -> None:
        self.plan = plan
        self.marks = marks
        self._reason_codes = reason_codes
        self._without_data: Set[int] = self._find_without_data()

    def _find_without_data(self) -> Set[int]:
        """Return the nodes that failed or were cancelled, and the nodes skipped because of them."""
        found: set[int] = set()
        for index in self.plan.order:
            mark = self.marks[index]
            if mark in (Mark.FAILED, Mark.CANCELLED):
                found.add(index)
            elif STATUS_OF_MARK[mark] is NodeStatus.SKIPPED and self._reason_codes.get(
                index
            ) not in ("condition_false", "resolved"):
                if self.plan.nodes[index].fan_in in ("all", "ended"):
                    failed = any(self._withholds(edge, found) for edge in self.plan.parents[index])
                else:
                    failed = (
                        self._reason_codes.get(index) == "upstream_failed"
                    )  # depends on which parent ended first
                if failed:
                    found.add(index)
        return found

    def _withholds(self, edge: Edge, without_data: Set[int]) -> bool:
        """Return True if the parent promised data over this edge and has none."""
        if (
            edge.node not in without_data
            or edge.route is Route.ON_FAILURE
            or self.plan.nodes[edge.node].optional
        ):
            return False
        handled = any(other.route is Route.ON_FAILURE for other in self.plan.children[edge.node])
        return not (
            edge.route is Route.ON_SUCCESS and handled and self.marks[edge.node] == Mark.FAILED
        )

    def fault_of_parent(self, index: int, edge: Edge) -> str | None:
        """Describe the fault of a node that needs all of its parents, or return None.

        A node that streams may finish before its parent ends.
        """
        parent = f"its parent {self.plan.ids[edge.node]!r}"
        mark = self.marks[edge.node]
        if mark not in ENDED and not (edge.streams and self._some_stream(index)):
            return f"{parent} has not ended"
        if self._withholds(edge, self._without_data) and not (
            edge.streams and self.marks[index] == Mark.FINISHED
        ):
            return f"{parent} failed, or was skipped because of a failure"
        return None

    def _some_stream(self, index: int) -> bool:
        """Return True if a parent has begun that the node streams from.

        Such a node need not wait for its other parents.
        """
        return any(
            edge.streams and self.marks[edge.node] not in _NOT_BEGUN
            for edge in self.plan.parents[index]
        )

    def fault_of_end(self, index: int) -> str | None:
        """Describe the fault of a node that needs the end of all its parents, or return None."""
        edges = self.plan.parents[index]
        for edge in edges:
            if self.marks[edge.node] not in ENDED:
                return f"its parent {self.plan.ids[edge.node]!r} has not ended"
        if all(edge.route is not Route.ALWAYS and not self._leads_on(edge) for edge in edges):
            return "no branch that leads to it was taken"
        return None

    def _leads_on(self, edge: Edge) -> bool:
        """Return True if a branch was taken, or if its node failed before it could be decided."""
        if edge.route is Route.ON_FAILURE:
            return self.marks[edge.node] == Mark.FAILED
        return self.marks[edge.node] == Mark.FINISHED or self._withholds(edge, self._without_data)

    def fault_of_count(self, index: int) -> str | None:
        """Describe the fault of a node that needs some of its parents, or return None."""
        edges = self.plan.parents[index]
        if any(edge.streams for edge in edges):
            return None
        wanted = Mark.FINISHED, Mark.FINISHED, Mark.FAILED
        given = sum(self.marks[edge.node] == wanted[edge.route] for edge in edges)
        return (
            None if given >= self.plan.need[index] else f"only {given} of its parents gave it data"
        )
