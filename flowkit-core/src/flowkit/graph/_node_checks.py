"""Checks of the nodes of a graph and of the edges between them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowkit._expressions.templates import OPENING
from flowkit._json.limits import label_key
from flowkit._json.values import short
from flowkit.graph._control_checks import WITHOUT_EFFECT, check_control_node
from flowkit.graph._control_types import CONTROL_TYPES, runs_on_worker
from flowkit.graph._cycles import cyclic_components
from flowkit.graph._edges import NOT_THERE, Links
from flowkit.graph._expression_checks import Expressions
from flowkit.graph._faults import Faults, unknown_field
from flowkit.graph._function_arguments import argument_faults
from flowkit.graph._literal_fields import literal_field_faults, not_here
from flowkit.graph._models import (
    ALL_ENDED,
    COORDINATOR_FUNCTION,
    GraphDocument,
    NodeIO,
    NodeSpec,
)
from flowkit.graph._params_schema import schema_faults
from flowkit.graph._pull_arguments import pull_argument_faults
from flowkit.graph._templates import ARGUMENTS_THAT_NAME_NODES

PULL, RECHUNK = "pull.from_artifacts", "pull.from_artifacts.rechunk:size"
PULL_ADAPTERS = frozenset({PULL, RECHUNK})
"""Input adapters that read the artifacts of other nodes and need at least one such node."""
MAX_SHOWN = 12


def check_graph(faults: Faults, document: GraphDocument) -> Mapping[str, Any] | None:
    """Check the fields of the graph itself. Return the schema of its params, if it is valid."""
    if document.params is None:
        return None
    wrong = schema_faults(document.params)
    for fault in wrong:
        faults.add(None, fault)
    return None if wrong else document.params


def check_nodes(
    faults: Faults,
    nodes: Sequence[NodeSpec],
    functions: Collection[str] | None,
    *,
    only: Iterable[int] | None = None,
) -> Expressions:
    """Check each node alone, and return the expressions of the nodes.

    ``only`` restricts the check to the nodes at these positions.
    """
    expressions = Expressions()
    for place in range(len(nodes)) if only is None else only:
        node = nodes[place]
        if node.type == COORDINATOR_FUNCTION:
            _check_call(faults, node, functions)
            _check_fields(faults, node)
        elif node.type in CONTROL_TYPES:
            check_control_node(faults, node)
        else:
            _check_work(faults, node)
            _check_fields(faults, node)
        _check_pauses(faults, node)
        for text in literal_field_faults(node, is_undo=node.node_id in faults.undos):
            faults.add(node.node_id, text)
        _check_labels(faults, node)
        if node.concurrency is not None and node.concurrency_key is not None:
            faults.add(
                node.node_id, "concurrency and concurrency_key both name a key; remove one of them"
            )
        expressions.collect(faults, node, place)
        routing = node.routing
        for target in (
            set(routing.on_success).intersection(routing.on_failure) if routing.on_success else ()
        ):
            advice = (
                "to run it in both cases, add a node on each branch (a noop function is enough) and"
                " make it depend on both"
            )
            faults.add(
                node.node_id,
                f"routing has {short(target)} in on_success and in on_failure; {advice}",
            )

    return expressions


def _check_labels(faults: Faults, node: NodeSpec) -> None:
    """Check the keys of the labels, which those of a child task are."""
    for key in node.labels:
        try:
            label_key(key)
        except ValueError as error:
            faults.add(node.node_id, f"labels: {error}")


def _check_call(faults: Faults, node: NodeSpec, functions: Collection[str] | None) -> None:
    io, name = node.io, node.node_id
    if io.fn is None:
        faults.add(
            name,
            f"io.fn is missing; a node of type {COORDINATOR_FUNCTION!r} needs it",
        )
    elif functions is not None and io.fn not in functions and OPENING not in io.fn:
        known = sorted(functions)
        hint = faults.suggestion(io.fn, known)
        faults.add(
            name,
            f"io.fn: unknown function {short(io.fn)}{hint}; registered functions:"
            f" {', '.join(known[:50]) or 'none'}",
        )
    else:
        for text in argument_faults(faults, io.fn, io.fn_args):
            faults.add(name, text)
    if io.start_when == "first_batch":
        faults.add(
            name, "io.start_when: a coordinator function reads no batches; remove 'first_batch'"
        )
    if node.on_batch_failure != "fail":
        faults.add(name, "on_batch_failure: a coordinator function has no batches; remove it")
    if node.rate_limit is not None:
        faults.add(
            name,
            "rate_limit: a coordinator function runs on no worker; give it to nodes with a handler",
        )
    for field, reason in WITHOUT_EFFECT.items():
        if getattr(node.timeouts, field) is not None:
            faults.add(
                name,
                f"timeouts.{field}: a coordinator function {reason}; use start_to_close_sec or"
                " remove it",
            )
    for field in ("input_inline", "input_ref", "batching", "parallel", "shards", "max_ahead"):
        if getattr(io, field) is not None:
            faults.add(
                name,
                f"io.{field}: a coordinator function has no input; give its arguments in"
                " io.fn_args",
            )


def _check_pauses(faults: Faults, node: NodeSpec) -> None:
    """Report a pause before the first retry that is longer than the longest pause."""
    policy = node.retry_policy
    if policy.backoff_sec > policy.longest_backoff_sec:
        faults.add(
            node.node_id,
            f"retry_policy.backoff_sec is {policy.backoff_sec:g}, which is above max_backoff_sec,"
            f" {policy.longest_backoff_sec:g}; raise max_backoff_sec",
        )


def _check_fields(faults: Faults, node: NodeSpec) -> None:
    """Report unknown fields of ``io``."""
    for field in node.io.__pydantic_extra__ or ():
        owners = [name for name, control in CONTROL_TYPES.items() if field in control.io.names()]
        faults.add(
            node.node_id,
            f"io.{field} is only for nodes of type {' or '.join(map(repr, owners))}; change the"
            f" type or remove io.{field}"
            if owners
            else unknown_field(faults, ("io", field), ("io",)),
        )


def _check_work(faults: Faults, node: NodeSpec) -> None:
    io, name = node.io, node.node_id
    if io.fn is not None:
        faults.add(
            name,
            f"io.fn is only for nodes of type {COORDINATOR_FUNCTION!r}; change the type or"
            " remove io.fn",
        )
    elif io.fn_args:
        faults.add(
            name,
            f"io.fn_args is only for nodes of type {COORDINATOR_FUNCTION!r}; change the type or"
            " remove io.fn_args",
        )


def check_references(faults: Faults, nodes: Collection[NodeSpec], known: Collection[str]) -> None:
    """Check the node ids in the arguments of adapters and functions."""
    for node in nodes:
        for field, target in (
            named_nodes(node) if node.io.input_adapter is not None or node.io.fn is not None else ()
        ):
            if OPENING in target:
                faults.add(node.node_id, not_here(field, "the id of a node"))
            elif target not in known:
                hint = faults.suggestion(target, known, NOT_THERE)
                faults.add(
                    node.node_id, f"{field} reads {short(target)}, which is not in the graph{hint}"
                )
            elif target == node.node_id:
                faults.add(node.node_id, f"{field} reads the node itself; name another node")


def named_nodes(node: NodeSpec) -> Iterator[tuple[str, str]]:
    """Yield the nodes that the arguments of an adapter or function name, each with its field."""
    if node.type == COORDINATOR_FUNCTION:
        key = ARGUMENTS_THAT_NAME_NODES.get(node.io.fn or "")
        found = {} if key is None else {f"io.fn_args.{key}": node.io.fn_args.get(key)}
    elif node.io.input_adapter is not None and isinstance(
        arguments := node.io.input_inline.get("input_args"), dict
    ):
        found = {
            f"io.input_inline.input_args.{key}": arguments.get(key)
            for key in ("from_nodes", "from_node")
        }
    else:
        return
    for field, value in found.items():
        for target in value if isinstance(value, list) else [value]:
            if isinstance(target, str):
                yield field, target


def check_links(
    faults: Faults, document: GraphDocument, links: Links, *, only: Iterable[int] | None = None
) -> None:
    """Check fan-ins, inputs and streams against the edges.

    ``only`` restricts the check to the nodes at these positions.
    """
    for place in range(len(document.nodes)) if only is None else only:
        node, above = document.nodes[place], links.into[place]
        name = node.node_id
        if (adapter := node.io.input_adapter) is not None:
            _check_sources(faults, document, links, place)
            if isinstance(adapter, str) and adapter in PULL_ADAPTERS:
                _check_pull(faults, node, has_parents=bool(above) or links.reader(place) != place)
                _check_pulled(faults, node, document)
        if runs_on_worker(node.type) and _divides(node.io):
            streams = any(link.streams for link in above.values())
            streams = streams or node.io.start_when == "first_batch"
            grows = streams or not _sources_have_ended(document, links, place)
            _check_parallel(faults, node, streams=streams)
            _check_shards(faults, node, streams=streams, undoes=links.undone_by(place) is not None)
            _check_max_ahead(faults, node, streams=streams, grows=grows)
            _check_batching(faults, node, streams=streams, grows=grows)
        if node.on_satisfied == "cancel" and node.need < 0:
            faults.add(
                name,
                f"on_satisfied: no parent still runs when fan_in {node.fan_in!r} is satisfied;"
                " remove 'cancel'",
            )
        if not above and node.fan_in == "all" and node.io.start_when == "ready":
            continue
        if node.need > len(above):
            advice = "lower the count or add edges" if above else "add edges or remove it"
            faults.add(
                name,
                f"fan_in {node.fan_in!r} needs {_parents(node.need)}, but the node has"
                f" {_parents(len(above))}; {advice}",
            )
        if node.need == ALL_ENDED:
            _check_ended(faults, node, has_parents=bool(above))
        streams = any(link.streams for link in above.values())
        if node.io.start_when == "first_batch" and runs_on_worker(node.type) and not streams:
            plain = [document.nodes[parent] for parent, link in above.items() if not link.routed]
            _check_first_batch(faults, node, plain, has_parents=bool(above))
        for parent, link in above.items():
            if link.streams:
                _check_stream(faults, document.nodes[parent], node, routed=link.routed)


def _check_first_batch(
    faults: Faults, node: NodeSpec, plain: Sequence[NodeSpec], *, has_parents: bool
) -> None:
    """Check that a node which starts on the first batch has a parent that may store one. ``plain``
    are the parents that do not route to the node.
    """
    if any(runs_on_worker(parent.type) for parent in plain):
        return
    reason = "has no parents"
    if plain:
        names = ", ".join(short(parent.node_id) for parent in plain[:MAX_SHOWN])
        reason = f"waits for {names}, and {_kind(plain[0])} produces no batches"
    elif has_parents:
        reason = "has only parents that route to it, which is decided when they end"
    faults.add(
        node.node_id,
        f"io.start_when is 'first_batch', but the node {reason}; add an edge from another node or"
        " remove it",
    )


def _parents(count: int) -> str:
    return "1 parent" if count == 1 else f"{count} parents"


def check_optional(
    faults: Faults, document: GraphDocument, links: Links, *, only: Iterable[int] | None = None
) -> None:
    """Check that ``optional`` can have an effect on nodes whose failure a branch handles.

    ``only`` restricts the check to the nodes at these positions.
    """
    nodes = document.nodes
    handled = {
        place
        for place in (range(len(nodes)) if only is None else only)
        if nodes[place].optional
        and nodes[place].routing.on_failure
        and not nodes[place].routing.on_success
    }
    if not handled:
        return
    for place, above in enumerate(links.into):
        if nodes[place].need != ALL_ENDED:
            handled -= {parent for parent, link in above.items() if not link.routed}
    for place in sorted(handled):
        faults.add(
            nodes[place].node_id,
            "optional: the on_failure branch handles the failure, and no other node waits for the"
            " data of this node; remove it",
        )


def _check_ended(faults: Faults, node: NodeSpec, *, has_parents: bool) -> None:
    """Check that a node that waits for the end of its parents has parents, and does not start on
    the first batch.
    """
    if not has_parents:
        faults.add(
            node.node_id,
            "fan_in 'ended' waits for parents, but the node has none; add edges or remove it",
        )
    if node.io.start_when == "first_batch" and runs_on_worker(node.type):
        faults.add(
            node.node_id,
            "io.start_when: a node with fan_in 'ended' starts when all parents have ended; remove"
            " 'first_batch' or use another fan_in",
        )


def _check_sources(faults: Faults, document: GraphDocument, links: Links, place: int) -> None:
    """Check that the nodes whose artifacts a node reads are upstream of it.

    Otherwise the node would neither wait for them nor run again after they run again.
    """
    node = document.nodes[place]
    parents = {document.nodes[parent].node_id for parent in links.into[place]}
    others = [
        (field, target)
        for field, target in named_nodes(node)
        if target not in parents and target != node.node_id
    ]
    if not others:
        return
    above, ahead = set[int](), [links.reader(place)]
    while ahead:
        more = links.into[ahead.pop()].keys() - above
        above |= more
        ahead.extend(more)
    names = {document.nodes[one].node_id for one in above - {place}}
    known = {one.node_id: place for place, one in enumerate(document.nodes)}
    for field, target in others:
        if target in known and target not in names and not links.is_above(place, known[target]):
            faults.add(
                node.node_id,
                f"{field} reads {short(target)}, which is not upstream of the node; add it to"
                " depends_on",
            )


def _sources_have_ended(document: GraphDocument, links: Links, place: int) -> bool:
    """Return whether the nodes whose artifacts a node reads have all ended when it starts, if it
    does not stream.
    """
    node, above = document.nodes[place], links.into[place]
    if links.undone_by(place) is not None:
        return True
    waits_for_all = node.need < 0 or node.need == len(above)
    known = {one.node_id: place for place, one in enumerate(document.nodes)}
    named = [known[target] for _, target in named_nodes(node) if target in known]
    return all(
        links.is_above(place, source) or (waits_for_all and source in above)
        for source in named or above
    )


def _check_batching(faults: Faults, node: NodeSpec, *, streams: bool, grows: bool) -> None:
    """Check that ``io.batching`` cuts a list, or the artifacts that ``pull.from_artifacts`` reads.

    That is the default adapter of a node that ``streams``. The stream ``grows`` if artifacts may be
    stored while the node reads.
    """
    adapter, batching = node.io.input_adapter, node.io.batching
    if batching is None:
        return
    if adapter == RECHUNK:
        faults.add(
            node.node_id,
            f"io.batching cannot be combined with the input_adapter {RECHUNK!r}, which has a size"
            f" of its own; remove it, or use {PULL!r} for batches of whole artifacts",
        )
    elif adapter not in (None, PULL):
        faults.add(
            node.node_id,
            f"io.batching cannot be combined with the input_adapter {short(adapter)}; it makes"
            f" batches of the artifacts that {PULL!r} reads, or of a list",
        )
    elif adapter is None and not streams and batching.max_wait_sec is not None:
        faults.add(
            node.node_id,
            "io.batching.max_wait_sec: all items of a list are there when the node starts; remove"
            f" it, or let the node pull with the input_adapter {PULL!r}",
        )
    elif not grows and batching.max_wait_sec is not None:
        faults.add(
            node.node_id,
            "io.batching.max_wait_sec: the nodes that it reads have ended when the node starts;"
            " remove it, or let the node start with start_when 'first_batch'",
        )


def _divides(io: NodeIO) -> bool:
    """Return whether an input has fields that need batches."""
    fields = io.batching, io.parallel, io.shards, io.max_ahead
    return any(field is not None for field in fields)


def _check_parallel(faults: Faults, node: NodeSpec, *, streams: bool) -> None:
    """Check that a node with ``io.parallel`` gets its input in batches."""
    io = node.io
    if io.parallel is not None and not (streams or io.input_adapter is not None or io.batching):
        faults.add(
            node.node_id,
            "io.parallel: the input of the node is one batch; remove it, or let the node pull with"
            f" the input_adapter {PULL!r}, or divide a list with io.batching",
        )


def _check_shards(faults: Faults, node: NodeSpec, *, streams: bool, undoes: bool) -> None:
    """Check that a node with ``io.shards`` pulls artifacts, which its shards divide among them."""
    adapter = node.io.input_adapter
    if node.io.shards is None:
        return
    if not (streams if adapter is None else adapter in (PULL, RECHUNK)):
        faults.add(
            node.node_id,
            "io.shards: shards divide the artifacts that a node pulls; remove it, or let the node"
            f" start with start_when 'first_batch', or pull with the input_adapter {PULL!r}",
        )
    for is_there, other in (
        (undoes, "an undo has no shards"),
        (node.map is not None, "a map has no shards: each of its children runs by itself"),
        (node.cache is not None, "a node with a cache has no shards"),
    ):
        if is_there:
            faults.add(node.node_id, f"io.shards: {other}; remove it")
    if node.concurrency is not None and node.concurrency.on_conflict == "skip":
        faults.add(
            node.node_id,
            "concurrency.on_conflict is 'skip', but each shard takes a place, and the artifacts of"
            " a skipped shard would be lost; use 'queue' or 'fail', or remove io.shards",
        )


def _check_max_ahead(faults: Faults, node: NodeSpec, *, streams: bool, grows: bool) -> None:
    """Check that a node with ``io.max_ahead`` reads nodes that may still run."""
    if node.io.max_ahead is None:
        return
    if not streams and node.io.input_adapter is None:
        faults.add(
            node.node_id,
            "io.max_ahead: the node reads no artifacts of other nodes; remove it, or let the node"
            f" start with start_when 'first_batch', or pull with the input_adapter {PULL!r}",
        )
    elif not grows:
        faults.add(
            node.node_id,
            "io.max_ahead: the nodes that it reads have ended when the node starts; remove it, or"
            " let the node start with start_when 'first_batch'",
        )


def _check_pull(faults: Faults, node: NodeSpec, *, has_parents: bool) -> None:
    """Check the arguments of a pull adapter, and that there is at least one node to pull from."""
    adapter, arguments = node.io.input_adapter, node.io.input_inline.get("input_args")
    for fault in pull_argument_faults(arguments, rechunks=adapter == RECHUNK):
        faults.add(node.node_id, fault)
    names = arguments.get("from_nodes") if isinstance(arguments, dict) else None
    if isinstance(names, list) and not names:
        faults.add(
            node.node_id,
            f"io.input_inline.input_args.from_nodes is empty, so {adapter!r} has nothing to pull; "
            "name upstream nodes, or remove from_nodes to pull from all parents",
        )
    elif not has_parents and not any(named_nodes(node)):
        reason = f"the input adapter {adapter!r} pulls the artifacts of parents"
        faults.add(node.node_id, f"{reason}, but the node has no parents; add edges to it")


def _check_pulled(faults: Faults, node: NodeSpec, document: GraphDocument) -> None:
    """Check that the nodes that a pull adapter names may store artifacts."""
    named = list(named_nodes(node))
    if not named:
        return
    control = {one.node_id: one for one in document.nodes if not runs_on_worker(one.type)}
    for field, target in named:
        if target in control:
            faults.add(
                node.node_id,
                f"{field} reads {short(target)}, but {_kind(control[target])} produces no"
                " artifacts; remove it",
            )


def _check_stream(faults: Faults, source: NodeSpec, node: NodeSpec, *, routed: bool) -> None:
    said = f"the edge from {short(source.node_id)} has the trigger 'on_batch', but"
    if routed:
        faults.add(
            node.node_id,
            f"{said} {short(source.node_id)} routes to the node when it ends; remove one of the"
            " two",
        )
    elif not runs_on_worker(node.type):
        faults.add(node.node_id, f"{said} {_kind(node)} reads no batches; remove it")
    elif not runs_on_worker(source.type):
        faults.add(node.node_id, f"{said} {_kind(source)} produces no batches; remove it")
    elif node.need == ALL_ENDED and node.io.start_when == "ready":
        faults.add(
            node.node_id,
            f"{said} a node with fan_in 'ended' starts when all parents have ended; remove it or"
            " use another fan_in",
        )


def _kind(node: NodeSpec) -> str:
    if node.type == COORDINATOR_FUNCTION:
        return "a coordinator function"
    return f"a node of type {node.type!r}"


def check_cycles(faults: Faults, document: GraphDocument, links: Links) -> None:
    """Report one cycle of each group of nodes that wait for each other."""
    parents = [list(above) for above in links.into]
    for group in cyclic_components(parents):
        walk: dict[int, None] = {}
        node = min(group)
        while node not in walk:
            walk[node] = None
            node = next(parent for parent in parents[node] if parent in group)
        path = list(walk)
        cycle = [node, *reversed(path[path.index(node) :])]
        faults.add(
            document.nodes[node].node_id,
            f"is on a cycle: {_shown(document, cycle)}; remove one of these edges",
        )


def _shown(document: GraphDocument, path: list[int]) -> str:
    names = [short(document.nodes[place].node_id)[1:-1] for place in path]
    if len(names) > MAX_SHOWN:
        half = MAX_SHOWN // 2
        names = [*names[:half], f"… ({len(names) - 2 * half} more)", *names[-half:]]
    return " -> ".join(names)


def index_of(faults: Faults, nodes: Collection[NodeSpec]) -> dict[str, int]:
    """Return the position of each node id, and report duplicate ids as faults."""
    index: dict[str, int] = {}
    for place, node in enumerate(nodes):
        if index.setdefault(node.node_id, place) != place:
            faults.add(node.node_id, "several nodes have this node_id; give each node its own")
    return index
