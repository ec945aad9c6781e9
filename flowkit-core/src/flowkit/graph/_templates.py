"""Expressions in the inputs of nodes and in the output of a graph: ``${ … }`` in strings."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from flowkit._expressions import (
    Budget,
    BudgetExceeded,
    EvaluationError,
    ExpressionError,
    InvalidExpression,
    compilations,
    compile_expression,
)
from flowkit._expressions.conversions import text_of
from flowkit._expressions.templates import OPENING, Placed, Template, json_value, split_template
from flowkit._expressions.values import type_name
from flowkit._json.limits import MAX_ID_CHARS, MAX_VALUE_LEVELS
from flowkit._json.values import short
from flowkit.errors import NodeFailure
from flowkit.graph._models import Cache, Concurrency, Name, NodeIO, RateLimit, TaskConcurrency

FIELDS = ("input_inline", "input_ref", "fn_args")
"""Fields of the ``io`` of work and coordinator functions whose strings may contain expressions."""
ARGUMENTS_THAT_NAME_NODES = {"merge.generic": "from_nodes", "metrics.aggregate": "node_id"}
"""Arguments of coordinator functions that name nodes."""
CHARACTERS_A_STEP = 2
"""Characters of an expression, without loops, that take as long as one step."""
CHARACTERS_AT_ONCE = 1_000
"""Length of an expression. A longer one is delayed: compiling it takes many milliseconds."""
STEPS_TO_COMPILE = 16
"""Steps that take as long as compiling one character of an expression."""
_OPENING = OPENING.encode()

Path = tuple[str | int, ...]
"""Place of a value: in ``io``, or in a graph if it begins with ``output``."""
OVER: Path = ("map", "over")
OUTPUT: Path = ("output",)
KEY: Path = ("concurrency", "key")
RATE: Path = ("rate_limit", "key")
CACHE: Path = ("cache", "key")
SCHEDULE: Path = ("schedule",)
"""Beginning of the places in a schedule or trigger."""


class Found(NamedTuple):
    """String with expressions in the input of a node, or in the output of a graph."""

    path: Path
    text: str


def has_expressions(io: NodeIO) -> bool:
    """Return whether the input of a node may contain expressions."""
    values = [getattr(io, name) for name in FIELDS if name in io.model_fields_set]
    if io.__pydantic_extra__:
        values.append(io.__pydantic_extra__)
    return bool(values) and _OPENING in to_json(values)


def templates_in(io: Mapping[str, Any], fields: Collection[str] = FIELDS) -> Iterator[Found]:
    """Yield the strings in these fields of an input that contain ``${``. Strings that the plan of
    the graph needs before any evaluation are left out: the names of an input adapter and of nodes.
    """
    literal = _literal_paths(io)
    for name in fields:
        yield from _strings(io.get(name), (name,), literal)


def templates_in_output(output: Any) -> Iterator[Found]:
    """Yield the strings of an output that contain ``${``."""
    return _strings(output, OUTPUT, frozenset())


def templates_in_params(params: Mapping[str, Any]) -> Iterator[Found]:
    """Yield the strings of the params of a schedule or trigger that contain ``${``."""
    return _strings(params, (*SCHEDULE, "params"), frozenset())


def expressions_in(io: Mapping[str, Any], fields: Collection[str] = FIELDS) -> Iterator[str]:
    """Yield the expressions of a valid input."""
    return _expressions(templates_in(io, fields))


def expressions_in_output(output: Any) -> Iterator[str]:
    """Yield the expressions of a valid output."""
    return _expressions(templates_in_output(output))


def _expressions(templates: Iterable[Found]) -> Iterator[str]:
    for found in templates:
        for part in _split(found.text):
            if isinstance(part, Placed):
                yield part.source


def templates_in_items(items: Any) -> Iterator[Found]:
    """Yield the strings of ``map.over`` that contain ``${``."""
    yield from _strings(items, OVER, frozenset())


def expressions_in_items(items: Any) -> Iterator[str]:
    """Yield the expressions of a valid ``map.over``."""
    for found in templates_in_items(items):
        for part in _split(found.text):
            if isinstance(part, Placed):
                yield part.source


AnyKey = Concurrency | TaskConcurrency | RateLimit | Cache


def templates_in_key(key: AnyKey | None) -> Iterator[Found]:
    """Yield the strings of a concurrency key, a rate or the key of a cache that contain ``${``."""
    return _strings(None if key is None else key.key, path_of_key(key), frozenset())


def path_of_key(key: AnyKey | None) -> Path:
    """Return the place of a concurrency key, of a rate, or of the key of a cache."""
    if isinstance(key, Cache):
        return CACHE
    return RATE if isinstance(key, RateLimit) else KEY


def expressions_in_key(key: AnyKey | None) -> Iterator[str]:
    """Yield the expressions of a valid concurrency key, rate or key of a cache."""
    return _expressions(templates_in_key(key))


def pointer(path: Path) -> str:
    """Return a place as a JSON pointer: from the graph in its output, else from the node."""
    in_node = path[:1] in (OVER[:1], KEY[:1], RATE[:1], CACHE[:1])
    steps = path if in_node or path[:1] == OUTPUT else ("io", *path)
    steps = path[1:] if path[:1] == SCHEDULE else steps
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _literal_paths(io: Mapping[str, Any]) -> frozenset[Path]:
    paths: set[Path] = set()
    inline = io.get("input_inline")
    if isinstance(inline, dict) and "input_adapter" in inline:
        paths.add(("input_inline", "input_adapter"))
        paths |= {("input_inline", "input_args", name) for name in ("from_nodes", "from_node")}
    argument = ARGUMENTS_THAT_NAME_NODES.get(io.get("fn") or "")
    if argument is not None:
        paths.add(("fn_args", argument))
    return frozenset(paths)


def _strings(value: Any, path: Path, literal: frozenset[Path]) -> Iterator[Found]:
    if isinstance(value, str):
        if OPENING in value:
            yield Found(path, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if (*path, key) not in literal:
                yield from _strings(item, (*path, key), literal)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(item, (*path, number), literal)


# ---------------------------------------------------------------- evaluation


_split_short = lru_cache(maxsize=1024)(split_template)


def _split(text: str) -> Template:
    return _split_short(text) if len(text) <= CHARACTERS_AT_ONCE else split_template(text)


def evaluate_input(
    io: Mapping[str, Any],
    scope: Mapping[str, Any],
    budget: Budget,
    *,
    at_once: bool = False,
    fields: Collection[str] = FIELDS,
) -> dict[str, Any]:
    """Return an input with the values of its expressions. It shares no list or map with ``scope``.

    ``at_once`` refuses expressions whose compilation would take long.

    Raises:
        NodeFailure: an expression has no value; permanent, with the reason code
            ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    evaluation = _Evaluation(scope, budget, _literal_paths(io), at_once)
    made = dict(io)
    for name in fields:
        if name in made:
            made[name] = evaluation.value(made[name], (name,))
    computed = made["input_inline"] if isinstance(io.get("input_inline"), str) else None
    if isinstance(computed, dict) and "input_adapter" in computed:
        raise bad_expression(
            "/io/input_inline: the value of an expression must not have the key 'input_adapter'; an"
            " input adapter is named in the graph"
        )
    return made


def evaluate_output(
    output: Any, scope: Mapping[str, Any], budget: Budget, *, at_once: bool = False
) -> Any:
    """Return an output with the values of its expressions, as :func:`evaluate_input` does.

    Raises:
        NodeFailure: an expression has no value; the reason code is ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    return _Evaluation(scope, budget, frozenset(), at_once).value(output, OUTPUT)


def evaluate_key(
    key: AnyKey, scope: Mapping[str, Any], budget: Budget, *, at_once: bool = False
) -> Any:
    """Return the name of a concurrency key or a rate with the values of its expressions, which are
    texts, numbers, true or false. The value of the key of a cache is any JSON value but null.

    Raises:
        NodeFailure: an expression has no value, or the name or the key is not valid; permanent,
            with the reason code ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    path = path_of_key(key)
    value = _Evaluation(scope, budget, frozenset(), at_once).value(key.key, path)
    if isinstance(key, Cache):
        if value is None:
            raise bad_expression(f"{pointer(path)}: the value of the key is null")
        return value
    if isinstance(value, bool | int | float):
        value = to_json(value).decode()
    try:
        return _NAME.validate_python(value, strict=True)
    except ValidationError:
        raise bad_expression(
            f"{pointer(path)}: the value of {short(key.key)} is {short(value)}; the name of a key"
            f" is a text of 1 to {MAX_ID_CHARS} characters without control characters, a number,"
            " true or false"
        ) from None


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def evaluate_bare(
    name: str,
    expression: str,
    scope: Mapping[str, Any],
    budget: Budget,
    *,
    at_once: bool = False,
) -> bool:
    """Return the value of a field of an input that is an expression, and true or false.
    ``at_once`` refuses expressions whose compilation would take long.

    Raises:
        NodeFailure: it has no value, or another one; permanent, with the reason code
            ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    value = _Evaluation(scope, budget, frozenset(), at_once).bare(expression, (name,))
    if isinstance(value, bool):
        return value
    raise bad_expression(
        f"{pointer((name,))}: the value of {short(expression)} must be true or false, not"
        f" {type_name(value)}"
    )


def evaluate_params(
    params: Mapping[str, Any], scope: Mapping[str, Any], budget: Budget, *, at_once: bool = False
) -> dict[str, Any]:
    """Return the params of a schedule or trigger with the values of their expressions, as
    :func:`evaluate_input` does.

    Raises:
        NodeFailure: an expression has no value; permanent, with the reason code
            ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    evaluation = _Evaluation(scope, budget, frozenset(), at_once)
    return {
        name: evaluation.value(value, (*SCHEDULE, "params", name)) for name, value in params.items()
    }


def evaluate_items(
    over: Any, scope: Mapping[str, Any], budget: Budget, *, at_once: bool = False
) -> Any:
    """Return the value of ``map.over``. ``at_once`` refuses expressions whose compilation would
    take long.

    Raises:
        NodeFailure: an expression has no value; permanent, with the reason code
            ``bad_expression``.
        BudgetExceeded: the budget does not suffice.
    """
    evaluation = _Evaluation(scope, budget, frozenset(), at_once, keeps_lists=True)
    return evaluation.value(over, OVER)


def bad_expression(error: str) -> NodeFailure:
    """Return the failure of a node with an expression that cannot be evaluated."""
    return NodeFailure(error, reason_code="bad_expression", permanent=True)


class _Evaluation:
    """Evaluation of the strings of one input or output."""

    __slots__ = ("_at_once", "_budget", "_keeps_lists", "_literal", "_scope")

    def __init__(
        self,
        scope: Mapping[str, Any],
        budget: Budget,
        literal: frozenset[Path],
        at_once: bool,
        *,
        keeps_lists: bool = False,
    ) -> None:
        """``keeps_lists`` returns a list of the scope itself, which takes no time however long the
        list is.
        """
        self._keeps_lists = keeps_lists
        self._scope = scope
        self._budget = budget
        self._literal = literal
        self._at_once = at_once

    def value(self, value: Any, path: Path) -> Any:
        self._budget.spend(1)
        if isinstance(value, str):
            return self._template(value, path) if OPENING in value else value
        if path in self._literal:
            return value
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*path, number)) for number, item in enumerate(value)]
        return value

    def bare(self, expression: str, path: Path) -> Any:
        self._charge(expression)
        return self._expression(Placed(expression, 0), path)

    def _charge(self, text: str) -> None:
        if self._at_once and len(text) > CHARACTERS_AT_ONCE:
            raise BudgetExceeded("the expressions are long")
        self._budget.spend(len(text) // CHARACTERS_A_STEP)

    def _template(self, text: str, path: Path) -> Any:
        if path in self._literal:
            return text
        self._charge(text)
        parts = _split(text)
        if len(parts) == 1 and isinstance(parts[0], Placed):
            return self._expression(parts[0], path)
        pieces = [
            part if isinstance(part, str) else self._expression(part, path, as_text=True)
            for part in parts
        ]
        self._budget.make_text(sum(map(len, pieces)))
        return "".join(pieces)

    def _expression(self, part: Placed, path: Path, *, as_text: bool = False) -> Any:
        """Return the value of an expression as JSON, or as part of a longer string: texts as they
        are, other values as JSON.
        """
        source, budget = part.source, self._budget
        compiled = compilations()
        try:
            expression = compile_expression(source)
            if compilations() != compiled:
                budget.spend(STEPS_TO_COMPILE * len(source))
            value = expression.evaluate(self._scope, budget)
            if self._keeps_lists and any(
                _selected(self._scope, found) is value for found in expression.paths
            ):
                return value
            value = json_value(value, budget, MAX_VALUE_LEVELS - len(path))
            return text_of(budget, value) if as_text else value
        except BudgetExceeded as error:
            raise BudgetExceeded(_sentence(part, path, error)) from None
        except (EvaluationError, InvalidExpression) as error:
            raise bad_expression(_sentence(part, path, error)) from None
        except (RecursionError, MemoryError):
            reason = EvaluationError("its values are too large or nested too deeply")
            raise bad_expression(_sentence(part, path, reason)) from None


def _selected(scope: Mapping[str, Any], path: Sequence[str]) -> list[Any] | None:
    """Return the list in a scope at this path, or None."""
    value: Any = scope
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else None


def _sentence(part: Placed, path: Path, error: ExpressionError) -> str:
    place = (
        "" if error.position is None else f" (at character {error.position + part.position + 1})"
    )
    return f"{pointer(path)}: {short(part.source)} cannot be evaluated: {error.reason}{place}"
