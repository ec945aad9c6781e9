"""Faults found in a graph, and their texts."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flowkit._json.values import Path, kind_of, place, short, wrong_key
from flowkit._text.validation_errors import message_of, rule_of
from flowkit.errors import Fault
from flowkit.graph._models import (
    Batching,
    Cache,
    Concurrency,
    EdgeSpec,
    GraphDocument,
    MapSpec,
    NodeIO,
    NodeSpec,
    RateLimit,
    RetryPolicy,
    Routing,
    TaskConcurrency,
    Timeouts,
    UndoSpec,
)

MAX_COMPARISONS = 20_000
"""Maximum number of names compared to find a suggestion.

Finding a similar name is slow. Above this limit, unknown names are reported without a suggestion.
"""


class Faults:
    """Collector of the faults of one graph, without duplicates."""

    def __init__(self) -> None:
        self.found: dict[Fault, None] = {}
        self.undos: dict[str, str] = {}
        """Node of each undo, by ids."""
        self.incomplete: set[str | None] = set()
        """Nodes of which a value was refused and left out."""
        self._comparisons = 0

    def add(self, node_id: str | None, message: str) -> None:
        """Add a fault, unless it was added before. That of an undo is added to its node."""
        if node_id in self.undos:
            node_id, message = self.undos[node_id], f"undo: {message}"
        self.found[Fault(node_id, message)] = None

    def suggestion(self, word: str, known: Collection[str], otherwise: str = "") -> str:
        """Return the end of a sentence about an unknown word: a similar one, or ``otherwise``."""
        if known and len(word) <= 200 and self._comparisons < MAX_COMPARISONS:
            self._comparisons += len(known)
            near = get_close_matches(word, known, n=1, cutoff=0.6)
            if near:
                return f"; did you mean {short(near[0])}?"
        return f"; {otherwise}" if otherwise else ""

    def in_order(self, ids: Iterable[str]) -> list[Fault]:
        """Return the faults of the graph, then those of its nodes in document order."""
        places: dict[str | None, int] = {}
        for number, node_id in enumerate(ids):
            places.setdefault(node_id, number)
        return sorted(self.found, key=lambda fault: places.get(fault.node_id, -1))


NODE_LISTS = ("nodes", "finally")
"""Fields of a graph that are lists of nodes."""
RUNTIME_FIELDS = frozenset(
    "status attempt attempts worker_id started_at finished_at next_retry_at error result metrics"
    " progress reason_code lease token".split()
)

_PARTS: dict[str, type[BaseModel]] = {
    "retry_policy": RetryPolicy,
    "timeouts": Timeouts,
    "routing": Routing,
    "io": NodeIO,
    "io.batching": Batching,
    "map": MapSpec,
    "concurrency": Concurrency,
    "rate_limit": RateLimit,
    "cache": Cache,
    "undo": UndoSpec,
    "undo.io.batching": Batching,
    "undo.retry_policy": RetryPolicy,
    "undo.timeouts": Timeouts,
}
"""Parts of a node that are objects with fields of their own."""
_GRAPH_PARTS: dict[Path, type[BaseModel]] = {("concurrency",): TaskConcurrency}


def add_model_faults(
    faults: Faults,
    error: ValidationError,
    ids: Sequence[str | None],
    known_bad: Collection[Path],
    *,
    nodes: int,
) -> None:
    """Turn each validation error into a fault of the node that it concerns. ``ids`` are those of
    ``nodes``, of which there are this many, and of ``finally``.

    Errors inside the values at the ``known_bad`` paths are left out, because these values already
    have a fault.
    """
    for item in error.errors(include_url=False):
        path = item["loc"]
        if known_bad and any(path[:length] in known_bad for length in range(1, len(path) + 1)):
            continue
        if path[0] not in NODE_LISTS or len(path) < 2:
            faults.add(None, sentence(faults, item, path))
            continue
        node_id = ids[int(path[1]) + (nodes if path[0] == "finally" else 0)]
        where = path[2:] if node_id is not None else path
        faults.add(node_id, sentence(faults, item, where, inside=path[2:-1]))


def sentence(
    faults: Faults,
    item: ErrorDetails,
    path: Path,
    inside: Path | None = None,
    model: type[BaseModel] | None = None,
) -> str:
    """Return a sentence about a validation error. ``inside`` is the path of a part of a node, and
    ``model`` its model if that depends on the type of the node.
    """
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return unknown_field(faults, path, inside, model)
    if kind == "missing":
        return f"{place(path)} is missing; {_need(path, inside)}"
    if kind == "literal_error":
        expected = str(item.get("ctx", {}).get("expected", "")).replace("'", "")
        words = expected.replace(" or ", ", ").split(", ")
        near = faults.suggestion(value, words) if isinstance(value, str) else ""
        return f"{place(path)} must be {' or '.join(map(repr, words))}, not {short(value)}{near}"
    return refusal(item, path)


def refusal(item: ErrorDetails, path: Path | None = None) -> str:
    """Return a sentence about a rejected value that begins with its path."""
    path = item["loc"] if path is None else path
    name, kind, value = place(path), item["type"], item["input"]
    if path[-1] == "[key]":
        name = place(path[:-2])
        if kind == "string_type":
            return f"{name} has {wrong_key(value)}"
        if kind != "value_error":
            name = f"a key of {name}"
    if kind == "value_error":
        message = message_of(item)
        return (
            f"{name} {message}, not {kind_of(value)}"
            if message.startswith("must")
            else f"{name}: {message}"
        )
    if kind == "string_pattern_mismatch":
        return (
            f"{name} {_PATTERNS.get(str(path[-1]), 'must not contain control characters')}, not"
            f" {short(value)}"
        )
    rule = rule_of(item)
    if rule is None:
        return f"{name}: {item['msg']}"
    return f"{name} {rule}" if rule.startswith("must not") else f"{name} {rule}, not {short(value)}"


def unknown_field(
    faults: Faults, path: Path, inside: Path | None, model: type[BaseModel] | None = None
) -> str:
    """Return a sentence about a field that does not exist."""
    word = str(path[-1])
    where = f" in {place(path[:-1])}" if len(path) > 1 else ""
    if model is not None:
        pass
    elif inside is None:
        model = EdgeSpec if path[0] in _EDGE_LISTS else _GRAPH_PARTS.get(path[:-1], GraphDocument)
    else:
        model = _PARTS.get(".".join(map(str, inside)), NodeSpec)
        if model is NodeSpec and word in RUNTIME_FIELDS:
            return (
                f"the field {word!r} is set while the task runs and cannot be given in a graph;"
                " remove it"
            )
    fields = [field.alias or name for name, field in model.model_fields.items()]
    owner = next(
        (
            part
            for part, other in _PARTS.items()
            if model is NodeSpec and word in other.model_fields
        ),
        None,
    )
    if owner is not None:
        return f"unknown field {short(word)}{where}; it belongs in {owner!r}"
    hint = faults.suggestion(word, fields, f"known fields: {', '.join(fields)}")
    return f"unknown field {short(word)}{where}{hint}"


def _need(path: Path, inside: Path | None) -> str:
    """Return what needs the field at this path."""
    if inside is None and path[0] in _EDGE_LISTS:
        return "every edge needs one"
    if part := path[:-1] if inside is None else inside:
        return f"{place(part)} needs it"
    return "a graph needs at least one node" if inside is None else "every node needs one"


_EDGE_LISTS = ("edges", "edges_ex")
_PATTERNS = {
    "as": "must be a name: at most 100 letters A-Z and a-z, digits and '_', not first a digit",
    "fan_in": "must be 'all', 'any', 'ended' or 'count:n' with a whole number n of at least 1",
}
