"""The rules of nodes that wait and of signals, for stored states, written without the engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.task import LogEntry, NodeRecord, SignalBox


def broken_wait(node_type: str, before: NodeRecord | None, after: NodeRecord) -> str | None:
    """Describe why a node that waited must not have finished as it has; return None if it may."""
    wait = None if before is None or before.attempt != after.attempt else before.wait
    ended_at = after.finished_at or 0.0
    if node_type == "sleep":
        if after.result is not None:
            return f"a sleep has the result {after.result!r}"
        if wait is not None and ended_at < (wait.until or 0.0):
            return f"it slept until {ended_at} and should have slept until {wait.until}"
    if node_type == "approval" and not isinstance(after.result, dict):
        return "it has no decision"
    return None


class SignalLedger:
    """The signals of one task: each is kept until one node takes it."""

    def __init__(self) -> None:
        self._received = 0
        self._taken: set[int] = set()
        self._payloads: dict[int, Any] = {}

    def fault(
        self,
        entries: Sequence[tuple[int, LogEntry]],
        after: SignalBox,
        nodes: Mapping[int, NodeRecord],
    ) -> str | None:
        """Describe a signal that was lost or taken twice; return None if there is none.

        ``entries`` are the new changes of the history, and ``nodes`` the changed records.
        """
        for _, (_, index, kind, status, data) in entries:
            number = data.get("number") if isinstance(data, dict) and "signal" in data else None
            if kind == "signal":
                self._received += 1
                if number != self._received:
                    return f"signal {self._received} has the number {number}"
            elif status == "finished" and number is not None:
                if number in self._taken:
                    return f"signal {number} was taken twice"
                self._taken.add(number)
                known = self._payloads.get(number, nodes[index].result)
                if known != nodes[index].result:
                    return f"signal {number} was {known!r} and became {nodes[index].result!r}"
        self._payloads = {signal.number: signal.payload for signal in after.kept}
        if kept := self._taken & self._payloads.keys():
            return f"the signals {sorted(kept)} were taken, and are still kept"
        lost = {*range(1, self._received + 1)} - self._taken - self._payloads.keys()
        if lost or after.received != self._received:
            return f"the signals {sorted(lost)} of {after.received} were lost"
        return None
