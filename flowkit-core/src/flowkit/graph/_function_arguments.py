"""Arguments of the built-in coordinator functions, and their checks."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flowkit._expressions.templates import OPENING
from flowkit._json.values import short
from flowkit.graph._faults import Faults


class Arguments(NamedTuple):
    """Names of a function's arguments."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = {}
    """Allowed values of arguments that take one of a few texts."""


BUILTIN_ARGUMENTS: Mapping[str, Arguments] = {
    "vars.set": Arguments(("kv",), ("block_sensitive",)),
    "vars.merge": Arguments(("data",), ("block_sensitive",)),
    "vars.incr": Arguments(("key",), ("by",)),
    "vars.unset": Arguments(("keys",)),
    "merge.generic": Arguments(("from_nodes", "target")),
    "metrics.aggregate": Arguments(("node_id",), ("mode",), {"mode": ("sum", "mean")}),
    "task.end": Arguments(
        ("status",), ("result", "error"), {"status": ("finished", "failed", "cancelled")}
    ),
    "noop": Arguments(),
}


def argument_faults(faults: Faults, function: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the names of the arguments of a built-in function, and with values
    that must be one of a few texts.
    """
    arguments = BUILTIN_ARGUMENTS.get(function)
    if arguments is None:
        return
    known = (*arguments.required, *arguments.optional)
    for name in given:
        if name not in known:
            otherwise = f"its arguments: {', '.join(known)}" if known else "it takes none"
            hint = faults.suggestion(name, known, otherwise)
            yield f"io.fn_args: {function!r} has no argument {short(name)}{hint}"
    for name in arguments.required:
        if name not in given:
            yield f"io.fn_args.{name} is missing; {function!r} needs it"
    for name, choices in arguments.choices.items():
        value = given.get(name, choices[0])
        if value not in choices and not (isinstance(value, str) and OPENING in value):
            yield f"io.fn_args.{name} must be {' or '.join(map(repr, choices))}, not {short(value)}"
