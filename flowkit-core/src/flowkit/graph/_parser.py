"""Parser of graph documents: the document to run, or all its faults."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from flowkit._json.limits import MAX_ID_CHARS, MAX_NESTED_VALUE_LEVELS, MAX_VALUE_LEVELS
from flowkit._json.values import Path, TooLarge, clean, is_plain, kind_of, place
from flowkit.errors import Fault, GraphError
from flowkit.graph._cache_checks import check_caches
from flowkit.graph._edges import collect_links, normalized
from flowkit.graph._expression_checks import check_expressions, check_nodes_read
from flowkit.graph._faults import NODE_LISTS, Faults, add_model_faults
from flowkit.graph._later_phase_checks import check_edges_between_phases, check_later_phases
from flowkit.graph._later_phases import (
    LaterPhases,
    later_phases,
    with_later_nodes,
    without_later_nodes,
)
from flowkit.graph._map_checks import check_maps
from flowkit.graph._models import GraphDocument, NodeSpec
from flowkit.graph._nested_graphs import (
    LEVELS_PER_GRAPH,
    MOST_NESTED,
    FlowUse,
    ParseNested,
    check_nested_graphs,
    nesting,
    without_nested,
)
from flowkit.graph._node_checks import (
    check_cycles,
    check_graph,
    check_links,
    check_nodes,
    check_optional,
    check_references,
    index_of,
)
from flowkit.graph._plan import Plan
from flowkit.graph._valid_parts import ValidParts, valid_parts


class GraphLimits(Protocol):
    """Object with these limits, such as ``CoordinatorConfig.limits``."""

    @property
    def max_nodes(self) -> int: ...
    @property
    def max_edges(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_depth(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of a graph without a configuration."""

    max_nodes: int = 20_000
    max_edges: int = 100_000
    """Maximum number of entries in ``depends_on``, ``edges``, ``edges_ex`` and ``routing``."""
    max_bytes: int = 8 * 1024 * 1024
    """Maximum size of the graph as JSON."""
    max_depth: int = 32
    """Maximum nesting of lists and objects; the graph itself is the first level, and so is each
    graph inside.
    """


DEFAULT_LIMITS = Limits()


def levels(limits: GraphLimits) -> int:
    """Return the maximum nesting without the graphs inside. It never exceeds that of any other
    value.
    """
    return min(limits.max_depth, MAX_VALUE_LEVELS)


def whole_levels(limits: GraphLimits) -> int:
    """Return the maximum nesting of a graph with the graphs inside."""
    return min(levels(limits) + MOST_NESTED * LEVELS_PER_GRAPH, MAX_NESTED_VALUE_LEVELS)


_DOCUMENT: TypeAdapter[GraphDocument] = TypeAdapter(GraphDocument)
BYTES_AT_ONCE = 16 * 1024
"""Size of a document that is validated in a few milliseconds."""
_SLOW = (b"matches(", b'"pattern')
"""Parts of a document whose check may take long although they are short."""
_MOST_KEPT = 128
_MOST_KEPT_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class ValidDocument:
    """Validated document, shared by the graphs that are written the same."""

    document: GraphDocument
    source: bytes
    """The document as it was written, as JSON."""
    plan: Plan | None = None
    """Execution plan, made when it is first needed."""
    roles: Mapping[str, Sequence[str]] | None = None
    """Roles of the graph, collected when they are first needed."""
    flow_uses: Sequence[FlowUse] | None = None
    """Nodes that run registered flows, collected when they are first needed."""


_Key = tuple[bytes, int, int, int, int, frozenset[str] | None]
"""JSON of a document, and the limits and functions that it was checked with."""

_checked: dict[_Key, ValidDocument] = {}
"""Valid documents that were parsed recently.

Most tasks of an installation use a few graphs.
"""


def parse_document(
    source: Any, *, limits: GraphLimits, functions: Collection[str] | None
) -> ValidDocument:
    """Validate a value and return it as a document.

    The document shares no data with ``source``.

    Raises:
        GraphError: it cannot be run; the faults are all there are.
    """
    read = read_document(source, limits=limits, functions=functions)
    return read if isinstance(read, ValidDocument) else read.checked()


