"""Decisions of humans about nodes that wait for an approval."""

from datetime import UTC, datetime
from typing import Any

from flowkit._engine.events import DecisionMade
from flowkit._engine.node_ends import finish_node
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._engine.wait_records import fail_wait, start_wait, time_out, timeout_at
from flowkit.graph._control_types import REJECT, arguments_of
from flowkit.task import Wait


def start_approval(draft: Transition, index: int, io: Any, settings: EngineSettings) -> None:
    """Wait for a decision."""
    arguments = {"prompt": io.prompt, "choices": list(io.choices)}
    if io.assignees is not None:
        arguments["assignees"] = list(io.assignees)
    start_wait(draft, index, Wait("approval", timeout_at(draft, index, io), arguments))


def decision_made(draft: Transition, event: DecisionMade, settings: EngineSettings) -> None:
    """Finish an approval with its first decision. A rejection fails the node, unless the graph
    lets it continue.
    """
    index = event.index
    record = draft.record(index)
    if (
        draft.mark(index) not in NODE_REPORTS[DecisionMade]
        or event.attempt != record.attempt
        or record.wait is None
        or record.wait.kind != "approval"
    ):
        draft.ignored = True
        return
    draft.edit(index).result = {
        "choice": event.choice,
        "by": event.by,
        "at": datetime.fromtimestamp(draft.now, UTC).isoformat(),
        "values": event.values,
        "comment": event.comment,
    }
    on_reject = arguments_of(draft.task.spec.plan.nodes[index]).get("on_reject")
    if event.choice == REJECT and on_reject != "continue":
        error = f"{event.by} rejected it" + (f": {event.comment}" if event.comment else "")
        fail_wait(draft, index, "rejected", error, settings, permanent=True)
    else:
        finish_node(draft, index, settings, data={"choice": event.choice, "by": event.by})


def approval_timeout(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Skip or fail a node about which no human decided in time."""
    time_out(draft, index, "approval_timeout", "decision", settings)
