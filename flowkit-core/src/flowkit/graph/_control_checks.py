"""Checks of nodes of control types."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from flowkit.graph._control_types import CONTROL_TYPES, ControlType, arguments_of, evaluated_fields
from flowkit.graph._faults import Faults, sentence
from flowkit.graph._models import NodeIO, NodeSpec
from flowkit.graph._templates import templates_in

WITHOUT_EFFECT = {
    "schedule_to_start_sec": "does not wait for a worker",
    "heartbeat_sec": "sends no heartbeats",
}
"""Time limits without effect on nodes that run in the coordinator, each with the reason."""


def check_control_node(faults: Faults, node: NodeSpec) -> None:
    """Check a node of a control type."""
    control, name = CONTROL_TYPES[node.type], node.node_id
    given = arguments_of(node)
    wrong: Iterable[str] = ()
    if name not in faults.incomplete:
        wrong = list(_io_faults(faults, node, control, given)) or control.faults(given)
    for text in (*wrong, *_field_faults(node), *_limit_faults(node, control, given)):
        faults.add(name, text)


def _io_faults(
    faults: Faults, node: NodeSpec, control: ControlType, given: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the faults of the fields of ``io``. The type of an expression's value is checked when
    the node starts.
    """
    written = {
        name: getattr(node.io, name)
        for name in NodeIO.model_fields.keys() & node.io.model_fields_set
    }
    for field in sorted(written):
        known = ", ".join(control.io.names())
        yield f"io.{field} has no effect on a node of type {node.type!r}; known fields: {known}"
    computed = {found.path for found in templates_in(*evaluated_fields(node))}
    try:
        control.io.model_validate_json(to_json(given))
    except ValidationError as error:
        for item in error.errors(include_url=False):
            if tuple(item["loc"]) not in computed:
                yield sentence(faults, item, ("io", *item["loc"]), inside=("io",), model=control.io)


def _field_faults(node: NodeSpec) -> Iterator[str]:
    """Yield the fields of a node that have no effect on a control node."""
    kind = f"a node of type {node.type!r}"
    if node.on_batch_failure != "fail":
        yield f"on_batch_failure: {kind} has no batches; remove it"
    if node.rate_limit is not None:
        yield f"rate_limit: {kind} runs on no worker; give it to nodes with a handler"
    if CONTROL_TYPES[node.type].runs_child:
        return
    if node.key is not None:
        field = "concurrency" if node.concurrency_key is None else "concurrency_key"
        yield f"{field}: {kind} takes no place of a key; remove it"
    if node.priority:
        yield f"priority: {kind} starts as soon as it may; remove it"


def _limit_faults(node: NodeSpec, control: ControlType, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the time limits and retries that have no effect."""
    kind = f"a node of type {node.type!r}"
    for field, reason in WITHOUT_EFFECT.items():
        if getattr(node.timeouts, field) is not None:
            yield f"timeouts.{field}: {kind} {reason}; use start_to_close_sec or remove it"
    limit = node.timeouts.start_to_close_sec
    ends = given.get(control.ends_after)
    if limit is not None and isinstance(ends, int | float) and ends <= limit:
        yield (
            "timeouts.start_to_close_sec has no effect: the node ends after"
            f" io.{control.ends_after} ({ends:g} s) at the latest; remove it"
        )
    if limit is None and node.retry_policy.model_fields_set and not control.runs_child:
        yield (
            f"retry_policy: {kind} is retried only after timeouts.start_to_close_sec; add that"
            " limit or remove the policy"
        )
