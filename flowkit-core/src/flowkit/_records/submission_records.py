"""Submissions as stored: the part of a task's record that never changes."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._records import record_models
from flowkit._records.plan_cache import PLANS
from flowkit._records.record_parts import corrupt, refuse_damaged
from flowkit.protocols import TaskRecord
from flowkit.task import TaskSpec
from flowkit.tracing import TraceContext


def encode_spec(spec: TaskSpec, graph: bytes) -> bytes:
    """Return a submission as stored: a line with the task's fields, and a line with its graph."""
    head: dict[str, Any] = {
        "v": 1,
        "created_at": spec.created_at,
        "secret": spec.secret.hex(),
        "params": spec.params,
        "pipeline": spec.pipeline,
        "labels": spec.labels,
        "priority": spec.priority,
        "idempotency_key": spec.idempotency_key,
        "deadline_sec": spec.deadline_sec,
    }
    if spec.trace is not None:
        head["trace"] = {"traceparent": spec.trace.traceparent, "tracestate": spec.trace.tracestate}
    PLANS.add(graph, spec.plan)
    return to_json(head) + b"\n" + graph


def decode_spec(task_id: str, data: bytes) -> TaskSpec:
    """Return the submission that :func:`encode_spec` wrote.

    Raises:
        ValueError: the data is not what it wrote.
    """
    head_line, _, graph = data.partition(b"\n")
    head = record_models.HEAD.validate_json(head_line, strict=True)
    return TaskSpec(
        task_id=task_id,
        plan=PLANS.get(graph),
        created_at=head.created_at,
        secret=bytes.fromhex(head.secret),
        params=head.params,
        pipeline=head.pipeline,
        labels=head.labels,
        priority=head.priority,
        idempotency_key=head.idempotency_key,
        deadline_sec=head.deadline_sec,
        trace=None
        if head.trace is None
        else TraceContext(head.trace.traceparent, head.trace.tracestate),
    )


@dataclass(frozen=True, slots=True)
class FirstSubmission:
    """First submission under an id or idempotency key, which later ones are compared with."""

    secret: bytes
    graph: bytes
    params: dict[str, Any]

    def difference(self, graph: bytes, params: dict[str, Any]) -> str | None:
        """Return the part of the first submission that differs; None if both are equal. The order
        of keys in an object does not count.
        """
        try:
            if self.graph != graph and _canonical(from_json(self.graph)) != _canonical(
                from_json(graph)
            ):
                return "another graph"
        except ValueError:
            return "a graph that cannot be read"
        return None if _canonical(self.params) == _canonical(params) else "other params"


def decode_submission(record: TaskRecord) -> FirstSubmission:
    """Return the submission of a stored task.

    Raises:
        CorruptRecord: the record cannot be read.
    """
    refuse_damaged(record)
    head_line, _, graph = record.spec.partition(b"\n")
    try:
        head = record_models.HEAD.validate_json(head_line, strict=True)
        return FirstSubmission(bytes.fromhex(head.secret), graph, head.params)
    except ValueError as error:
        raise corrupt(f"the record of task {record.header.task_id!r}", error) from None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