def read_document(
    source: Any, *, limits: GraphLimits, functions: Collection[str] | None
) -> "ValidDocument | UncheckedDocument":
    """Read a value, as the first step of :func:`parse_document`. Return its document if it was
    validated recently.

    Raises:
        GraphError: it is no graph, or exceeds a limit.
    """
    try:
        plain = _is_plain(source, limits)
        if plain:
            known = _checked.get(_key(to_json(source), limits, functions))
            if known is not None:
                return known
        return _read(source, plain, limits, functions)
    except TooLarge as error:
        raise GraphError([Fault(None, str(error))]) from None


def _is_plain(source: Any, limits: GraphLimits) -> bool:
    """Return whether a value consists of JSON's own types, and no graph in it is too deep.

    Raises:
        TooLarge: it takes too many bytes.
    """

    def is_flat(value: Any, most: int) -> bool:
        return is_plain(value, "the graph", max_bytes=limits.max_bytes, max_levels=most)

    return is_flat(source, levels(limits)) or (
        is_flat(source, whole_levels(limits)) and is_flat(without_nested(source), levels(limits))
    )


def _key(data: bytes, limits: GraphLimits, functions: Collection[str] | None) -> _Key:
    names = None if functions is None else frozenset(functions)
    return data, limits.max_nodes, limits.max_edges, limits.max_bytes, limits.max_depth, names


def _read(
    source: Any, plain: bool, limits: GraphLimits, functions: Collection[str] | None
) -> "ValidDocument | UncheckedDocument":
    """Read a document that is not cached, or that is not ``plain`` JSON."""
    faults = Faults()
    bad_values: set[Path] = set()
    kind = kind_of(source)
    if not plain:
        source, bad_values = _cleaned(faults, source, limits)
    _check_size(faults, source, limits, kind=kind)
    data = to_json(source)
    if len(data) > limits.max_bytes:
        raise GraphError(
            [
                Fault(
                    None,
                    f"the graph has {len(data)} bytes, above the limit of {limits.max_bytes} bytes",
                )
            ]
        )
    key = _key(data, limits, functions)
    known = None if faults.found else _checked.get(key)
    if known is not None:
        return known
    return UncheckedDocument(data, key, faults, bad_values, limits, functions)


@dataclass(frozen=True, slots=True)
class UncheckedDocument:
    """Document that was read and is not validated yet."""

    data: bytes
    """The document as JSON."""
    key: _Key
    faults: Faults
    bad_values: set[Path]
    limits: GraphLimits
    functions: Collection[str] | None

    @property
    def takes_long(self) -> bool:
        """Whether the validation may take more than a few milliseconds."""
        data = self.data
        return len(data) > BYTES_AT_ONCE or any(word in data for word in _SLOW)

    def checked(self) -> ValidDocument:
        """Validate the document. No object of the user is read, so this may run in a thread.

        Raises:
            GraphError: it cannot be run; the faults are all there are.
        """
        faults, functions = self.faults, self.functions
        try:
            document = _DOCUMENT.validate_json(self.data)
        except ValidationError as error:
            source = from_json(self.data)
            found = _all_faults(faults, error, source, self.bad_values, functions, self._nested)
            raise GraphError(found) from None
        checked = _check(faults, document, functions)
        check_nested_graphs(faults, _written_nodes(document), self._nested)
        if faults.found:
            raise GraphError(faults.in_order(node.node_id for node in _written_nodes(document)))
        valid = ValidDocument(checked, self.data)
        _keep(self.key, valid)
        return valid

    def _nested(self, graph: dict[str, Any]) -> GraphDocument:
        """Return the document of a graph inside."""
        return parse_document(graph, limits=self.limits, functions=self.functions).document


def _written_nodes(document: GraphDocument) -> tuple[NodeSpec, ...]:
    return (*document.nodes, *document.final_nodes)


def _keep(key: _Key, checked: ValidDocument) -> None:
    """Cache a document, and evict the oldest ones above the limits."""
    _checked[key] = checked
    size = sum(len(data) for data, *_ in _checked)
    while len(_checked) > _MOST_KEPT or size > _MOST_KEPT_BYTES:
        oldest = next(iter(_checked))
        size -= len(oldest[0])
        del _checked[oldest]


