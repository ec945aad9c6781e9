"""Values that are known only while a task runs: they stand for expressions of the graph."""

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, Unpack

from flowkit._flow_building.annotations import field_type, fields_of, present
from flowkit._flow_building.drafts import Expression, NodeResult, StandsFor, member
from flowkit._flow_building.options import NodeOptions
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.texts import mark, representation
from flowkit._json.values import NotJson, json_copy

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Target = TypeVar("Target", bound="NodeRef[Any] | Iterable[NodeRef[Any]]")

COMPUTE = (
    "compute it in a handler, put it into a text with f'{value}', or give the text of an"
    " expression, such as '${results.a.n + 1}'"
)
DECIDE = (
    "let the node decide with .options(when=...), which takes conditions that are combined with"
    " (a) & (b), (a) | (b) and ~(a)"
)
OPERATORS = (
    "add radd sub rsub mul rmul matmul rmatmul truediv rtruediv floordiv rfloordiv mod rmod divmod"
    " rdivmod pow rpow xor rxor lshift rlshift rshift rrshift neg pos abs"
)
USES = {
    "a condition": ("bool", DECIDE),
    "iterated": ("iter reversed", "give it to a handler, or its items with handler.map(...)"),
    "measured with len()": ("len length_hint", "compute the length in a handler"),
    "searched with 'in'": ("contains", "search it in a handler"),
    "converted to a number or bytes": ("int float complex index bytes", COMPUTE),
    "rounded": ("trunc round floor ceil", COMPUTE),
    "an operand": (OPERATORS, COMPUTE),
    "called": ("call", "it is data and has no such method"),
    "a path": ("fspath", "put it into the text of the path: f'{folder}/name'"),
    "changed": ("setitem delitem setattr delattr", "let a handler return the changed value"),
    "a context manager": ("enter exit", "open it in a handler"),
}
"""Uses that need the value itself: the special methods that Python calls, and what to do instead.
"""
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
COMBINATIONS = {"and": "&&", "rand": "&&", "or": "||", "ror": "||"}
"""Operators of conditions: the special methods that Python calls, and those of expressions."""


# For type checkers, a value may be given where a value of any type is expected.
_AnyType: Any = Any if TYPE_CHECKING else object


class Value(_AnyType):  # type: ignore[misc]
    """Value that is known only while the task runs: an expression of the graph.

    Its attributes and items are values too. A comparison is one for ``when``. In a text it is
    ``${…}``. Any other use that needs the value itself is an error, which says what to use.
    """

    __slots__ = ("_stands_for",)

    def __init__(self, stands_for: StandsFor) -> None:
        object.__setattr__(self, "_stands_for", stands_for)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}; use [{name!r}]")
        expression = _with_parts(self)
        _check_field(expression, name)
        return Value(_field(expression, name))

    def __getitem__(self, key: Any) -> Any:
        expression = _with_parts(self)
        if isinstance(key, Value):
            place = expression_of(key)
            return Value(expression.derived(f"{expression.operand}[{place.source}]", place))
        if isinstance(key, str):
            return Value(_field(expression, key))
        if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
            return Value(expression.derived(f"{expression.operand}[{key}]"))
        raise flow_error(
            f"{expression.source}[{key!r:.80}]: an item has a name or a position from 0; compute"
            " others in a handler"
        )

    def __str__(self) -> str:
        if expression_of(self).fan_in:
            raise _early_use(self, "part of a text", "put it into the text in a handler")
        return mark(expression_of(self))

    def __format__(self, spec: str) -> str:
        if spec:
            raise _early_use(self, f"formatted with {spec!r}", "format it in a handler")
        return str(self)

    def __repr__(self) -> str:
        return representation(expression_of(self))

    def __invert__(self) -> Any:
        expression = expression_of(self)
        return Value(expression.derived(f"!{expression.operand}"))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    __hash__ = object.__hash__


def stands_for(value: Value) -> StandsFor:
    """Return what a value stands for."""
    found: StandsFor = value._stands_for  # noqa: SLF001 - all else is data of users
    return found


def expression_of(value: Value) -> Expression:
    """Return the expression of a value."""
    return stands_for(value).expression()


def _with_parts(value: Value) -> Expression:
    """Return the expression of a value that has fields or items."""
    found = stands_for(value)
    if isinstance(found, NodeResult) and not found.draft.has_result:
        node_id = found.draft.node_id
        raise flow_error(
            f"the node {node_id!r} stores artifacts and has no result; let a handler read them:"
            f" handler.stream(...), handler.map(...), or ctx.artifacts.read({node_id!r}) in a node"
            " below"
        )
    return found.expression()


def _field(expression: Expression, name: str) -> Expression:
    found = expression.derived(f"{expression.operand}{member(name)}")
    return replace(found, annotation=field_type(expression.annotation, name))


