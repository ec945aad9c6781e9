"""Inputs of nodes, written from the arguments of calls."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from inspect import Parameter, Signature
from typing import Any

from pydantic import ValidationError

from flowkit._expressions import InvalidExpression
from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of, json_of
from flowkit._flow_building.drafts import Callee, Draft, Expression
from flowkit._flow_building.node_table import NodeTable
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.texts import (
    FlowText,
    UnusableText,
    contains_value,
    read_expression,
    read_text,
    source_of,
)
from flowkit._flow_building.values import NodeRef, Value, expression_of, node_of
from flowkit._json.values import NotJson, json_copy
from flowkit._text.validation_errors import errors_in, message_of
from flowkit.errors import GraphError
from flowkit.graph._conditions import nodes_read


class InputWriter:
    """Writer of the input of one node. It collects the nodes whose results the input reads."""

    def __init__(self, nodes: NodeTable, *, place: str | None = None) -> None:
        """``place`` is named in errors instead of the line that is being run."""
        self._nodes = nodes
        self._place = place
        self.parents: dict[Draft, None] = {}
        self.fan_in: Expression | None = None
        """Value for which the node waits for some of several nodes."""

    def arguments(self, callee: Callee, given: Mapping[str, Any]) -> Any:
        """Return the input with which a worker calls the handler with these arguments.

        A handler with one parameter takes the value itself, others take an object.
        """
        written = {}
        for parameter in callee.parameters:
            name = parameter.name
            what = f"the argument {name!r} of {callee.__name__}"
            if name not in given:
                if len(callee.parameters) == 1:
                    default = self._typed(parameter.default, parameter.annotation, what)
                    written[name] = self.value(default, what)
                continue
            written[name] = self.argument(given[name], parameter.annotation, what)
        return next(iter(written.values())) if len(callee.parameters) == 1 else written

    def argument(self, value: Any, annotation: Any, what: str) -> Any:
        """Return an argument as it is written in a document. Its type is checked if it is known."""
        if not _has_values(value):
            _check_type(value, annotation, what)
            value = self._typed(value, annotation, what)
        return self.value(value, what)

    def node_ids(self, value: Any, what: str) -> Any:
        """Return an argument that names nodes: with their ids."""
        if isinstance(value, (list, tuple)):
            return [self.node_ids(item, what) for item in value]
        if isinstance(value, NodeRef):
            self._read(value)
            return node_of(value).draft.node_id
        if isinstance(value, str) and not contains_value(value):
            return value
        raise self._error(f"{what} names nodes: values of calls, or node ids")

    def value(self, value: Any, what: str) -> Any:
        """Return an argument as it is written in a document."""
        if isinstance(value, Value):
            self._read(value)
            return f"${{{expression_of(value).source}}}"
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (list, tuple)):
            return [self.value(item, what) for item in value]
        if isinstance(value, dict):
            return {self._key(key, what): self.value(item, what) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: self.value(getattr(value, name), what) for name in names}
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.value(self._json(value, what), what)

    def condition(self, value: Any, name: str = "when") -> str:
        """Return a value or a text as the expression of a condition."""
        if isinstance(value, Value):
            self._read(value)
            return expression_of(value).source
        if isinstance(value, str):
            return self._read_found(read_expression, value)
        raise self._error(
            f"{name} must be an expression or a value of the flow, such as rows.total > 3, not"
            f" {value!r:.80}"
        )

    def output(self, value: Any, what: str) -> Any:
        """Return a value as the output of a graph: an object, or a text with expressions."""
        is_written = value is None or isinstance(value, (Value, dict))
        is_written |= isinstance(value, str) and contains_value(value)
        written = self.value(value, what) if is_written else f"${{{self._source(value, what)}}}"
        if self.fan_in is not None:
            raise self._error(
                f"{what}: all nodes have ended when it is evaluated, so first(...) has no effect;"
                " give it to a node"
            )
        return written

    def _source(self, value: Any, what: str) -> str:
        """Return a value as one expression."""
        if isinstance(value, Value):
            self._read(value)
            return expression_of(value).source
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._source(item, what) for item in value)}]"
        if isinstance(value, dict):
            pairs = [
                f"{json.dumps(self._json(self._key(key, what), what))}: {self._source(item, what)}"
                for key, item in value.items()
            ]
            return f"{{{', '.join(pairs)}}}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._source({name: getattr(value, name) for name in names}, what)
        if isinstance(value, str) and contains_value(value):
            try:
                return source_of(self._text(value))
            except InvalidExpression as error:
                raise self._error(
                    f"{what}: {value!r:.80} is not a valid text: {error.reason}"
                ) from None
        return json.dumps(self._json(value, what), ensure_ascii=False)

    def option(self, name: str, value: Any) -> Any:
        """Return an option of a node, which must not depend on a value."""
        if _has_values(value):
            raise self._error(f"{name} is fixed when the flow is built; give it a plain value")
        return value

    def seconds(self, value: Any, what: str) -> Any:
        """Return an argument that is a number of seconds as it is written in a document."""
        if isinstance(value, timedelta):
            raise self._error(f"{what} is a number of seconds; give {value.total_seconds():g}")
        return self.value(value, what)

    def _read(self, value: Value) -> None:
        expression = expression_of(value)
        if expression.fan_in:
            self._count(expression)
        self._nodes.check_flows(expression.source, expression.flows, self._place)
        self.parents |= expression.parents

    def _count(self, expression: Expression) -> None:
        known = self.fan_in or expression
        if (known.counted, known.fan_in) != (expression.counted, expression.fan_in):
            raise self._error(
                "first(...) is given twice for different nodes; pass one through a node of its own"
            )
        self.fan_in = expression

    def _text(self, text: str) -> str:
        """Return a text as it is written in a document."""
        return self._read_found(read_text, text) if contains_value(text) else text

    def _read_found(self, read: Callable[[str], FlowText], text: str) -> str:
        try:
            found = read(text)
        except UnusableText as error:
            raise self._error(str(error)) from None
        for one in found.marks:
            nodes = {number: self._nodes.by_number.get(number) for number in one.numbers}
            self.parents |= {draft: None for draft in nodes.values() if draft is not None}
            others = [number for number, draft in nodes.items() if draft is None]
            self._nodes.check_flows(one.source, others, self._place)
        for expression in found.expressions:
            self._read_expression(expression)
        return found.template

    def _read_expression(self, expression: str) -> None:
        try:
            names = nodes_read(expression).get("results") or ()
        except InvalidExpression:  # the graph is checked as a whole, with all its faults
            return
        for node_id in sorted(names):
            if (parent := self._nodes.by_id.get(node_id)) is not None:
                parent.is_named = True
                self.parents[parent] = None

    def _key(self, key: Any, what: str) -> Any:
        if _has_values(key):
            raise self._error(
                f"{what}: the key {key!r:.80} is known only while the task runs; keys are fixed"
                " when the flow is built"
            )
        return key

    def _json(self, value: Any, what: str) -> Any:
        try:
            return json_copy(value, what)
        except NotJson as error:
            raise self._error(str(error)) from None

    def _typed(self, value: Any, annotation: Any, what: str) -> Any:
        """Return a value as JSON, in the form of its type."""
        try:
            return json_of(value, adapter_of(annotation, what), what)
        except (NotJson, UnusableAnnotation) as error:
            raise self._error(str(error)) from None

    def _error(self, message: str) -> GraphError:
        return flow_error(message, self._place)


def arguments(
    name: str,
    parameters: Sequence[Parameter],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of a call by the names of the parameters.

    Raises:
        GraphError: the call does not fit the parameters. The message names its line.
    """
    signature = Signature(parameters)
    for word in kwargs:
        if word not in signature.parameters:
            near = get_close_matches(word, signature.parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise flow_error(f"{name}{signature} has no parameter {word!r}{hint}")
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise flow_error(f"{name}{signature}: {error}") from None


def _check_type(value: Any, annotation: Any, what: str) -> None:
    try:
        adapter = adapter_of(annotation, what)
        if adapter is not None:
            adapter.validate_python(value)
    except UnusableAnnotation as error:
        raise flow_error(str(error)) from None
    except ValidationError as error:
        first = errors_in(error, value)[0]
        place = ".".join(map(str, first["loc"]))
        raise flow_error(
            f"{what} does not match: {f'{place}: ' if place else ''}{message_of(first)}"
        ) from None


def _has_values(value: Any) -> bool:
    """Return whether a part of an argument is known only while the task runs."""
    if isinstance(value, Value):
        return True
    if isinstance(value, str):
        return contains_value(value)
    if isinstance(value, dict):
        return any(map(_has_values, value)) or any(map(_has_values, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_values, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_has_values(getattr(value, field.name)) for field in dataclasses.fields(value))
    return False
