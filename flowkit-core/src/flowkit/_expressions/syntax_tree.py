"""The syntax tree of an expression.

Operators of one level that follow each other are one node with many operands, and so are chains of
``!`` or ``? :``. So the tree is only as deep as brackets are nested, and whatever walks through it
needs little stack.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowkit._expressions.errors import InvalidExpression

MAX_DEPTH = 100


@dataclass(slots=True)
class Node:
    """A part of an expression."""

    position: int
    size: int = field(init=False, default=1)
    """Nodes in this part of the tree: the steps that evaluating it once takes, loops apart."""
    depth: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        for part in self.parts():
            self.add_part(part)

    def add_part(self, part: "Node") -> None:
        """Count a part that is below this node."""
        self.size += part.size
        self.depth = max(self.depth, part.depth + 1)
        if self.depth > MAX_DEPTH:
            raise InvalidExpression(
                f"parts are nested more than {MAX_DEPTH} levels deep", self.position
            )

    def parts(self) -> Iterator["Node"]:
        """The nodes directly below this one."""
        return iter(())


@dataclass(slots=True)
class Literal(Node):
    value: Any


@dataclass(slots=True)
class Name(Node):
    name: str


@dataclass(slots=True)
class Select(Node):
    """``operand.field``, or whether that exists."""

    operand: Node
    field: str
    test: bool = False

    def parts(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Index(Node):
    """``operand[index]``."""

    operand: Node
    index: Node

    def parts(self) -> Iterator[Node]:
        yield self.operand
        yield self.index


@dataclass(slots=True)
class Call(Node):
    """``name(arguments)``, or ``arguments[0].name(arguments[1:])``."""

    name: str
    arguments: list[Node]
    is_method: bool

    def parts(self) -> Iterator[Node]:
        yield from self.arguments


@dataclass(slots=True)
class ListOf(Node):
    items: list[Node]

    def parts(self) -> Iterator[Node]:
        yield from self.items


@dataclass(slots=True)
class MapOf(Node):
    entries: list[tuple[Node, Node]]

    def parts(self) -> Iterator[Node]:
        for key, value in self.entries:
            yield key
            yield value


@dataclass(slots=True)
class Prefix(Node):
    """``!`` or ``-``, ``count`` times."""

    symbol: str
    count: int
    operand: Node

    def parts(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Chain(Node):
    """Operators of one level, applied from left to right: symbol, position, operand."""

    first: Node
    rest: list[tuple[str, int, Node]]

    def parts(self) -> Iterator[Node]:
        yield self.first
        for _, _, operand in self.rest:
            yield operand


@dataclass(slots=True)
class Logic(Node):
    """Operands of ``&&`` or ``||``."""

    symbol: str
    operands: list[Node]

    def parts(self) -> Iterator[Node]:
        yield from self.operands


@dataclass(slots=True)
class Choice(Node):
    """``condition ? value : condition ? value : … : otherwise``."""

    arms: list[tuple[Node, Node]]
    otherwise: Node

    def parts(self) -> Iterator[Node]:
        for condition, value in self.arms:
            yield condition
            yield value
        yield self.otherwise


@dataclass(slots=True)
class Loop(Node):
    """A macro over a list or the keys of a map: ``target.name(variable, bodies…)``."""

    name: str
    target: Node
    variable: str
    bodies: list[Node]

    def parts(self) -> Iterator[Node]:
        yield self.target
        yield from self.bodies