def _check_field(expression: Expression, name: str) -> None:
    """Check that a field exists, if the type of the value has a list of its fields."""
    fields = fields_of(expression.annotation)
    if fields is None or name in fields:
        return
    near = get_close_matches(name, fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"its fields: {', '.join(fields)}"
    kind = present(expression.annotation).__name__
    raise flow_error(f"{kind}, the type of {expression.source}, has no field {name!r}; {hint}")


def _early_use(value: Value, use: str, advice: str) -> Exception:
    return flow_error(
        f"{expression_of(value).source} is known only while the task runs, so it cannot be {use}"
        f" when the flow is built; {advice}"
    )


def _comparison(operator: str) -> Callable[[Value, Any], Value]:
    def compare(self: Value, other: Any) -> Value:
        left = expression_of(self)
        if isinstance(other, Value):
            right = expression_of(other)
            return _compound(left, operator, right.operand, right)
        try:
            literal = json.dumps(json_copy(other, "the compared value"), ensure_ascii=False)
        except NotJson as error:
            raise flow_error(str(error)) from None
        return _compound(left, operator, literal)

    return compare


def _combination(operator: str) -> Callable[[Value, Any], Value]:
    def combine(self: Value, other: Any) -> Value:
        left = expression_of(self)
        if isinstance(other, Value):
            right = expression_of(other)
            return _compound(left, operator, right.operand, right)
        if isinstance(other, bool):
            return _compound(left, operator, json.dumps(other))
        raise _early_use(self, f"combined with {other!r:.80}", COMPUTE)

    return combine


def _compound(left: Expression, operator: str, right: str, *others: Expression) -> Value:
    source = f"{left.operand} {operator} {right}"
    return Value(left.derived(source, *others, is_compound=True))


def _refusal(use: str, advice: str) -> Callable[..., NoReturn]:
    def refuse(self: Value, *args: Any, **kwargs: Any) -> NoReturn:
        raise _early_use(self, use, advice)

    return refuse


for _name, _operator in COMPARISONS.items():
    setattr(Value, f"__{_name}__", _comparison(_operator))
for _name, _operator in COMBINATIONS.items():
    setattr(Value, f"__{_name}__", _combination(_operator))
for _use, (_names, _advice) in USES.items():
    for _name in _names.split():
        setattr(Value, f"__{_name}__", _refusal(_use, _advice))


ITEM = "item"
"""Name of the item in expressions, if ``map.as`` gives no other one."""


class NodeRef(Value, Generic[R_co]):
    """Node of a flow that is being built, and the value of its result.

    ``a >> b`` lets ``b`` wait for ``a`` without its data and returns ``b``; ``a >> [b, c]`` and
    ``[a, b] >> c`` work as well. A field of the result that has the name of a method is an item:
    ``ref["options"]``.
    """

    __slots__ = ()

    def options(self, **options: Unpack[NodeOptions]) -> Self:
        """Set fields of the node, and return it.

        A ``node_id`` is given before the value of the node is used.
        """
        node = node_of(self)
        node.flow.set_options(node.draft, options)
        return self

    def on_success(self, *targets: "NodeRef[Any] | Callable[[], NodeRef[Any]]") -> Self:
        """Run nodes only if this one finishes, and return this one.

        A handler that needs no argument makes its own node.
        """
        return self._route("on_success", targets)

    def on_failure(self, *targets: "NodeRef[Any] | Callable[[], NodeRef[Any]]") -> Self:
        """Run nodes only if this one fails, which handles the failure, and return this one."""
        return self._route("on_failure", targets)

    def undo(
        self,
        handler: "NodeRef[Any] | Callable[[R_co], NodeRef[Any]] | Callable[[], NodeRef[Any]]",
    ) -> Self:
        """Run a handler if the task fails or is cancelled after this node has finished, to take
        back what the node has done, and return this node.

        The handler is called with the result of the node, if it has a parameter. A call
        (``cancel(trip, ref.id)``) and a function that makes one have other arguments.
        """
        node = node_of(self)
        node.flow.undo(node, handler)
        return self

    def _route(self, branch: str, targets: Iterable[object]) -> Self:
        node = node_of(self)
        node.flow.route(node.draft, branch, targets)
        return self

    def __rshift__(self, other: Target) -> Target:
        for target in _several(other):
            node_of(self).flow.order(self, target)
        return other

    def __rrshift__(self, others: "Iterable[NodeRef[Any]]") -> Self:
        for other in _several(others):
            node_of(self).flow.order(other, self)
        return self

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, R_co]:
            """Outside a flow, the call of an asynchronous handler is awaited."""


def _several(nodes: object) -> Iterable[object]:
    return nodes if isinstance(nodes, Iterable) and not isinstance(nodes, Value) else [nodes]


class MapRef(NodeRef[list[R]]):
    """Node of a flow that calls a handler for each item of a list, and the list of the results."""

    __slots__ = ()

    def undo(  # type: ignore[override]  # each child is undone, and not the list of the results
        self,
        handler: NodeRef[Any]
        | Callable[[R], NodeRef[Any]]
        | Callable[[R, Any], NodeRef[Any]]
        | Callable[[], NodeRef[Any]],
    ) -> Self:
        """Run a handler for each child that has finished if the task fails or is cancelled, to take
        back what the child has done, and return this node.

        The handler is called with the result of the child if it has a required parameter, and with
        the item as well if it has two.
        """
        node = node_of(self)
        node.flow.undo(node, handler, of_map=True)
        return self


def node_of(ref: NodeRef[Any]) -> NodeResult:
    """Return the node of a reference, with its flow."""
    found = stands_for(ref)
    assert isinstance(found, NodeResult)
    return found
