"""Arguments of the built-in input adapters, checked as the adapters check them."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit._expressions.templates import OPENING
from flowkit._json.values import short

ARGS = "io.input_inline.input_args"


def pull_argument_faults(arguments: Any, *, rechunks: bool) -> Iterator[str]:
    """Yield what is wrong with the arguments of an adapter that pulls artifacts.

    With ``rechunks``, it divides lists in the artifacts. Expressions are evaluated later, and are
    not checked.
    """
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        if not _is_expression(arguments):
            yield f"{ARGS} must be an object, not {short(arguments)}"
        return
    own = ("size", "meta_list_key") if rechunks else ()
    for name in sorted(arguments.keys() - {"from_node", "from_nodes", "poll_ms", *own}):
        yield f"{ARGS}: there is no argument {short(name)}; remove it"
    yield from _source_faults(arguments.get("from_node"), arguments.get("from_nodes"))
    for name in ("poll_ms", "size") if rechunks else ("poll_ms",):
        if name in arguments and not _is_positive(value := arguments[name]):
            yield f"{ARGS}.{name} must be a whole number from 1 on, not {short(value)}"
    if rechunks and "size" not in arguments:
        yield f"{ARGS}.size is missing; give the number of items of a batch"
    if rechunks and not isinstance(key := arguments.get("meta_list_key", ""), str):
        yield f"{ARGS}.meta_list_key must be the name of a list in the artifacts, not {short(key)}"


def _source_faults(one: Any, many: Any) -> Iterator[str]:
    if one is not None and many is not None:
        yield f"{ARGS} has from_node and from_nodes; give one of them"
    if one is not None and not isinstance(one, str):
        yield f"{ARGS}.from_node must be the id of a node, not {short(one)}"
    if many is not None and not (
        isinstance(many, list) and all(isinstance(name, str) for name in many)
    ):
        yield f"{ARGS}.from_nodes must be a list of ids of nodes, not {short(many)}"


def _is_positive(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value >= 1 if whole else _is_expression(value)


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and OPENING in value
