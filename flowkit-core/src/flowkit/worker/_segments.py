"""Segments of commands: chains of nodes that a worker runs one after the other in one slot."""

from typing import Any

from pydantic_core import from_json, to_json

from flowkit.messages import (
    NextStart,
    NodeSucceeded,
    RunContextData,
    RunNode,
    Segment,
    SegmentNode,
    Source,
)
from flowkit.protocols import Clock

SEGMENT_SEC = 1.0
"""Time after which a segment ends at the next boundary between two of its nodes, so that other
commands get its slot.
"""
LONGEST_WAIT_SEC = 1.0
"""Time after that in which the bus has to acknowledge a start. A later one is handed back: the
coordinator may have issued an attempt again meanwhile.
"""
FIRST_ATTEMPT = 1


class SegmentProgress:
    """The segment of a command: the nodes that are left of it, and what they may read."""

    def __init__(self, command: RunNode, segment: Segment, clock: Clock) -> None:
        assert command.data is not None
        self._clock = clock
        self._left = list(reversed(segment.nodes))
        self.eager = segment.eager
        self._expressions = segment.expressions
        self._until = 0.0
        # Each node gets values of its own: a handler may change those that it was given.
        self._params = to_json(command.data.params)
        self._vars = to_json(command.data.vars)
        self._results: dict[str, bytes] = {}

    def begin(self) -> None:
        """Measure the time of the segment from now on, because its first node begins."""
        self._until = self._clock.monotonic() + SEGMENT_SEC

    @property
    def is_late(self) -> bool:
        """Whether it is too late for a start that was reported."""
        return self._clock.monotonic() >= self._until + LONGEST_WAIT_SEC

    @property
    def next_node(self) -> SegmentNode | None:
        """The next node, or None if the segment has ended."""
        if not self._left or self._clock.monotonic() >= self._until:
            return None
        return self._left[-1]

    def command_after(self, before: RunNode, end: NodeSucceeded) -> RunNode:
        """Return the command of the next node, which begins after this success of the one before,
        and take the node out of those that are left.
        """
        node = self._left.pop()
        self._results[before.node_id] = to_json(end.result)
        read = dict.fromkeys((before.node_id, *(node.reads or ())))
        data = RunContextData(
            io=node.io,
            params=_copy(self._params),
            vars=_copy(self._vars),
            results={node_id: from_json(self._results[node_id]) for node_id in read},
            expressions=None if node.reads is None else self._expressions,
        )
        return RunNode(
            task_id=before.task_id,
            index=node.index,
            attempt=FIRST_ATTEMPT,
            token=node.token,
            node_id=node.node_id,
            role=node.role,
            generation=node.generation,
            priority=before.priority,
            first_issued_at=self._clock.now(),
            retry_policy=node.retry_policy,
            on_batch_failure=node.on_batch_failure,
            heartbeat_sec=node.heartbeat_sec,
            data=data,
            sources=(_source(before, end),),
        )


def start_of(node: SegmentNode) -> NextStart:
    """Return the report of a start within a segment."""
    return NextStart(index=node.index, attempt=FIRST_ATTEMPT, token=node.token)


def _copy(value: bytes) -> Any:
    return {} if value == b"{}" else from_json(value)


def _source(before: RunNode, end: NodeSucceeded) -> Source:
    """Return the stream of the node before, which has ended."""
    return Source(
        node_id=before.node_id,
        generation=before.generation,
        ended=True,
        batches=end.batches,
        result_only=end.result is not None and not end.in_batches,
        kept=end.kept,
    )
