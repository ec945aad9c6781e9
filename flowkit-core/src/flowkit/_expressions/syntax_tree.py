"""Syntax tree of an expression.

Consecutive operators of one level are one node with many operands, and so are chains of ``!`` or
``? :``. So the tree is only as deep as brackets are nested, and a walk through it needs little
stack.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowkit._expressions.errors import InvalidExpression

MAX_DEPTH = 100


@dataclass(slots=True)
class Node:
    """Part of an expression."""

    position: int
    size: int = field(init=False, default=1)
    """Number of nodes in this part, which is the number of steps to evaluate it without loops."""
    depth: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        for part in self.parts():
            self.add_part(part)

    def add_part(self, part: "Node") -> None:
        """Add the size and depth of a child."""
        self.size += part.size
        self.depth = max(self.depth, part.depth + 1)
        if self.depth > MAX_DEPTH:
            raise InvalidExpression(
                f"parts are nested more than {MAX_DEPTH} levels deep", self.position
            )

    def parts(self) -> Iterator["Node"]:
        """Return the direct children of this node."""
        return iter(())


@dataclass(slots=True)
class Literal(Node):
    value: Any


@dataclass(slots=True)
class Name(Node):
    name: str


@dataclass(slots=True)
class Select(Node):
    """Field ``operand.field``, or with ``test`` whether it exists."""

    operand: Node
    field: str
    test: bool = False

    def parts(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Index(Node):
    """Element ``operand[index]``."""

    operand: Node
    index: Node

    def parts(self) -> Iterator[Node]:
        yield self.operand
        yield self.index


@dataclass(slots=True)
class Call(Node):
    """Call ``name(arguments)`` or ``arguments[0].name(arguments[1:])``."""

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
    """Operator ``!`` or ``-``, applied ``count`` times."""

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
    """Operator ``&&`` or ``||`` with all its operands."""

    symbol: str
    operands: list[Node]

    def parts(self) -> Iterator[Node]:
        yield from self.operands


@dataclass(slots=True)
class Choice(Node):
    """Conditional ``condition ? value : condition ? value : … : otherwise``."""

    arms: list[tuple[Node, Node]]
    otherwise: Node

    def parts(self) -> Iterator[Node]:
        for condition, value in self.arms:
            yield condition
            yield value
        yield self.otherwise


@dataclass(slots=True)
class Loop(Node):
    """Macro over a list or the keys of a map: ``target.name(variable, bodies…)``."""

    name: str
    target: Node
    variable: str
    bodies: list[Node]

    def parts(self) -> Iterator[Node]:
        yield self.target
        yield from self.bodies
