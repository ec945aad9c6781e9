"""Compiler from syntax trees to closures, which also collects the names that are read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from flowkit._expressions import closures
from flowkit._expressions.budget import Budget
from flowkit._expressions.closures import Value
from flowkit._expressions.errors import EvaluationError, InvalidExpression
from flowkit._expressions.function_table import GLOBAL, METHODS, argument_counts
from flowkit._expressions.macros import LOOPS
from flowkit._expressions.parser import counted
from flowkit._expressions.patterns import check_pattern
from flowkit._expressions.syntax_tree import (
    Call,
    Chain,
    Choice,
    Index,
    ListOf,
    Literal,
    Logic,
    Loop,
    MapOf,
    Name,
    Node,
    Prefix,
    Select,
)
from flowkit._expressions.values import TYPES, Overloads, Type

TYPE_NAMES: dict[str, Type] = {kind.name: kind for kind in TYPES.values()}
CHECKED_CONSTANTS = frozenset({"matches", "timestamp", "duration"})
"""Functions whose constant arguments are checked at compile time."""
CONSTANT_STEPS, CONSTANT_MEMORY = 1_000, 1_000
MAX_PATTERN_WEIGHT = 20_000
"""Maximum total weight of checking the constant patterns of an expression.

A weight of 1 is about a microsecond.
"""
Path = tuple[str, ...]


@dataclass(slots=True)
class Names:
    """Places of names in the frame, and paths that start with an outer name."""

    outer: dict[str, int] = field(default_factory=dict)
    paths: dict[Path, int] = field(default_factory=dict)
    """Paths, each with the position of its first use."""
    size: int = 1
    local: dict[str, int] = field(default_factory=dict)
    patterns: dict[str, int] = field(default_factory=dict)
    """Constant patterns, each with the weight of checking it."""

    def place(self) -> int:
        """Allocate a place in the frame."""
        self.size += 1
        return self.size - 1

    def read(self, name: Name, fields: list[str]) -> int:
        """Return the place of a name in the frame. Record the path of an outer name."""
        place = self.local.get(name.name)
        if place is None:
            self.paths.setdefault((name.name, *fields), name.position)
            place = self.outer.get(name.name)
            if place is None:
                place = self.outer[name.name] = self.place()
        return place


def compile_node(node: Node, names: Names) -> Value:
    """Compile a node and its children."""
    return _COMPILERS[type(node)](node, names)


def _all(nodes: list[Node], names: Names) -> list[Value]:
    return [compile_node(node, names) for node in nodes]


# ---------------------------------------------------------------- names and fields


def _literal(node: Literal, names: Names) -> Value:
    value = node.value
    return lambda frame: value


def _path_of(node: Node) -> tuple[Name, list[str]] | None:
    """Return the first name and the fields of a chain, or None if it does not start with a name."""
    fields: list[str] = []
    while True:
        if isinstance(node, Select) and not node.test:
            fields.append(node.field)
            node = node.operand
        elif (
            isinstance(node, Index)
            and isinstance(node.index, Literal)
            and type(node.index.value) is str
        ):
            fields.append(node.index.value)
            node = node.operand
        elif isinstance(node, Name):
            return node, fields[::-1]
        else:
            return None


def _field(node: Name | Select | Index, names: Names) -> Value:
    """Compile a chain of fields. One that starts with a name is a single step."""
    found = _path_of(node)
    if found is not None:
        name, fields = found
        constant = (
            None if name.name in names.local else TYPE_NAMES.get(".".join([name.name, *fields]))
        )
        if constant is not None:
            return lambda frame: constant
        place = names.read(name, fields)
        return closures.follow(place, fields, node.position) if fields else itemgetter(place)
    assert not isinstance(node, Name)
    operand = compile_node(node.operand, names)
    if isinstance(node, Select):
        return closures.select(operand, node.field, node.position)
    return closures.element(operand, compile_node(node.index, names), node.position)


def _select(node: Select, names: Names) -> Value:
    if not node.test:
        return _field(node, names)
    found = _path_of(node.operand)
    if found is None:
        operand = compile_node(node.operand, names)
    else:
        # The path with the field is read, not all of the operand.
        operand = closures.follow(
            names.read(found[0], [*found[1], node.field]), found[1], node.operand.position
        )
    return closures.existence(operand, node.field, node.position)


# ---------------------------------------------------------------- operators, collections and loops


def _prefix(node: Prefix, names: Names) -> Value:
    make = closures.inversion if node.symbol == "!" else closures.negation
    return make(compile_node(node.operand, names), node.count, node.position)


def _chain(node: Chain, names: Names) -> Value:
    left = compile_node(node.first, names)
    rest = [
        (symbol, position, compile_node(operand, names)) for symbol, position, operand in node.rest
    ]
    return closures.binary(left, *rest[0]) if len(rest) == 1 else closures.chain(left, rest)


def _choice(node: Choice, names: Names) -> Value:
    arms = [
        (compile_node(condition, names), condition.position, compile_node(value, names))
        for condition, value in node.arms
    ]
    return closures.choice(arms, compile_node(node.otherwise, names))


def _map_of(node: MapOf, names: Names) -> Value:
    return closures.map_of(
        [
            (compile_node(key, names), key.position, compile_node(value, names))
            for key, value in node.entries
        ]
    )


def _loop(node: Loop, names: Names) -> Value:
    target = compile_node(node.target, names)
    place = names.place()
    inner = Names(
        names.outer, names.paths, names.size, {**names.local, node.variable: place}, names.patterns
    )
    bodies = _all(node.bodies, inner)
    names.size = inner.size
    return LOOPS[node.name](
        target, place, bodies, 1 + sum(body.size for body in node.bodies), node.position
    )


# ---------------------------------------------------------------- calls


def _call(node: Call, names: Names) -> Value:
    run = closures.call(node.name, _overloads(node), _all(node.arguments, names), node.position)
    if node.name in CHECKED_CONSTANTS:
        _try_constants(node, run, names)
    return run


def _overloads(node: Call) -> Overloads:
    table, other = (METHODS, GLOBAL) if node.is_method else (GLOBAL, METHODS)
    overloads = table.get(node.name)
    if overloads is None:
        if node.name not in other:
            raise InvalidExpression(f"unknown function {node.name[:80]}()", node.position)
        form = f"{node.name}(value)" if node.is_method else f"value.{node.name}()"
        raise InvalidExpression(f"{node.name}() must be called as {form}", node.position)
    counts = argument_counts(overloads)
    if len(node.arguments) not in counts:
        before = int(node.is_method)
        wanted = counted(count - before for count in counts)
        raise InvalidExpression(
            f"{node.name}() takes {wanted}, not {len(node.arguments) - before}", node.position
        )
    return overloads


def _try_constants(node: Call, run: Value, names: Names) -> None:
    """Check constant arguments, so that errors are reported before a task uses the expression."""
    last = node.arguments[-1]
    try:
        if node.name == "matches" and isinstance(last, Literal) and type(last.value) is str:
            _check_pattern(last.value, names)
        elif all(isinstance(argument, Literal) for argument in node.arguments):
            run([Budget(CONSTANT_STEPS, CONSTANT_MEMORY)])
    except EvaluationError as error:
        raise InvalidExpression(
            error.reason, node.position if error.position is None else error.position
        ) from None


def _check_pattern(pattern: str, names: Names) -> None:
    if pattern not in names.patterns:
        names.patterns[pattern] = check_pattern(pattern)
        if sum(names.patterns.values()) > MAX_PATTERN_WEIGHT:
            raise EvaluationError(
                "the patterns of matches() are too large in total; use fewer and smaller character"
                " classes"
            )


_COMPILERS: dict[type[Node], Callable[[Any, Names], Value]] = {
    Literal: _literal,
    Name: _field,
    Select: _select,
    Index: _field,
    Prefix: _prefix,
    Chain: _chain,
    Logic: lambda node, names: closures.logic(
        _all(node.operands, names), node.symbol, node.position
    ),
    Choice: _choice,
    ListOf: lambda node, names: closures.list_of(_all(node.items, names)),
    MapOf: _map_of,
    Loop: _loop,
    Call: _call,
}
