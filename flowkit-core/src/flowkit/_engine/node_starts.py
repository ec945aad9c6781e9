"""Starts of nodes: from waiting to issued, and their commands until a worker starts them."""

from dataclasses import replace

from flowkit._engine.child_tasks import start_child
from flowkit._engine.effects import CallFunction, SendCommand
from flowkit._engine.events import CommandsLost, CommandsSent, CommandWaiting, SentCommand
from flowkit._engine.loops import round_due
from flowkit._engine.map_undos import read_ends
from flowkit._engine.maps import begin_map
from flowkit._engine.node_ends import cancel_other_parents, skip
from flowkit._engine.pending_effects import question, stop_effects
from flowkit._engine.readiness import BROKEN, Readiness, lacks_place, never_because, readiness
from flowkit._engine.segment_rules import is_called_back, nodes_after
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.waits import begin_nodes
from flowkit._expressions.templates import OPENING
from flowkit.graph import NodeSpec
from flowkit.graph._expanded_plan import is_shard, map_of, runs_child_task
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.task import WHOLE_TASK, ClaimKind, KeyClaim, Mark, NodeRecord, Phase


def decide_waiting(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Make a waiting node ready if its fan-in is met, or skip it if its fan-in is impossible."""
    plan = draft.task.spec.plan
    match readiness(plan.need[index], len(plan.parents[index]), *draft.count(index)):
        case Readiness.START:
            draft.make_ready(index)
        case Readiness.WAIT if draft.may_stream(index):
            draft.make_ready(index)
        case Readiness.NEVER:
            skip(draft, index, never_because(draft.count(index)[BROKEN]), settings)


def issue_ready_nodes(draft: Transition, settings: EngineSettings) -> None:
    """Begin ready control nodes. Issue other ready nodes until ``max_in_flight`` nodes, or
    ``max_parallel`` of the graph, are in flight.
    """
    if draft.paused:
        return
    if lacks_place(draft):
        ask_for_task(draft, settings)
        return
    if draft.beginning:
        begin_nodes(draft, settings)
    if draft.phase is Phase.UNDO:
        _issue_next_undo(draft, settings)
        return
    stops = draft.outcome is not None and draft.phase is Phase.MAIN
    limit = 0 if stops else settings.max_in_flight
    max_parallel = draft.task.spec.plan.max_parallel
    if max_parallel is not None:
        _issue_at_most(draft, min(max_parallel, limit), settings)
        return
    while draft.in_flight < limit:
        index = draft.next_ready()
        if index is None:
            return
        _issue(draft, index, settings)


def _issue_next_undo(draft: Transition, settings: EngineSettings) -> None:
    """Issue the next undo. Undos run one at a time, and one that waits for its next attempt holds
    back the others.
    """
    if draft.in_flight or draft.deferred:
        return
    index = draft.next_ready()
    if index is None:
        return
    if draft.mark(index) == Mark.MAPPING:
        read_ends(draft, index, settings)
    else:
        _issue(draft, index, settings)


def _issue_at_most(draft: Transition, limit: int, settings: EngineSettings) -> None:
    """Issue ready nodes until ``limit`` nodes are in flight.

    The last free place is not for a node that reads from nodes that have not ended and are not in
    flight. Otherwise, all places could be taken by nodes that wait for a node without a place.
    """
    held: list[int] = []
    while draft.in_flight < limit:
        index = draft.next_ready(held if draft.in_flight == limit - 1 else None)
        if index is not None:
            _issue(draft, index, settings)
        while held:
            draft.queue(held.pop())
        if index is None:
            return


def _issue(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Start a node, or ask for the places that it needs first. The children of a map, and the
    shards of a node, ask for its places.
    """
    if draft.begins_with_children(index):
        start_node(draft, index, settings)
    else:
        start_with_places(draft, index, settings)


def start_with_places(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Start a node that has the places that it needs, or ask for the next one. A cached result
    comes first, because a node that takes it needs no place. The place of a rate comes last,
    because a command is withdrawn if no worker starts it soon after the grant.
    """
    node, record = draft.task.spec.plan.nodes[index], draft.record(index)
    if node.cache is not None and not record.holds_cache:
        _ask_for(draft, index, "cache", "", settings)
    elif (key := node.key) is not None and not record.holds_key:
        _ask_for(draft, index, "key", key.key, settings)
    elif node.rate_limit is not None and not record.holds_rate:
        _ask_for(draft, index, "rate", node.rate_limit.key, settings)
    else:
        start_node(draft, index, settings)


def _ask_for(
    draft: Transition, index: int, kind: ClaimKind, key: str, settings: EngineSettings
) -> None:
    record = draft.edit(index)
    same_run = record.attempt >= record.first_attempt
    claim = _next_claim(key, record.claim(kind), draft.now, same_run=same_run)
    record.set_claim(kind, claim)
    record.next_retry_at = None
    if draft.mark(index) != Mark.ASKING:
        draft.move(index, Mark.ASKING)
    draft.effects.append(question(index, claim, kind))
    draft.schedule(index, draft.now + settings.resend_sec)


def ask_for_task(draft: Transition, settings: EngineSettings) -> None:
    """Ask for a place of the concurrency key of the graph, unless the task has asked or is being
    stopped.
    """
    key, before = draft.task.spec.plan.key, draft.key
    if key is None or draft.outcome is not None or draft.open == 0:
        return
    if before is None or before.is_over:
        draft.key = _next_claim(key.key, before, draft.now)
        draft.effects.append(question(WHOLE_TASK, draft.key))
        draft.wake(draft.now + settings.resend_sec)


def _next_claim(
    key: str, before: KeyClaim | None, now: float, *, same_run: bool = False
) -> KeyClaim:
    """Return the next claim of a node or task. It keeps the rank of one that was not used. The
    expressions of a key are evaluated once in each run. The key of a cache, which is empty here, is
    evaluated in any case.
    """
    if before is None:
        return KeyClaim(key, 1, "asked" if key and OPENING not in key else "unnamed", now)
    if before.state == "unused":
        return replace(before, number=before.number + 1, state="asked")
    if same_run:
        return KeyClaim(before.key, before.number + 1, "asked", now)
    return replace(_next_claim(key, None, now), number=before.number + 1)


def start_node(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Issue the next attempt of a node, begin a map or shards, or continue a loop."""
    node = draft.task.spec.plan.nodes[index]
    if draft.begins_with_children(index):
        begin_map(draft, index, settings)
    elif draft.record(index).wait is not None:
        round_due(draft, index, settings)
    else:
        begin_attempt(draft, index, node, settings)
    if node.on_satisfied == "cancel":
        cancel_other_parents(draft, index, settings)
        begin_nodes(draft, settings)


def begin_attempt(
    draft: Transition,
    index: int,
    node: NodeSpec,
    settings: EngineSettings,
    *,
    at: float | None = None,
) -> None:
    """Begin the next attempt of a handler or a coordinator function. One that its worker began
    within a segment, at the time ``at``, needs no command.
    """
    now = draft.now
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    if is_shard(draft.task.spec.plan, index):
        owner = draft.edit(map_of(draft.task.spec.plan, index))
        owner.attempt = max(owner.attempt, record.attempt)
    record.issued_at = now
    record.first_issued_at = record.first_issued_at or now
    record.sent = False
    record.place = None
    record.claimed = settings.sends
    record.confirmed_at = None
    record.worker_id = record.started_at = record.heard_at = None
    record.next_retry_at = record.finished_at = record.cancel_by = None
    data = {"attempt": record.attempt} if record.attempt > 1 else None
    if node.type == COORDINATOR_FUNCTION:
        draft.move(index, Mark.RUNNING, data=data)
        record.started_at = now
        draft.started_at = draft.started_at or now
        draft.effects.append(CallFunction(index, record.attempt))
        limit = node.timeouts.start_to_close_sec
    elif runs_child_task(draft.task.spec.plan, index):
        draft.move(index, Mark.RUNNING, data=data)
        start_child(draft, index, record)
        limit = node.timeouts.start_to_close_sec
    else:
        draft.move(index, Mark.ISSUED, at=at, data=data)
        if not record.in_segment:
            chosen = draft.spec.plan.segments
            may_carry = settings.segments if chosen is None else chosen != "off"
            record.promised = len(nodes_after(draft, index)) if may_carry else 0
            draft.effects.append(SendCommand(index, record.attempt, record.handovers))
        limit = node.timeouts.schedule_to_start_sec
    soon = settings.resend_sec if limit is None else min(limit, settings.resend_sec)
    draft.schedule(index, min(now + soon, late_at(record) or now + soon))


def start_time(record: NodeRecord, at: float, now: float) -> float:
    """Return when an attempt has started that its worker says it started at ``at``: between its
    command and the report, so that a worker whose clock is wrong does not change a timeout.
    """
    return min(max(at, record.issued_at), now)


def record_start(
    draft: Transition, index: int, worker_id: str, at: float, settings: EngineSettings
) -> NodeRecord:
    """Record that the current attempt runs. Any report of it can come first."""
    record = draft.edit(index)
    if draft.mark(index) != Mark.ISSUED:
        return record
    now = draft.now
    data: dict[str, str | int] = {"worker_id": worker_id}
    if record.sharded_since is not None:  # its end goes on with the attempt of its shards
        data["attempt"] = record.attempt
    draft.move(index, Mark.RUNNING, at=at, data=data)
    record.worker_id = worker_id
    record.held_up_by = None
    if record.overdue:
        draft.effects += stop_effects(
            draft.task.spec, index, record, record.reason_code or "overdue"
        )
    record.started_at = start_time(record, at, now)
    record.heard_at = now
    record.sent = True
    record.place = None
    record.claimed = False
    record.confirmed_at = None
    draft.started_at = draft.started_at or record.started_at
    timeouts = draft.task.spec.plan.nodes[index].timeouts
    for since, seconds in (
        (record.started_at, timeouts.start_to_close_sec),
        (now, timeouts.heartbeat_sec),
        (now, settings.lease_ttl_sec),
    ):
        if seconds is not None:
            draft.schedule(index, since + seconds)
    return record


LATE_SEC = 1.0
"""Time after the grant of a rate at which a command is late for the first time."""
LONGEST_LATE_SEC = 64.0


def late_at(record: NodeRecord) -> float | None:
    """Return when an issued command is withdrawn that has a place of a rate, so that the place does
    not wait with it in the queue of a role without free workers; None if it has no place. The time
    doubles with each time that the node was handed back.
    """
    if not record.holds_rate:
        return None
    doublings = min(record.handovers, 10)
    return record.issued_at + min(LATE_SEC * 2.0**doublings, LONGEST_LATE_SEC)


FIRST_CHECK_SEC = 30.0
"""Time from sending a command to its first check, and between checks that are not answered."""
LONGEST_CHECK_PAUSE_SEC = 600.0


def commands_sent(draft: Transition, event: CommandsSent, settings: EngineSettings) -> None:
    """Record that commands are on the bus, so that they are not sent again."""
    draft.ignored = True
    for command in event.commands:
        record = _waiting_record(draft, command)
        if record is not None and not record.sent:
            record = draft.edit(command.index)
            record.sent = True
            record.place = command.place
            draft.ignored = False
        # Nodes that are kept open are ended by the withdrawal of the command, or by its worker.
        keeps_open = draft.main_is_stopping or is_called_back(draft, command.index)
        if keeps_open or not _is_issue_of(draft, command):
            continue
        if draft.record(command.index).promised > command.carried:
            draft.edit(command.index).promised = command.carried
            draft.ignored = False


def command_waiting(draft: Transition, event: CommandWaiting, settings: EngineSettings) -> None:
    """Record that the bus confirmed that a command waits, if a check of it is due."""
    command = event.command
    record = _waiting_record(draft, command)
    if (
        record is not None
        and record.sent
        and record.place == command.place
        and confirmed_until(record, draft.now) is None
    ):
        draft.edit(command.index).confirmed_at = draft.now
    else:
        draft.ignored = True


def commands_lost(draft: Transition, event: CommandsLost, settings: EngineSettings) -> None:
    """Send lost commands again, with the same tokens: a worker that has one after all ignores the
    copy.
    """
    draft.ignored = True
    for command in event.commands:
        record = _waiting_record(draft, command)
        if record is None or record.place != command.place:
            continue
        record = draft.edit(command.index)
        record.sent = False
        record.place = None
        record.claimed = settings.sends
        record.confirmed_at = None
        draft.effects.append(SendCommand(command.index, command.attempt, command.handovers))
        draft.schedule(command.index, draft.now + settings.resend_sec)
        draft.ignored = False


def _waiting_record(draft: Transition, command: SentCommand) -> NodeRecord | None:
    """Return the record of a command's node, or None if the node does not wait for this command."""
    index = command.index
    if not _is_issue_of(draft, command) or draft.mark(index) != Mark.ISSUED:
        return None
    return draft.record(index)


def _is_issue_of(draft: Transition, command: SentCommand) -> bool:
    """Return whether a command is that of the last attempt of its node."""
    if command.index >= len(draft.task.marks):
        return False
    record = draft.record(command.index)
    return (record.attempt, record.handovers) == (command.attempt, command.handovers)


def next_check(record: NodeRecord, now: float, settings: EngineSettings) -> float:
    """Return when to check an issued command next. One that may never have been sent is checked at
    short intervals.
    """
    if now - record.issued_at < settings.resend_sec:
        return record.issued_at + settings.resend_sec
    return confirmed_until(record, now) or now + FIRST_CHECK_SEC


def confirmed_until(record: NodeRecord, now: float) -> float | None:
    """Return when to check a command again that the bus has confirmed to wait; None if the check
    that is due now is not answered yet.

    The pauses double. Without an answer they stay short, because a coordinator keeps its checks in
    memory and may be killed with them.
    """
    if not record.sent or record.confirmed_at is None:
        return None
    until = record.confirmed_at + min(
        max(record.confirmed_at - record.issued_at, FIRST_CHECK_SEC), LONGEST_CHECK_PAUSE_SEC
    )
    # A time far ahead was written by a coordinator whose clock is wrong.
    return until if now < until <= now + LONGEST_CHECK_PAUSE_SEC else None
