"""Graph of a flow, parsed from a document or built in Python."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter

from flowkit._user_code.containment import contained, error_text
from flowkit.errors import Fault, GraphError
from flowkit.graph._control_types import CONTROL_TYPES
from flowkit.graph._models import DocumentPart, GraphDocument, NodeIO
from flowkit.graph._nested_graphs import FlowUse, flow_uses, roles_of
from flowkit.graph._parser import (
    DEFAULT_LIMITS,
    GraphLimits,
    ValidDocument,
    parse_document,
    read_document,
    restore_document,
)
from flowkit.graph._plan import Plan, make_plan
from flowkit.graph._source_texts import read_text

_DOCUMENT: TypeAdapter[GraphDocument] = TypeAdapter(GraphDocument)
_IO_FIELDS = frozenset(NodeIO.model_fields)
CHARACTERS_AT_ONCE = 2_000
"""Length of a text that is parsed in a few milliseconds."""
_ROUTES = frozenset({"on_success", "on_failure"})


@dataclass(frozen=True, slots=True, eq=False)
class NodeRef:
    """Node of a graph that is being built.

    ``a >> b`` adds an edge and returns ``b``; ``a >> [b, c]`` adds two edges.
    """

    graph: "Graph"
    node_id: str

    def __rshift__(self, other: "NodeRef | Iterable[NodeRef]") -> "NodeRef | Iterable[NodeRef]":
        targets = [other] if isinstance(other, NodeRef) else list(other)
        for target in targets:
            self.graph.edge(self, target)
        return other if isinstance(other, NodeRef) else targets

    def __rrshift__(self, others: "Iterable[NodeRef]") -> "NodeRef":
        for other in others:
            self.graph.edge(other, self)
        return self


class Graph:
    """Graph of a flow.

    Parse one with :meth:`parse`, or build one::

        graph = Graph()
        extract = graph.node("extract", "reader", input_inline={"url": "https://example.org"})
        clean = graph.node("clean", "cleaner", after=[extract], retry_policy={"max": 5})
        graph.node("report", "writer", after=[clean], timeouts={"start_to_close_sec": 60})


    Building never fails. The graph is validated when it is read: by :meth:`parse`, :attr:`plan`,
    :meth:`to_dict` or a comparison. All faults are then raised together. Two graphs are equal if
    they have the same meaning, even if their edges are written differently.
    """

    def __init__(
        self,
        *,
        on_node_failure: str = "stop",
        deadline_sec: float | None = None,
        max_parallel: int | None = None,
        concurrency: Mapping[str, Any] | None = None,
        segments: str | None = None,
        params: Mapping[str, Any] | None = None,
        output: str | Mapping[str, Any] | None = None,
    ) -> None:
        """``params`` is a JSON Schema of the task's params, ``output`` an expression or an object
        with expressions whose value is the task's result.
        """
        self._written: dict[str, Any] | None = {
            "nodes": [],
            "edges": [],
            "on_node_failure": on_node_failure,
            "deadline_sec": deadline_sec,
            "max_parallel": max_parallel,
            "concurrency": concurrency,
            "segments": segments,
            "params": params,
            "output": output,
        }
        self._valid: ValidDocument | None = None

    # ------------------------------------------------------------ reading

    @classmethod
    def parse(
        cls,
        source: Any,
        *,
        limits: GraphLimits | None = None,
        functions: Collection[str] | None = None,
    ) -> Self:
        """Parse and validate a graph.

        ``source`` is a dict, JSON or YAML (``str`` or ``bytes``), a :class:`Graph`, or a function
        decorated with :func:`~flowkit.graph.flow`. ``functions`` are the names of the registered
        coordinator functions; with it, unknown functions are faults. The result shares no data with
        ``source``.

        Raises:
            GraphError: the graph is invalid; ``faults`` lists everything that is wrong with it.
        """
        limits = limits or DEFAULT_LIMITS
        source = _written(source, limits)
        return cls._of(parse_document(source, limits=limits, functions=functions))

    @classmethod
    async def parse_aside(
        cls,
        source: Any,
        *,
        limits: GraphLimits,
        functions: Collection[str],
        in_thread: "Callable[[Callable[[], Graph]], Awaitable[Graph]]",
    ) -> "Graph":
        """Parse a graph as :meth:`parse` does. What takes long is done ``in_thread``.

        Raises:
            GraphError: the graph is invalid.
        """
        if isinstance(source, (str, bytes, bytearray)) and len(source) > CHARACTERS_AT_ONCE:
            text = source if isinstance(source, str) else bytes(source)
            return await in_thread(lambda: cls.parse(text, limits=limits, functions=functions))
        read = read_document(_written(source, limits), limits=limits, functions=functions)
        if isinstance(read, ValidDocument):
            return cls._of(read)
        unchecked = read
        if not unchecked.takes_long:
            return cls._of(unchecked.checked())

        def checked() -> Graph:
            graph = cls._of(unchecked.checked())
            _ = graph.plan, graph.roles, graph.flow_uses  # these take long as well
            return graph

        return await in_thread(checked)

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Parse the output of :attr:`source` or :meth:`to_json` without validating it again."""
        return cls._of(ValidDocument(restore_document(data), data))

    @classmethod
    def _of(cls, valid: ValidDocument) -> Self:
        graph = cls.__new__(cls)
        vars(graph).update(_written=None, _valid=valid)
        return graph

    def _validated(self) -> ValidDocument:
        """Validate the graph if it was changed since the last time."""
        if self._valid is None:
            self._valid = parse_document(self.draft(), limits=DEFAULT_LIMITS, functions=None)
        return self._valid

    @property
    def source(self) -> bytes:
        """JSON of the graph as it was written.

        Raises:
            GraphError: the graph has faults.
        """
        return (self._valid or self._validated()).source

    def build_graph(self) -> "Graph":
        """Return the graph itself, so that :meth:`parse` accepts it as a source."""
        return self

    @property
    def document(self) -> GraphDocument:
        """Validated document.

        Raises:
            GraphError: the graph has faults.
        """
        return (self._valid or self._validated()).document

    @property
    def plan(self) -> Plan:
        """Execution plan of the graph.

        Raises:
            GraphError: the graph has faults.
        """
        valid = self._valid or self._validated()
        if valid.plan is None:
            valid.plan = make_plan(valid.document)
        return valid.plan

    @property
    def roles(self) -> Mapping[str, Sequence[str]]:
        """Roles that workers must serve for the graph and the graphs inside, each with its nodes of
        this graph.

        Raises:
            GraphError: the graph has faults.
        """
        valid = self._valid or self._validated()
        if valid.roles is None:
            valid.roles = roles_of(self.plan.nodes)
        return valid.roles

    @property
    def flow_uses(self) -> Sequence[FlowUse]:
        """Nodes of the graph and of the graphs inside that run registered flows.

        Raises:
            GraphError: the graph has faults.
        """
        valid = self._valid or self._validated()
        if valid.flow_uses is None:
            plan = self.plan
            valid.flow_uses = flow_uses(plan.nodes) if plan.nested else ()
        return valid.flow_uses

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as a document without default values, apart from ``retry_policy.max`` if
        it was given: its default depends on the type of the node.

        Plain edges are in ``depends_on``.

        Raises:
            GraphError: the graph has faults.
        """
        return self.document.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_json(self) -> bytes:
        """Return the result of :meth:`to_dict` as JSON.

        Raises:
            GraphError: the graph has faults.
        """
        return _DOCUMENT.dump_json(self.document, by_alias=True, exclude_defaults=True)

    # ------------------------------------------------------------ building

    def node(
        self,
        node_id: str,
        type: str,  # noqa: A002
        *,
        after: Iterable[NodeRef | str] | NodeRef | str = (),
        **fields: Any,
    ) -> NodeRef:
        """Add a node that waits for the nodes in ``after``, and return its handle.

        ``fields`` are the fields of a node in a document (``fan_in``, ``retry_policy``,
        ``timeouts``, ``when``, …). The fields of its ``io`` (``input_inline``, ``start_when``,
        ``fn``, …; of a control type, its arguments) and ``routing`` (``on_success``,
        ``on_failure``) may be given directly too.
        Models are accepted instead of objects, and handles instead of node ids.
        """
        self._change()["nodes"].append(_node(node_id, type, after, fields))
        return NodeRef(self, node_id)

    def finally_node(
        self,
        node_id: str,
        type: str,  # noqa: A002
        *,
        after: Iterable[NodeRef | str] | NodeRef | str = (),
        **fields: Any,
    ) -> NodeRef:
        """Add a node to ``finally``, as :meth:`node` adds one to ``nodes``. It runs when all nodes
        of ``nodes`` have ended, also if the task fails or is cancelled. ``after`` are nodes of
        ``finally``.
        """
        written = self._change()
        written["finally"] = [*written.get("finally", ()), _node(node_id, type, after, fields)]
        return NodeRef(self, node_id)

    def edge(
        self,
        source: NodeRef | str,
        to: NodeRef | str,
        *,
        mode: str | None = None,
        trigger: str | None = None,
    ) -> None:
        """Add an edge.

        With ``trigger="on_batch"``, ``to`` may start on the first batch of ``source``.
        """
        said = {"mode": mode, "trigger": trigger}
        edge = {
            "from": _name(source),
            "to": _name(to),
            **{key: value for key, value in said.items() if value is not None},
        }
        self._change()["edges"].append(edge)

    def draft(self) -> dict[str, Any]:
        """Return the unvalidated graph as written so far, not a copy."""
        return self.to_dict() if self._written is None else self._written

    def _change(self) -> dict[str, Any]:
        if self._written is None:
            self._written = {"nodes": [], "edges": [], **self.to_dict()}
        self._valid = None
        return self._written

    # ------------------------------------------------------------ comparing

    def __eq__(self, other: object) -> bool:
        return self.document == other.document if isinstance(other, Graph) else NotImplemented

    def __repr__(self) -> str:
        return (
            "<Graph of"
            f" {len(self.document.nodes if self._written is None else self._written['nodes'])}"
            " nodes>"
        )


def _written(source: Any, limits: GraphLimits) -> Any:
    """Return the document that a source of a graph stands for."""
    if isinstance(source, (str, bytes, bytearray)):
        return read_text(source if isinstance(source, str) else bytes(source), limits)
    build = None if isinstance(source, dict) else _builder(source)
    return source if build is None else build().draft()


def _node(
    node_id: str,
    type: str,  # noqa: A002
    after: Iterable[NodeRef | str] | NodeRef | str,
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a node as it is written in a document."""
    node = {"node_id": node_id, "type": type, "depends_on": _names(after)}
    control = CONTROL_TYPES.get(type)
    arguments = _IO_FIELDS if control is None else control.io.names()
    for field, value in fields.items():
        if field in arguments:
            _part(node, fields, "io")[field] = _plain(value)
        elif field in _ROUTES:
            _part(node, fields, "routing")[field] = _names(value)
        elif field not in node or field == "depends_on":
            node[field] = _plain(value) if field != "depends_on" else node[field] + _names(value)
    return node


