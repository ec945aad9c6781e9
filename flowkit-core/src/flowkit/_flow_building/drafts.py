"""Nodes of a flow that is being built, and the expressions of their results."""

import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowkit._expressions.parser import RESERVED
from flowkit._flow_building.options import NodeOptions

_NOT_SELECTED = RESERVED | {"in", "true", "false", "null"}
next_number = itertools.count(1).__next__
"""Return a number by which texts name a node, a flow or a call. No other one has it."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def member(name: str) -> str:
    """Return the end of an expression that selects a member of a map."""
    is_name = _NAME.match(name) and name not in _NOT_SELECTED
    return f".{name}" if is_name else f"[{json.dumps(name)}]"


class Callee(Protocol):
    """Handler whose calls make nodes."""

    __name__: str
    role: str | None
    function: Callable[..., Any]
    node_options: NodeOptions
    """Options of the nodes that its calls make."""
    generates: bool
    """Whether it yields artifacts."""

    @property
    def parameters(self) -> Sequence[inspect.Parameter]:
        """Parameters aside from the context, with their annotations."""

    @property
    def returns(self) -> Any:
        """Annotation of its result."""


@dataclass(slots=True, eq=False)
class Draft:
    """Node that is being built."""

    node_id: str
    type: str
    place: str
    """File and line of the call."""
    is_final: bool = False
    """Whether it is a node of ``finally``."""
    fields: dict[str, Any] = field(default_factory=dict)
    io: dict[str, Any] = field(default_factory=dict)
    parents: dict["Draft", None] = field(default_factory=dict)
    """Parents that it needs."""
    streams: dict["Draft", None] = field(default_factory=dict)
    """Parents whose batches it reads as they are stored."""
    routing: dict[str, list["Draft"]] = field(default_factory=dict)
    counted: Mapping["Draft", None] = field(default_factory=dict)
    """Parents of which it needs some, which its fan-in counts."""
    has_result: bool = True
    """Whether it may have a result. A node that yields, or reads a stream, has only artifacts."""
    is_named: bool = False
    """Whether an expression has its id."""
    has_own_id: bool = False
    """Whether the id was given as an option."""
    is_joined: bool = False
    """Whether an arrow or a branch leads to it or from it."""
    is_whole: bool = False
    """Whether the call that makes it has ended without an error."""
    undo: "Draft | None" = None
    undoes: "Draft | None" = None
    """Node that it is the undo of."""
    number: int = field(default_factory=next_number)
    """Number by which a text names the node."""

    def document(self) -> dict[str, Any]:
        """Return the node as it is written in a graph document."""
        made: dict[str, Any] = {"node_id": self.node_id, "type": self.type, **self.fields}
        parents = [one for one in (*self.counted, *self.parents) if one not in self.streams]
        if parents:
            made["depends_on"] = [one.node_id for one in parents]
        if self.routing:
            made["routing"] = {
                branch: [one.node_id for one in targets] for branch, targets in self.routing.items()
            }
        if self.io:
            made["io"] = self.io
        if self.undo is not None:
            made["undo"] = {"type": self.undo.type, "io": self.undo.io, **self.undo.fields}
        return made


class Building(Protocol):
    """Flow that is being built, as its values use it."""

    def set_options(self, draft: Draft, options: NodeOptions) -> None:
        """Set fields of a node."""

    def order(self, before: object, after: object) -> None:
        """Let a node wait for another one without its data."""

    def route(self, draft: Draft, branch: str, targets: Iterable[object]) -> None:
        """Add nodes to a branch of a node."""

    def undo(self, result: "NodeResult", target: object, *, of_map: bool = False) -> None:
        """Make a call the undo of a node, or of each child of a map."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Expression that a value stands for."""

    source: str
    parents: Mapping[Draft, None] = field(default_factory=dict)
    """Nodes whose results it needs."""
    annotation: Any = None
    """Type of the value, if it is known."""
    flows: frozenset[int] = frozenset()
    """Numbers of the flows whose params, or whose task, it reads, and of calls of functions with
    it. Elsewhere, the same source has another meaning."""
    counted: Mapping[Draft, None] = field(default_factory=dict)
    """Nodes of which some must finish."""
    fan_in: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the node that takes the value, which say how many."""
    is_compound: bool = False
    """Whether it needs parentheses inside of another expression."""

    def expression(self) -> "Expression":
        """Return this expression, which is the same wherever it is used."""
        return self

    @property
    def operand(self) -> str:
        """Expression as a part of another one."""
        return f"({self.source})" if self.is_compound else self.source

    def derived(
        self, source: str, *others: "Expression", is_compound: bool = False
    ) -> "Expression":
        """Return an expression that is made of this one and others."""
        parents, counted, fan_in = dict(self.parents), dict(self.counted), dict(self.fan_in)
        flows = self.flows.union(*(other.flows for other in others))
        for other in others:
            parents |= other.parents
            counted |= other.counted
            fan_in |= other.fan_in
        return Expression(
            source,
            parents,
            flows=flows,
            counted=counted,
            fan_in=fan_in,
            is_compound=is_compound,
        )


class StandsFor(Protocol):
    """Node, or an expression, that a value stands for."""

    def expression(self) -> Expression:
        """Return the expression where the value is used."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """Result of a node, as a value stands for it."""

    flow: Building
    draft: Draft
    annotation: Any

    def expression(self) -> Expression:
        """Return the expression. From now on, the node keeps its id."""
        self.draft.is_named = True
        source = f"results{member(self.draft.node_id)}"
        return Expression(source, {self.draft: None}, self.annotation)
