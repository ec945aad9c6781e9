"""Resolutions: operators choose the outcomes of nodes that have not ended.

What runs is stopped as by a cancellation. The resolution is in the record of the node meanwhile,
and decides the outcome at the end of the stop. So it is for a node that a worker may begin in its
segment, until it is known whether the worker has.
"""

from flowkit._engine.effects import EndSegments
from flowkit._engine.events import NodeResolved
from flowkit._engine.node_ends import stop_node
from flowkit._engine.pending_effects import withdrawal_of
from flowkit._engine.segment_rules import carrier_of
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import RESOLVED
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.task import ATTEMPTED, Mark


def node_resolved(draft: Transition, event: NodeResolved, settings: EngineSettings) -> None:
    """Stop a node, and end it with this outcome. The first resolution of a node counts. A node that
    waits while its task is being stopped is as good as cancelled.
    """
    index, chosen = event.index, event.resolution
    mark = draft.mark(index)
    is_stopped = mark == Mark.WAITING and draft.main_is_stopping
    is_resolved = draft.record(index).resolution is not None
    if mark not in NODE_REPORTS[NodeResolved] or is_stopped or is_resolved:
        draft.ignored = True
        return
    draft.edit(index).resolution = chosen
    data = {"outcome": chosen.outcome, "by": chosen.by, "reason": chosen.reason}
    draft.note(index, "resolution", None, data)
    carrier = carrier_of(draft, index) if mark == Mark.WAITING else None
    if carrier is not None or (mark in ATTEMPTED and draft.record(index).promised):
        draft.effects.append(EndSegments())
    if carrier is None:
        stop_node(draft, index, mark, RESOLVED, settings)
        return
    if draft.mark(carrier) == Mark.ISSUED:
        draft.effects.append(withdrawal_of(draft, carrier))
