"""Undos and ``finally``: the parts of a flow that run after the other nodes."""

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

from flowkit._flow_building.drafts import Draft
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.values import Value
from flowkit.graph._later_phases import UNDO_SUFFIX

UNDO_OPTIONS = ("retry_policy", "timeouts")
"""Options of the call of an undo."""


def check_same_phase(draft: Draft, others: Iterable[Draft]) -> None:
    """Check that either all nodes are in ``finally`` or none of them.

    Raises:
        GraphError: an edge would lead into ``finally`` or out of it.
    """
    for other in others:
        if draft.is_final != other.is_final:
            inside, outside = (draft, other) if draft.is_final else (other, draft)
            raise flow_error(
                f"{inside.node_id!r} is in finally_, whose nodes run when all others have ended, so"
                f" {outside.node_id!r} cannot be joined with it"
            )


def parents_of(draft: Draft, read: Iterable[Draft]) -> dict[Draft, None]:
    """Return the nodes that a node waits for because it reads their results.

    All other nodes have ended when those of ``finally`` begin.

    Raises:
        GraphError: a node reads the result of one that runs later.
    """
    for other in read:
        if other.is_final and not draft.is_final:
            raise flow_error(
                f"{other.node_id!r} is in finally_, whose nodes run when all others have ended, so"
                f" {draft.node_id!r} cannot read its result"
            )
    return {other: None for other in read if other.is_final == draft.is_final}


def check_branch(branch: str, function: Callable[..., Any]) -> None:
    """Check that a handler, or a function that makes a call, needs no argument.

    Raises:
        GraphError: it needs one.
    """
    try:
        Signature(list(_parameters_of(function))).bind()
    except TypeError as error:
        name = _name_of(function)
        raise flow_error(f"{branch}: {name}: {error}; give a call, such as {name}(...)") from None
    except ValueError:
        return  # a builtin does not tell its parameters


def check_undone(draft: Draft) -> None:
    """Check that a node can get an undo.

    Raises:
        GraphError: it cannot.
    """
    if draft.is_final:
        raise flow_error(f"{draft.node_id!r} is in finally_, whose nodes are not undone")
    if draft.undo is not None:
        raise flow_error(f"{draft.node_id!r} has an undo already: {draft.undo.place}")


def call_undo(function: Callable[..., Any], result: Value, item: Value | None) -> Any:
    """Call a handler, or a function that makes a call, with the result of the node if it has a
    parameter, and with the item of a map if it needs two values.
    """
    try:
        takes = _parameters_of(function)
    except (TypeError, ValueError):
        raise flow_error(
            f"an undo is a handler or the value of a call, not {function!r:.80}"
        ) from None
    if not takes:
        return function()
    needed = [one for one in takes if one.default is Parameter.empty and one.kind in _POSITIONAL]
    given = (result,) if item is None or len(needed) != 2 else (result, item)
    try:
        Signature(list(takes)).bind(*given)
    except TypeError as error:
        values = "the result of the node" if item is None else "the result and the item of a child"
        raise flow_error(f"undo: {_name_of(function)}: {error}; it is given {values}") from None
    return function(*given)


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", repr(function)[:80]))


def _parameters_of(function: Callable[..., Any]) -> Sequence[Parameter]:
    """Return the parameters of a handler aside from its context, or of another function."""
    found: Sequence[Parameter] | None = getattr(function, "parameters", None)
    return list(signature(function).parameters.values()) if found is None else found


def check_undo(draft: Draft, undone: Draft) -> None:
    """Check that a call can be the undo of a node.

    Raises:
        GraphError: it cannot.
    """
    if draft is undone:
        raise flow_error(f"{draft.node_id!r} cannot be its own undo; call another handler")
    if draft.is_joined or draft.is_named or draft.streams:
        raise flow_error(
            "an undo runs after all nodes, in an order of its own: no other node can read its value"
            " or be joined with it by an arrow, a branch or a stream"
        )
    if draft.undo is not None:
        raise flow_error("an undo cannot have an undo")
    if draft.has_own_id:
        raise flow_error(
            f"the node_id of this undo is {undone.node_id + UNDO_SUFFIX!r}; remove node_id"
        )
    if draft.counted:
        raise flow_error("first(...) has no effect on an undo, which runs after all nodes")
    for option in draft.fields:
        if option not in UNDO_OPTIONS:
            raise flow_error(
                f"an undo has the options {' and '.join(UNDO_OPTIONS)}; remove {option!r}"
            )