def _name(node: NodeRef | str) -> str:
    return node.node_id if isinstance(node, NodeRef) else node


def _names(nodes: Any) -> Any:
    if isinstance(nodes, (NodeRef, str)):
        return [_name(nodes)]
    return [_name(node) for node in nodes]


def _part(node: dict[str, Any], fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object ``io`` or ``routing`` of a node, created from the field of that name."""
    part: dict[str, Any] = node.setdefault(name, dict(_plain(fields.get(name) or {})))
    return part


def _plain(value: Any) -> Any:
    """Return a part of a graph as it is written in a document.

    Values from users are returned unchanged; the parser copies them.
    """
    if not isinstance(value, DocumentPart):
        return value
    fields = type(value).model_fields
    return {
        fields[name].alias or name: _plain(getattr(value, name))
        for name in fields
        if name in value.model_fields_set
    }


def _builder(source: Any) -> Callable[[], "Graph"] | None:
    """Return the method that builds a graph, or None if the object has none.

    Raises:
        GraphError: the object cannot be asked.
    """
    try:
        build = contained(getattr, source, "build_graph", None)
    except Exception as error:
        raise GraphError(
            [Fault(None, f"cannot read the graph: {error_text(error, most=400)}")]
        ) from None
    return build if callable(build) and not isinstance(source, type) else None
