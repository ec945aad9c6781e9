"""Flow that is being built: calls of handlers make nodes, and values make edges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from flowkit._flow_building.drafts import Callee, Draft, Expression, NodeResult
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.node_table import NodeTable
from flowkit._flow_building.options import NodeOptions, unknown_option
from flowkit._flow_building.phases import (
    call_undo,
    check_branch,
    check_same_phase,
    check_undo,
    check_undone,
    parents_of,
)
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.texts import text_with_value
from flowkit._flow_building.values import ITEM, NodeRef, Value, expression_of, node_of
from flowkit.errors import GraphError
from flowkit.graph import Graph

_current: ContextVar["FlowBuilding | None"] = ContextVar("flowkit_flow", default=None)


def building_flow() -> "FlowBuilding | None":
    """Return the flow that is being built, or None."""
    return _current.get()


def required_flow(what: str) -> "FlowBuilding":
    """Return the flow that is being built.

    Raises:
        GraphError: there is none. The message begins with what the call does.
    """
    flow = building_flow()
    if flow is None:
        raise flow_error(f"{what}, so it is called in a @flow that has no parameter g")
    return flow


class FlowBuilding:
    """Flow that is being built."""

    def __init__(self, name: str, place: str, flow: object) -> None:
        """``flow`` is what is being built.

        Raises:
            GraphError: it is being built already.
        """
        self.name = name
        self.place = place
        self._flow = flow
        self._outer = building_flow()
        self._check_no_cycle()
        self.handlers: dict[str, Callee] = {}
        """Handlers that were called, by role."""
        self.unused_blocks: dict[object, str] = {}
        """Values of ``finally_`` that no ``with`` statement has used yet, with their places."""
        self.in_finally = False
        """Whether calls make nodes of ``finally``."""
        self._nodes = NodeTable(place)
        self._condition: str | None = None
        """Name of the condition whose function is being called."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let calls of handlers make nodes of this flow."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def phase(self, *, is_final: bool) -> Iterator[None]:
        """Let calls make nodes of ``finally``, or nodes that run before them."""
        before, self.in_finally = self.in_finally, is_final
        try:
            yield
        finally:
            self.in_finally = before

    def _check_no_cycle(self) -> None:
        names, outer = [self.name], self._outer
        while outer is not None:
            names.append(outer.name)
            if outer._flow is self._flow:  # noqa: SLF001 - of the same class
                raise flow_error(
                    f"the flow {self.name} contains itself ({' -> '.join(reversed(names))}), and a"
                    " graph cannot: repeat a flow in a handler or with a map"
                )
            outer = outer._outer  # noqa: SLF001 - of the same class

    @contextmanager
    def condition(self, name: str) -> Iterator[None]:
        """Let calls make no nodes, while the function of a condition is called."""
        self._condition = name
        try:
            yield
        finally:
            self._condition = None

    def value(self, source: str, annotation: Any = None) -> Value:
        """Return a value that has a meaning in this flow only."""
        return Value(self.expression(source, annotation))

    @contextmanager
    def given(self, source: str, annotation: Any) -> Iterator[Value]:
        """Make a value for a function that is called. It has no meaning after the call."""
        with self._nodes.call() as number:
            made = self.expression(source, annotation)
            yield Value(replace(made, flows=made.flows | {number}))

    def expression(self, source: str, annotation: Any = None) -> Expression:
        """Return an expression that has a meaning in this flow only."""
        return Expression(source, annotation=annotation, flows=frozenset([self._nodes.number]))

    # ------------------------------------------------ nodes

    def call(self, callee: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NodeRef[Any]:
        """Make a node that calls a handler with these arguments."""
        given = arguments(callee.__name__, callee.parameters, args, kwargs)
        draft = self.handler_node(callee)
        draft.has_result = not callee.generates
        writer = self.writer()
        values = writer.arguments(callee, given)
        if callee.parameters:
            draft.io["input_inline"] = values
        return self.node(draft, writer, callee.returns)

    def new_node(self, name: str, node_type: str) -> Draft:
        """Add a node of a type. ``name`` is that of the function that is called."""
        if self._condition is not None:
            raise flow_error(
                f"{self._condition}: a condition is evaluated by the coordinator, so {name} cannot"
                " be called in it; call it in the flow of the rounds, and test its result"
            )
        return self._nodes.add(name, node_type, is_final=self.in_finally)

    def writer(self) -> InputWriter:
        """Return a writer of the input of a node."""
        return InputWriter(self._nodes)

    def node(self, draft: Draft, writer: InputWriter, returns: Any) -> NodeRef[Any]:
        """Return a node whose input is written. ``returns`` is the type of its result."""
        self._connect(draft, writer)
        draft.is_whole = True
        return NodeRef(NodeResult(self, draft, returns))

    def handler_node(self, callee: Callee) -> Draft:
        """Add a node with the role of a handler."""
        role = callee.role
        if role is None:
            raise flow_error(
                f"{callee.__name__} has no role, so no worker can run it; declare it with"
                ' @handler("role")'
            )
        self.add_handler(role, callee)
        draft = self.new_node(callee.__name__, role)
        self.set_options(draft, callee.node_options)
        return draft

    def add_handler(self, role: str, callee: Callee) -> None:
        """Add a handler that a node calls, here or in a graph inside.

        Raises:
            GraphError: another function is a handler of this role.
        """
        known = self.handlers.setdefault(role, callee)
        if known.function is not callee.function:
            raise flow_error(
                f"{callee.__name__} and {known.__name__} are handlers of the same role {role!r};"
                " give each its own"
            )

    def set_options(self, draft: Draft, options: NodeOptions) -> None:
        """Set fields of a node."""
        self._nodes.check_own([draft])
        if (fault := unknown_option(options)) is not None:
            raise flow_error(fault)
        fields, writer = dict[str, Any](options), self.writer()
        if "node_id" in fields:
            self._nodes.rename(draft, writer.option("node_id", fields.pop("node_id")))
        if "when" in fields:
            draft.fields["when"] = writer.condition(fields.pop("when"))
        if isinstance(fields.get("cache"), Mapping):
            draft.fields["cache"] = {
                name: writer.value(value, "cache.key")
                if name == "key"
                else writer.option(f"cache.{name}", value)
                for name, value in fields.pop("cache").items()
            }
        if "when" in options or "cache" in options:
            self._connect(draft, writer)
        draft.fields |= {name: writer.option(name, value) for name, value in fields.items()}

    # ------------------------------------------------ edges

    def order(self, before: object, after: object) -> None:
        """Let a node wait for another one without its data."""
        first, second = self.draft_of(before), self.draft_of(after)
        self._join(first, second)
        second.parents[first] = None

    def route(self, draft: Draft, branch: str, targets: Iterable[object]) -> None:
        """Add nodes to a branch of a node. A handler makes its own node."""
        for target in targets:
            self._add_branch(draft, branch, target)

    def _add_branch(self, draft: Draft, branch: str, target: object) -> None:
        if not isinstance(target, Value) and callable(target):
            check_branch(branch, target)
            with self.phase(is_final=draft.is_final):
                target = target()
        found = self.draft_of(target)
        self._join(draft, found)
        draft.routing.setdefault(branch, []).append(found)

    def _join(self, draft: Draft, other: Draft) -> None:
        check_same_phase(draft, [other])
        draft.is_joined = other.is_joined = True

    def draft_of(self, node: object) -> Draft:
        """Return a node of this flow.

        Raises:
            GraphError: the value is no node, or that of another flow.
        """
        if not isinstance(node, NodeRef):
            what = expression_of(node).source if isinstance(node, Value) else type(node).__name__
            raise flow_error(f"a node is expected, the value of a call, not {what}")
        draft = node_of(node).draft
        self._nodes.check_own([draft])
        return draft

    def _connect(self, draft: Draft, writer: InputWriter) -> None:
        """Add the edges that follow from the values in an input."""
        counted = {} if writer.fan_in is None else writer.fan_in.counted
        read = [*writer.parents, *counted]
        self._nodes.check_own(read)
        if draft in read:
            raise flow_error(f"node {draft.node_id!r} reads its own result")
        draft.parents |= parents_of(draft, writer.parents)
        if writer.fan_in is not None:
            check_same_phase(draft, counted)
            draft.counted = counted
            draft.fields |= writer.fan_in.fan_in

    # ------------------------------------------------ undo

    def undo(self, result: NodeResult, target: object, *, of_map: bool = False) -> None:
        """Make a call the undo of a node, or of each child of a map. A handler is called with the
        result; that of a map with the item as well, if it needs two values.
        """
        self._nodes.check_own([result.draft])
        check_undone(result.draft)
        if not isinstance(target, Value) and callable(target):
            with (
                self.phase(is_final=False),
                self.given("result", None if of_map else result.annotation) as value,
                self.given(ITEM, None) as item,
            ):
                target = call_undo(target, value, item if of_map else None)
        draft = self.draft_of(target)
        check_undo(draft, result.draft)
        self._nodes.remove(draft)
        result.draft.undo, draft.undoes = draft, result.draft

    # ------------------------------------------------ the graph

    def output(self, value: Any) -> Any:
        """Return the value that a flow returns as the output of the graph.

        Raises:
            GraphError: it is not JSON, or waits for the first of some nodes.
        """
        writer = InputWriter(self._nodes, place=self.place)
        written = writer.output(value, f"the output of {self.name}")
        self._nodes.check_own(writer.parents, self.place)
        return written

    def graph(self, fields: Mapping[str, Any]) -> Graph:
        """Return the graph. ``fields`` are those of the graph itself.

        Raises:
            GraphError: the graph has faults. Each names the line of its node.
        """
        for place in self.unused_blocks.values():
            raise flow_error("finally_() begins a block; write with finally_():", place)
        drafts = list(self._nodes)
        if all(draft.is_final for draft in drafts):
            raise flow_error(f"the flow {self.name} has no nodes; call handlers in it", self.place)
        self._nodes.check_counted()
        document = {
            **fields,
            "nodes": [draft.document() for draft in drafts if not draft.is_final],
            "finally": [draft.document() for draft in drafts if draft.is_final],
            "edges": [
                {"from": parent.node_id, "to": draft.node_id, "trigger": "on_batch"}
                for draft in drafts
                for parent in draft.streams
            ],
        }
        self._check_texts(fields, self.place)
        for draft in drafts:
            if not draft.is_whole:
                raise flow_error(
                    f"the call that makes the node {draft.node_id!r} has failed, and the flow has"
                    " caught its error; let the error pass",
                    draft.place,
                )
            self._check_texts(draft.document(), draft.place)
        try:
            return Graph.parse(document)
        except GraphError as error:
            raise GraphError([self._nodes.placed(fault) for fault in error.faults]) from None

    def _check_texts(self, document: Mapping[str, Any], place: str) -> None:
        """Check that no part of the graph, such as a graph inside, has a text with a value."""
        if (text := text_with_value(document)) is not None:
            raise flow_error(
                f"the text {text!r:.200} is fixed when the flow is built, and the value in it is"
                " known only while the task runs; give the value as a param",
                place,
            )
