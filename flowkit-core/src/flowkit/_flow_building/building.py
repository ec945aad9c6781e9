"""Flow that is being built: calls of handlers make nodes, and values make edges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from flowkit._flow_building.drafts import Callee, Draft, NodeResult
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.options import NodeOptions, unknown_option
from flowkit._flow_building.places import calling_place, flow_error, with_place
from flowkit._flow_building.values import NodeRef, Value, expression_of, node_of
from flowkit.errors import Fault, GraphError
from flowkit.graph import Graph

_current: ContextVar["FlowBuilding | None"] = ContextVar("flowkit_flow", default=None)

PULL = "pull.from_artifacts"


def building_flow() -> "FlowBuilding | None":
    """Return the flow that is being built, or None."""
    return _current.get()


class FlowBuilding:
    """Flow that is being built."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.handlers: dict[str, Callee] = {}
        """Handlers that were called, by role."""
        self._drafts: list[Draft] = []
        self._ids: dict[str, Draft] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let calls of handlers make nodes of this flow."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # ------------------------------------------------ nodes

    def call(self, callee: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NodeRef[Any]:
        """Make a node that calls a handler with these arguments."""
        given = arguments(callee.__name__, callee.parameters, args, kwargs)
        draft = self._new_node(callee)
        writer = InputWriter(self._ids)
        values = writer.arguments(callee, given)
        if callee.parameters:
            draft.io["input_inline"] = values
        self._connect(draft, writer)
        return NodeRef(NodeResult(self, draft, callee.returns))

    def stream(self, callee: Callee, source: Any) -> NodeRef[Any]:
        """Make a node that reads the batches of another one as they are stored."""
        if not isinstance(source, NodeRef):
            raise flow_error(
                f"{callee.__name__}.stream reads the batches of a node, not"
                f" {type(source).__name__}; give it the value of a call"
            )
        if not callee.parameters:
            raise flow_error(
                f"{callee.__name__}.stream: {callee.__name__} has no parameter for the batches"
            )
        draft, parent = self._new_node(callee), self._draft_of(source)
        draft.io |= {
            "start_when": "first_batch",
            "input_inline": {
                "input_adapter": PULL,
                "input_args": {"from_nodes": [parent.node_id]},
            },
        }
        parent.is_named = True
        draft.parents[parent] = draft.streams[parent] = None
        return NodeRef(NodeResult(self, draft, None))

    def _new_node(self, callee: Callee) -> Draft:
        role = callee.role
        if role is None:
            raise flow_error(
                f"{callee.__name__} has no role, so no worker can run it; declare it with"
                ' @handler("role")'
            )
        known = self.handlers.setdefault(role, callee)
        if known.function is not callee.function:
            raise flow_error(
                f"{callee.__name__} and {known.__name__} are handlers of the same role {role!r};"
                " give each its own"
            )
        draft = Draft(self._free_id(callee.__name__), callee, calling_place())
        self._drafts.append(draft)
        self._ids[draft.node_id] = draft
        self.set_options(draft, callee.node_options)
        return draft

    def _free_id(self, name: str) -> str:
        number, node_id = 1, name
        while node_id in self._ids:
            number += 1
            node_id = f"{name}_{number}"
        return node_id

    def set_options(self, draft: Draft, options: NodeOptions) -> None:
        """Set fields of a node."""
        if (fault := unknown_option(options)) is not None:
            raise flow_error(fault)
        fields: dict[str, Any] = dict(options)
        if "node_id" in fields:
            self._rename(draft, fields.pop("node_id"))
        writer = InputWriter(self._ids)
        if "when" in fields:
            draft.fields["when"] = writer.condition(fields.pop("when"))
            self._connect(draft, writer)
        draft.fields |= {name: writer.option(name, value) for name, value in fields.items()}

    def _rename(self, draft: Draft, node_id: str) -> None:
        if not isinstance(node_id, str):
            raise flow_error(f"node_id must be a string, not {type(node_id).__name__}")
        other = self._ids.get(node_id, draft)
        if other is not draft:
            raise flow_error(f"another node has the node_id {node_id!r}: {other.place}")
        if draft.is_named and node_id != draft.node_id:
            raise flow_error(
                f"the node_id {draft.node_id!r} is already in use by an expression; give another"
                " one before the value of the node is used"
            )
        del self._ids[draft.node_id]
        draft.node_id = node_id
        self._ids[node_id] = draft

    # ------------------------------------------------ edges

    def order(self, before: object, after: object) -> None:
        """Let a node wait for another one without its data."""
        self._draft_of(after).parents[self._draft_of(before)] = None

    def route(self, draft: Draft, branch: str, targets: Iterable[object]) -> None:
        """Add nodes to a branch of a node. A handler makes its own node."""
        for target in targets:
            self._add_branch(draft, branch, target)

    def _add_branch(self, draft: Draft, branch: str, target: object) -> None:
        if not isinstance(target, Value) and callable(target):
            target = target()
        draft.routing.setdefault(branch, []).append(self._draft_of(target))

    def _draft_of(self, node: object) -> Draft:
        if not isinstance(node, NodeRef):
            what = expression_of(node).source if isinstance(node, Value) else type(node).__name__
            raise flow_error(f"a node is expected, the value of a call, not {what}")
        draft = node_of(node).draft
        self._check_own([draft])
        return draft

    def _check_own(self, drafts: Iterable[Draft], place: str | None = None) -> None:
        for draft in drafts:
            if self._ids.get(draft.node_id) is not draft:
                raise flow_error(f"node {draft.node_id!r} belongs to another flow", place)

    def _connect(self, draft: Draft, writer: InputWriter) -> None:
        """Add the edges that follow from the values in an input."""
        counted = {} if writer.fan_in is None else writer.fan_in.counted
        read = [*writer.parents, *counted]
        self._check_own(read)
        if draft in read:
            raise flow_error(f"node {draft.node_id!r} reads its own result")
        draft.parents |= writer.parents
        if writer.fan_in is not None:
            draft.counted = counted
            draft.fields |= writer.fan_in.fan_in

    # ------------------------------------------------ the graph

    def output(self, value: Any) -> Any:
        """Return the value that a flow returns as the output of the graph.

        Raises:
            GraphError: it is not JSON, or waits for the first of some nodes.
        """
        writer = InputWriter(self._ids, place=self.place)
        written = writer.output(value, f"the output of {self.name}")
        self._check_own(writer.parents, self.place)
        return written

    def graph(self, fields: Mapping[str, Any]) -> Graph:
        """Return the graph. ``fields`` are those of the graph itself.

        Raises:
            GraphError: the graph has faults. Each names the line of its node.
        """
        if not self._drafts:
            raise flow_error(f"the flow {self.name} has no nodes; call handlers in it", self.place)
        for draft in self._drafts:
            self._check_counted(draft)
        document = {
            **fields,
            "nodes": [draft.document() for draft in self._drafts],
            "edges": [
                {"from": parent.node_id, "to": draft.node_id, "trigger": "on_batch"}
                for draft in self._drafts
                for parent in draft.streams
            ],
        }
        try:
            return Graph.parse(document)
        except GraphError as error:
            raise GraphError([self._placed(fault) for fault in error.faults]) from None

    def _check_counted(self, draft: Draft) -> None:
        """Check that a fan-in that counts some nodes does not count others too."""
        if not draft.counted:
            return
        routes = [one for one in self._drafts for into in one.routing.values() if draft in into]
        others = [*draft.parents, *routes]
        if others:
            fault = (
                f"waits for the first of some nodes, and for {others[0].node_id!r} as well; pass"
                " first(...) through a node of its own"
            )
            raise GraphError([self._placed(Fault(draft.node_id, fault))])

    def _placed(self, fault: Fault) -> Fault:
        draft = self._ids.get(fault.node_id or "")
        return Fault(
            fault.node_id,
            with_place(fault.message, self.place if draft is None else draft.place),
        )