def restore_document(data: bytes) -> GraphDocument:
    """Parse the JSON that :func:`parse_document` returned, without validating it again."""
    document = _DOCUMENT.validate_json(data)
    faults = Faults()
    phases, document = later_phases(document), with_later_nodes(document)
    links = collect_links(faults, document, index_of(faults, document.nodes), phases=phases)
    return without_later_nodes(normalized(document, links), phases)


def _cleaned(faults: Faults, source: Any, limits: GraphLimits) -> tuple[Any, set[Path]]:
    copy, problems = clean(
        source, "the graph", max_bytes=limits.max_bytes, max_levels=whole_levels(limits)
    )
    own = without_nested(copy)
    clean(own, "the graph", max_bytes=limits.max_bytes, max_levels=levels(limits))
    ids = {field: _ids_in(copy, field) for field in NODE_LISTS}
    for path, reason in problems:
        listed = ids.get(str(path[0])) if len(path) > 1 else None
        node_id = listed[int(path[1])] if listed else None
        where = place(path[2:] if node_id is not None else path)
        faults.incomplete.add(node_id)
        faults.add(
            node_id,
            f"{where} {reason}" if where else f"the {'node' if node_id else 'graph'} {reason}",
        )
    return copy, {path for path, _ in problems}


def _check_size(faults: Faults, source: Any, limits: GraphLimits, *, kind: str) -> None:
    if not isinstance(source, dict):
        raise GraphError(
            [Fault(None, f"a graph must be an object with nodes, not {kind}"), *faults.found]
        )
    nodes = source.get("nodes")
    if not isinstance(nodes, (list, tuple)):
        return
    if not nodes:
        faults.add(None, "nodes is empty; a graph needs at least one node")
    _check_nesting(source)
    nodes = _written_list(source)
    undos = sum(isinstance(node, dict) and node.get("undo") is not None for node in nodes)
    count = len(nodes) + undos
    if count > limits.max_nodes:
        raise GraphError(
            [
                Fault(
                    None,
                    f"the graph has {count} nodes, above the limit of {limits.max_nodes};"
                    " split the graph",
                )
            ]
        )
    edges = _count_edges(source, nodes)
    if edges > limits.max_edges:
        raise GraphError(
            [
                Fault(
                    None,
                    f"the graph has {edges} edges, above the limit of {limits.max_edges}; join"
                    " edges with an additional node",
                )
            ]
        )


def _check_nesting(source: dict[str, Any]) -> None:
    for node_id, node in zip(_written_ids(source), _written_list(source), strict=True):
        depth = nesting(node)
        if depth > MOST_NESTED:
            raise GraphError(
                [
                    Fault(
                        node_id,
                        f"io.graph: graphs are nested {depth} deep, above the limit of"
                        f" {MOST_NESTED}; move nodes of inner graphs to outer ones",
                    )
                ]
            )


def _count_edges(source: dict[str, Any], nodes: Sequence[Any]) -> int:
    """Count the edges as written, before the document is known to be well-formed."""

    def length(owner: Any, field: str) -> int:
        written = owner.get(field) if isinstance(owner, dict) else None
        return len(written) if isinstance(written, (list, tuple)) else 0

    count = length(source, "edges") + length(source, "edges_ex")
    for node in nodes:
        count += length(node, "depends_on")
        if isinstance(node, dict) and (routing := node.get("routing")) is not None:
            count += length(routing, "on_success") + length(routing, "on_failure")
    return count


def _all_faults(
    faults: Faults,
    error: ValidationError,
    source: dict[str, Any],
    bad_values: set[Path],
    functions: Collection[str] | None,
    nested: ParseNested,
) -> list[Fault]:
    """Return the faults found by the models and those in the valid parts of the document."""
    ids = _written_ids(source)
    nodes = len(_list(source, "nodes"))
    add_model_faults(faults, error, ids, bad_values, nodes=nodes)
    parts = valid_parts(error, source)
    try:
        document = _DOCUMENT.validate_json(to_json(parts.rest))
    except ValidationError:
        return faults.in_order(filter(None, ids))
    _check_parts(
        faults, document, parts, {node_id for node_id in ids if node_id is not None}, functions
    )
    written = _written_nodes(document)
    check_nested_graphs(faults, [written[place] for place in parts.whole], nested)
    return faults.in_order(filter(None, ids))


