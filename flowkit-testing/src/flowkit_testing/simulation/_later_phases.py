"""The rules of undos and ``finally`` for one stored state of a task, written without the engine."""

from collections.abc import Mapping

from flowkit.graph import Plan
from flowkit.graph._later_phases import LaterPhases
from flowkit.task import ENDED, IN_FLIGHT, Mark, NodeRecord

_RUNNING = IN_FLIGHT | {Mark.DEFERRED}


def broken_phase(
    plan: Plan, marks: str, outcome: str | None, nodes: Mapping[int, NodeRecord], *, ended: bool
) -> str | None:
    """Describe the first rule of undos and ``finally`` that a state breaks; None if it breaks none.

    ``outcome`` is the stored one, and ``nodes`` are all records of the task so far.
    """
    if plan.ends is None:
        return None
    state = _State(plan, plan.ends, marks.encode(), outcome, nodes)
    return (
        state.fault_of_order()
        or state.fault_of_undos()
        or (state.fault_of_end() if ended else None)
    )


class _State:
    def __init__(
        self,
        plan: Plan,
        ends: LaterPhases,
        marks: bytes,
        outcome: str | None,
        nodes: Mapping[int, NodeRecord],
    ) -> None:
        self.ids = plan.ids
        self.ends = ends
        self.marks = marks
        self.outcome = outcome
        self.nodes = nodes
        self.was_forced = any(marks[index] == Mark.CANCELLED for index in ends.final)
        """A forced cancel came while ``finally`` ran, maybe of a task that would have finished."""

    def _has_begun(self, index: int) -> bool:
        return self.marks[index] not in (Mark.HELD, Mark.CANCELLED)

    def _has_run(self, index: int) -> bool:
        return index in self.nodes and self.nodes[index].first_issued_at > 0

    def fault_of_order(self) -> str | None:
        """Describe a phase that begins before the one before it has ended."""
        later = range(self.ends.main, len(self.marks))
        main_ended = all(mark in ENDED for mark in self.marks[: self.ends.main])
        for index in later:
            if self._has_begun(index) and not main_ended:
                return f"node {self.ids[index]!r} begins before the main phase has ended"
        undone = all(self.marks[index] in ENDED for index in self.ends.undos)
        for index in self.ends.final:
            if self._has_begun(index) and not undone:
                return f"node {self.ids[index]!r} of finally begins before the undos have ended"
        return None

    def fault_of_undos(self) -> str | None:
        """Describe an undo that runs although it must not, or not yet."""
        running = [index for index in self.ends.undos if self.marks[index] in _RUNNING]
        if len(running) > 1:
            return f"the undos {[self.ids[index] for index in running]} run at the same time"
        for index in self.ends.undos:
            if self._has_begun(index) and self._has_run(index):
                if self.marks[self.ends.undone_by[index]] != Mark.FINISHED:
                    return f"{self.ids[index]!r} runs, and its node did not finish"
                if self.outcome == "finished":
                    return f"{self.ids[index]!r} runs in a task that finishes"
        for index in running:
            for other in self.ends.undos:
                if (
                    self.marks[other] == Mark.READY
                    and self.nodes[other].after > self.nodes[index].after
                ):
                    return f"{self.ids[index]!r} runs before {self.ids[other]!r}"
        return None

    def fault_of_end(self) -> str | None:
        """Describe a node of a later phase that did not run in a task that has ended."""
        for index in range(self.ends.main, len(self.marks)):
            if self.marks[index] not in ENDED:
                return f"the task has ended, and node {self.ids[index]!r} has not"
        for index, undone in self.ends.undone_by.items():
            due = self.marks[undone] == Mark.FINISHED and self.outcome != "finished"
            due = due and not self.was_forced
            if due and self.marks[index] == Mark.SKIPPED:
                return f"node {self.ids[undone]!r} had finished and was not undone"
        return None
