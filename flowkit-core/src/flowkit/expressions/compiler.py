"""Turns a syntax tree into a function that computes its value.

Each node becomes a closure that takes the frame of an evaluation: a list with the budget first, then the values of the names it uses and of
loop variables. Where each of them is in the frame is decided here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from flowkit.expressions.budget import ERROR_STEPS, Budget
from flowkit.expressions.errors import EvaluationError, InvalidExpression
from flowkit.expressions.functions import ANY, GLOBAL, METHODS, Overloads, argument_counts
from flowkit.expressions.loops import LOOPS, Frame, Value
from flowkit.expressions.operators import OPERATORS, negate
from flowkit.expressions.parser import counted
from flowkit.expressions.syntax import (
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
from flowkit.expressions.values import TYPES, Type, key_of, lookup_key, no_overload, type_name

TYPE_NAMES: dict[str, Type] = {kind.name: kind for kind in TYPES.values()}
CHECKED_CONSTANTS = frozenset({"matches", "timestamp", "duration"})
"""Functions whose constant arguments are tried when the expression is compiled."""
CONSTANT_STEPS, CONSTANT_MEMORY = 100_000, 100_000
FREE = frozenset({int, bool, float, type(None)})
"""Types of which two values are compared at no cost that counts."""
Path = tuple[str, ...]


@dataclass(slots=True)
class Names:
    """The places of names in the frame, and the paths that begin with a name from outside."""

    outer: dict[str, int] = field(default_factory=dict)
    paths: dict[Path, int] = field(default_factory=dict)
    """Each with the position of its first use."""
    size: int = 1
    local: dict[str, int] = field(default_factory=dict)

    def place(self) -> int:
        """A new place in the frame."""
        self.size += 1
        return self.size - 1


def compile_node(node: Node, names: Names) -> Value:
    """Compile a node with all that is below it."""
    return _COMPILERS[type(node)](node, names)


# ---------------------------------------------------------------- names and fields


def _literal(node: Literal, names: Names) -> Value:
    value = node.value
    return lambda frame: value


def _name(node: Name, names: Names) -> Value:
    return _field(node, names)


def _path_of(node: Node) -> tuple[Name, list[str]] | None:
    """The name with which a chain of fields begins, and the fields; None if the chain begins with something else."""
    fields: list[str] = []
    while True:
        if isinstance(node, Select) and not node.test:
            fields.append(node.field)
            node = node.operand
        elif isinstance(node, Index) and isinstance(node.index, Literal) and type(node.index.value) is str:
            fields.append(node.index.value)
            node = node.operand
        elif isinstance(node, Name):
            return node, fields[::-1]
        else:
            return None


def _field(node: Name | Select | Index, names: Names) -> Value:
    """Compile a chain of fields that begins with a name into a single step."""
    found = _path_of(node)
    if found is None:
        return _select(node, names) if isinstance(node, Select) else _index_of(node, names)
    first, fields = found
    constant = None if first.name in names.local else TYPE_NAMES.get(".".join([first.name, *fields]))
    if constant is not None:
        return lambda frame: constant
    place = _place_of(first, fields, names)
    return itemgetter(place) if not fields else _follow(place, fields, node.position)


def _place_of(first: Name, fields: list[str], names: Names) -> int:
    """Where a name is in the frame. If it comes from outside, note the path that is read."""
    place = names.local.get(first.name)
    if place is None:
        names.paths.setdefault((first.name, *fields), first.position)
        place = names.outer.get(first.name)
        if place is None:
            place = names.outer[first.name] = names.place()
    return place


def _follow(place: int, fields: list[str], position: int) -> Value:
    def run(frame: Frame) -> Any:
        value = frame[place]
        try:
            for name in fields:
                value = value[name]
        except (KeyError, TypeError):
            raise _no_field(value, name).at(position) from None
        return value

    return run


def _no_field(value: Any, name: str) -> EvaluationError:
    if type(value) is dict:
        return EvaluationError(f"there is no {name[:80]!r}")
    return EvaluationError(f"{type_name(value)} has no fields, so there is no {name[:80]!r}")


def _select(node: Select, names: Names) -> Value:
    operand, name, position = compile_node(node.operand, names), node.field, node.position

    def run(frame: Frame) -> Any:
        value = operand(frame)
        if type(value) is not dict or name not in value:
            raise _no_field(value, name).at(position)
        return value[name]

    return run


def _existence(node: Select, names: Names) -> Value:
    """Compile ``has(operand.field)``, which reads the path with the field, and no other."""
    found, name, position = _path_of(node.operand), node.field, node.position
    if found is None:
        operand = compile_node(node.operand, names)
    else:
        place = _place_of(found[0], [*found[1], name], names)
        operand = _follow(place, found[1], node.operand.position)

    def run(frame: Frame) -> bool:
        value = operand(frame)
        if type(value) is not dict:
            raise _no_field(value, name).at(position)
        return name in value

    return run


def _index_of(node: Index, names: Names) -> Value:
    operand, index, position = compile_node(node.operand, names), compile_node(node.index, names), node.position

    def run(frame: Frame) -> Any:
        return _at(operand(frame), index(frame), position)

    return run


def _at(value: Any, index: Any, position: int) -> Any:
    try:
        key = lookup_key(index)
        if type(value) is dict:
            if key in value:
                return value[key]
            raise EvaluationError(f"there is no {str(index)[:80]!r}")
        if type(value) is list:
            if not isinstance(key, int):
                raise EvaluationError(f"an index of a list is an int, not {type_name(index)}")
            if 0 <= key < len(value):
                return value[key]
            raise EvaluationError(f"index {str(index)[:20]} is outside the list of {len(value)} elements")
        raise no_overload("[]", value, index)
    except EvaluationError as error:
        raise error.at(position) from None


# ---------------------------------------------------------------- operators


def _prefix(node: Prefix, names: Names) -> Value:
    operand, position, count = compile_node(node.operand, names), node.position, node.count
    if node.symbol == "!":
        odd = count % 2 == 1

        def invert(frame: Frame) -> bool:
            value = operand(frame)
            if value is True or value is False:
                return value is not odd
            raise no_overload("!", value).at(position)

        return invert

    def minus(frame: Frame) -> Any:
        value = operand(frame)
        try:
            for _ in range(count):
                value = negate(value)
        except EvaluationError as error:
            raise error.at(position) from None
        return value

    return minus


def _chain(node: Chain, names: Names) -> Value:
    left = compile_node(node.first, names)
    rest = [(OPERATORS[symbol], position, compile_node(operand, names)) for symbol, position, operand in node.rest]
    if len(rest) == 1:
        return _binary(left, node.rest[0][0], *rest[0])

    def run(frame: Frame) -> Any:
        value, budget = left(frame), frame[0]
        for operator, position, operand in rest:
            other = operand(frame)
            try:
                value = operator(value, other, budget)
            except EvaluationError as error:
                raise error.at(position) from None
        return value

    return run


def _binary(left: Value, symbol: str, operator: Callable[[Any, Any, Budget], Any], position: int, right: Value) -> Value:
    def run(frame: Frame) -> Any:
        value, other = left(frame), right(frame)
        try:
            return operator(value, other, frame[0])
        except EvaluationError as error:
            raise error.at(position) from None

    def equals(frame: Frame) -> Any:
        value, other = left(frame), right(frame)
        if type(value) is type(other) and type(value) in FREE:
            return value == other
        return operator(value, other, frame[0])

    return equals if symbol == "==" else run


def _logic(node: Logic, names: Names) -> Value:
    """Both operators give a definite answer if one operand decides it, even if another fails."""
    operands = [compile_node(operand, names) for operand in node.operands]
    symbol, position, deciding = node.symbol, node.position, node.symbol == "||"

    def run(frame: Frame) -> bool:
        failure: EvaluationError | None = None
        for operand in operands:
            try:
                value = operand(frame)
            except EvaluationError as error:
                frame[0].spend(ERROR_STEPS)
                failure = failure or error
                continue
            if value is deciding:
                return deciding
            if value is not True and value is not False:
                failure = failure or EvaluationError(f"{symbol} needs true or false, not {type_name(value)}", position)
        if failure is not None:
            raise failure
        return not deciding

    return run


def _choice(node: Choice, names: Names) -> Value:
    arms = [(compile_node(condition, names), condition.position, compile_node(value, names)) for condition, value in node.arms]
    otherwise = compile_node(node.otherwise, names)

    def run(frame: Frame) -> Any:
        for condition, position, value in arms:
            chosen = condition(frame)
            if chosen is True:
                return value(frame)
            if chosen is not False:
                raise EvaluationError(f"? needs true or false, not {type_name(chosen)}", position)
        return otherwise(frame)

    return run


# ---------------------------------------------------------------- collections, loops and calls


def _list_of(node: ListOf, names: Names) -> Value:
    items = [compile_node(item, names) for item in node.items]

    def run(frame: Frame) -> list[Any]:
        frame[0].make_elements(len(items))
        return [item(frame) for item in items]

    return run


def _map_of(node: MapOf, names: Names) -> Value:
    entries = [(compile_node(key, names), key.position, compile_node(value, names)) for key, value in node.entries]

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].make_elements(2 * len(entries))
        made: dict[Any, Any] = {}
        for key, position, value in entries:
            try:
                name = key_of(key(frame))
            except EvaluationError as error:
                raise error.at(position) from None
            if name in made:
                raise EvaluationError("the map has the same key twice", position)
            made[name] = value(frame)
        return made

    return run


def _loop(node: Loop, names: Names) -> Value:
    target = compile_node(node.target, names)
    place = names.place()
    inner = Names(names.outer, names.paths, names.size, {**names.local, node.variable: place})
    bodies = [compile_node(body, inner) for body in node.bodies]
    names.size = inner.size
    cost = 1 + sum(body.size for body in node.bodies)
    return LOOPS[node.name](target, place, bodies, cost, node.position)


def _call(node: Call, names: Names) -> Value:
    overloads = _overloads(node)
    arguments = [compile_node(argument, names) for argument in node.arguments]
    name, position = node.name, node.position
    general = overloads.get(ANY)

    def run(frame: Frame) -> Any:
        values = [argument(frame) for argument in arguments]
        function = overloads.get(tuple(map(type, values)), general)
        if function is None:
            raise no_overload(f"{name}()", *values).at(position)
        try:
            return function(frame[0], *values)
        except EvaluationError as error:
            raise error.at(position) from None

    if name in CHECKED_CONSTANTS:
        _try_constants(node, run)
    return run


def _overloads(node: Call) -> Overloads:
    table = METHODS if node.is_method else GLOBAL
    overloads = table.get(node.name)
    if overloads is None:
        other = (GLOBAL if node.is_method else METHODS).get(node.name)
        if other is None:
            raise InvalidExpression(f"there is no function {node.name[:80]}()", node.position)
        form = f"{node.name}(value)" if node.is_method else f"value.{node.name}()"
        raise InvalidExpression(f"{node.name}() is called as {form}", node.position)
    counts = argument_counts(overloads)
    if len(node.arguments) not in counts:
        inside = int(node.is_method)
        wanted = counted(count - inside for count in counts)
        raise InvalidExpression(f"{node.name}() takes {wanted}, not {len(node.arguments) - inside}", node.position)
    return overloads


def _try_constants(node: Call, run: Value) -> None:
    """Evaluate a call whose arguments are constants, to report an error before any task runs into it."""
    arguments = node.arguments
    if node.name == "matches" and isinstance(arguments[-1], Literal) and not isinstance(arguments[0], Literal):
        run = _call(Call(node.position, node.name, [Literal(node.position, ""), arguments[-1]], node.is_method), Names())
    elif not all(isinstance(argument, Literal) for argument in arguments):
        return
    try:
        run([Budget(CONSTANT_STEPS, CONSTANT_MEMORY)])
    except EvaluationError as error:
        raise InvalidExpression(error.reason, error.position) from None


_COMPILERS: dict[type[Node], Callable[[Any, Names], Value]] = {
    Literal: _literal,
    Name: _name,
    Select: lambda node, names: _existence(node, names) if node.test else _field(node, names),
    Index: _field,
    Prefix: _prefix,
    Chain: _chain,
    Logic: _logic,
    Choice: _choice,
    ListOf: _list_of,
    MapOf: _map_of,
    Loop: _loop,
    Call: _call,
}