def _check(
    faults: Faults, document: GraphDocument, functions: Collection[str] | None
) -> GraphDocument:
    params = check_graph(faults, document)
    phases, document = _with_later_nodes(faults, document)
    index = index_of(faults, document.nodes)
    expressions = check_nodes(faults, document.nodes, functions)
    expressions.collect_of_graph(faults, document)
    valid = check_expressions(faults, document.nodes, expressions, phases, params)
    check_references(faults, document.nodes, index)
    links = collect_links(faults, document, _written(index, phases), phases=phases)
    check_edges_between_phases(faults, document, links)
    check_links(faults, document, links)
    check_optional(faults, document, links)
    check_maps(faults, document, links)
    check_caches(faults, document, links)
    check_nodes_read(faults, document, links, index, expressions, valid)
    if any(links.into):
        check_cycles(faults, document, links)
    return document if faults.found else without_later_nodes(normalized(document, links), phases)


def _check_parts(
    faults: Faults,
    document: GraphDocument,
    parts: ValidParts,
    written: set[str],
    functions: Collection[str] | None,
) -> None:
    """Check the valid parts of a document.

    Checks that need all edges, or whole nodes, are skipped for incomplete parts, because they would
    report faults that follow from the missing values.
    """
    params = check_graph(faults, document)
    phases, document = _with_later_nodes(faults, document)
    whole = [*parts.whole, *(() if phases is None else phases.undos)]
    index = index_of(faults, document.nodes)
    expressions = check_nodes(faults, document.nodes, functions, only=whole)
    expressions.collect_of_graph(faults, document)
    valid = check_expressions(faults, document.nodes, expressions, phases, params)
    check_references(faults, document.nodes, written | index.keys())
    links = collect_links(
        faults,
        document,
        _written(index, phases),
        unreadable=written - index.keys(),
        phases=phases,
    )
    check_edges_between_phases(faults, document, links)
    if parts.linked:
        check_links(faults, document, links, only=whole)
        check_optional(faults, document, links, only=whole)
        check_maps(faults, document, links, only=whole)
        check_caches(faults, document, links, only=whole)
        check_nodes_read(faults, document, links, index, expressions, valid)
    check_cycles(faults, document, links)


def _with_later_nodes(
    faults: Faults, document: GraphDocument
) -> tuple[LaterPhases | None, GraphDocument]:
    """Return a document with all nodes of the plan, and the places of those of later phases."""
    phases, whole = later_phases(document), with_later_nodes(document)
    nodes = whole.nodes
    if phases is not None:
        written = {node.node_id for node in nodes[: phases.undos.start]}
        for undo, node in phases.undone_by.items():
            if nodes[undo].node_id not in written:
                faults.undos[nodes[undo].node_id] = nodes[node].node_id
    check_later_phases(faults, whole, phases)
    return phases, whole


def _written(index: dict[str, int], phases: LaterPhases | None) -> dict[str, int]:
    """Return the places of the nodes that edges may name: all but the undos."""
    if phases is None or not phases.undos:
        return index
    return {node_id: place for node_id, place in index.items() if place not in phases.undos}


def _list(source: Any, field: str) -> list[Any] | tuple[Any, ...]:
    """Return a list of a document that may not be well-formed."""
    found = source.get(field) if isinstance(source, dict) else None
    return found if isinstance(found, (list, tuple)) else ()


def _written_list(source: Any) -> list[Any]:
    """Return the nodes as written, before the document is known to be well-formed."""
    return [node for field in NODE_LISTS for node in _list(source, field)]


def _written_ids(source: Any) -> list[str | None]:
    """Return the ids of the nodes as written, before the document is known to be well-formed."""
    return [node_id for field in NODE_LISTS for node_id in _ids_in(source, field)]


def _ids_in(source: Any, field: str) -> list[str | None]:
    found = [
        node.get("node_id") if isinstance(node, dict) else None for node in _list(source, field)
    ]
    return [
        node_id if isinstance(node_id, str) and 0 < len(node_id) <= MAX_ID_CHARS else None
        for node_id in found
    ]
