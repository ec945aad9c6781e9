"""Concurrency keys, rates and caches: the answers to claims, and attempts that exceed a limit."""

from collections.abc import Iterable
from dataclasses import replace

from flowkit._engine.effects import AskKey, ReturnKey
from flowkit._engine.events import (
    Event,
    KeyBusy,
    KeyEvent,
    KeyGranted,
    KeyNamed,
    KeyQueued,
    KeysAnswered,
    ResultCached,
    ResultWanted,
)
from flowkit._engine.node_ends import (
    cancel_other_parents,
    fail_node,
    finish_node,
    give_grace,
    skip,
)
from flowkit._engine.node_starts import start_with_places
from flowkit._engine.pending_effects import stop_effects
from flowkit._engine.settings import EngineSettings
from flowkit._engine.sources import sources_progress
from flowkit._engine.stop_reasons import KEY_BUSY
from flowkit._engine.task_keys import task_busy, task_granted, task_unnamed
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._engine.waits import begin_nodes
from flowkit.graph._expanded_plan import map_of
from flowkit.task import ATTEMPTED, ENDED, WHOLE_TASK, KeyClaim, Mark, Task

_GIVEN = (KeyGranted, ResultCached)


def key_named(draft: Transition, event: KeyNamed, settings: EngineSettings) -> None:
    """Ask for the key whose expressions have been evaluated; fail the node or task on an error."""
    index, claim = event.index, _current_claim(draft, event)
    if claim is None or claim.state != "unnamed":
        draft.ignored = True
    elif event.error is None:
        named = replace(claim, key=event.key, state="asked")
        if index == WHOLE_TASK:
            draft.key = named
        else:
            draft.edit(index).set_claim(event.kind, named)
        draft.effects.append(AskKey(index, claim.number, event.kind))
    elif index == WHOLE_TASK:
        task_unnamed(draft, event.error, settings)
    else:
        record = draft.edit(index)
        record.reason_code, record.error = "bad_expression", event.error
        fail_node(draft, index, settings)


def key_granted(draft: Transition, event: KeyGranted, settings: EngineSettings) -> None:
    """Start a node that has got its place, or let it ask for the next one. Give its places back if
    it cannot start now, or needs them no more.
    """
    index = event.index
    claim = _open_claim(draft, event)
    if claim is None:
        draft.ignored = True
        before = _claim(draft, event)
        if before is not None and not event.shared:
            stale = replace(before, number=event.number, state="held")
            _return_stale(draft, event, stale)
        return
    held = claim.in_state("shared" if event.shared else "held")
    if index == WHOLE_TASK:
        task_granted(draft, held, settings)
        return
    draft.edit(index).set_claim(event.kind, held)
    if draft.paused or not _has_room(draft, index, settings):
        draft.return_unused(index)
    else:
        start_with_places(draft, index, settings)


def key_queued(draft: Transition, event: KeyQueued, settings: EngineSettings) -> None:
    """Defer a node that is in the queue of its key or its rate, or waits for the result that
    another one computes for its cache key.
    """
    claim = _open_claim(draft, event)
    if claim is None or claim.state == "queued":
        draft.ignored = True
        return
    if event.index == WHOLE_TASK:
        draft.key = claim.in_state("queued")
        return
    draft.edit(event.index).set_claim(event.kind, claim.in_state("queued"))
    draft.due[event.index] = None
    name = {} if event.kind == "cache" else {"key": claim.key}
    draft.move(event.index, Mark.DEFERRED, data={"waiting": event.kind, **name})


def keys_answered(draft: Transition, event: KeysAnswered, settings: EngineSettings) -> None:
    """Apply the answers to several claims. The event is ignored if each of them is."""
    all_ignored = True
    for answer in event.answers:
        draft.ignored = False
        if isinstance(answer, KeyGranted):
            key_granted(draft, answer, settings)
        else:
            key_queued(draft, answer, settings)
        all_ignored = all_ignored and draft.ignored
    draft.ignored = all_ignored


def result_cached(draft: Transition, event: ResultCached, settings: EngineSettings) -> None:
    """Finish a node with the result that is stored for its cache key."""
    index, claim = event.index, _open_claim(draft, event)
    if claim is None:
        draft.ignored = True
        _return_stale(draft, event, KeyClaim(event.key, event.number, "queued", event.asked_at))
        return
    record = draft.edit(index)
    record.result, record.cached = event.result, True
    record.metrics, record.batches, record.skipped, record.retries = None, 0, 0, None
    record.worker_id = record.started_at = record.child = None
    draft.started_at = draft.started_at or draft.now
    finish_node(draft, index, settings, data={"cached": True})
    if draft.task.spec.plan.nodes[index].on_satisfied == "cancel":
        cancel_other_parents(draft, index, settings)
        begin_nodes(draft, settings)


def result_wanted(draft: Transition, event: ResultWanted, settings: EngineSettings) -> None:
    """Let the next node compute a result if this one waits for its key: it gives its places back
    and asks again, for the result after those that wait for it now, and for the key with its rank.
    """
    index, claim = event.index, _current_claim(draft, event)
    if claim is None or claim.state != "held" or draft.record(index).queued_for != "key":
        draft.ignored = True
        return
    draft.return_unused(index)
    draft.edit(index).cache = replace(claim, state="unused", asked_at=draft.now)


def key_busy(draft: Transition, event: KeyBusy, settings: EngineSettings) -> None:
    """Skip or fail a node that does not wait for its key."""
    claim = _open_claim(draft, event)
    key = None if claim is None else draft.task.spec.key_of(event.index)
    if claim is None or key is None:
        draft.ignored = True
    elif event.index == WHOLE_TASK:
        task_busy(draft, claim.in_state("busy"), event.error, settings)
    elif key.on_conflict == "skip":
        skip(draft, event.index, KEY_BUSY, settings)
    else:
        record = draft.edit(event.index)
        record.reason_code, record.error = KEY_BUSY, event.error
        fail_node(draft, event.index, settings)


def let_overdue_end(
    draft: Transition, index: int, reason_code: str, error: str, settings: EngineSettings
) -> None:
    """Stop an attempt that has exceeded a limit. It fails, and gives its places back, when it is
    known to have ended.
    """
    record = draft.edit(index)
    record.overdue = True
    record.reason_code, record.error = reason_code, error
    draft.effects += stop_effects(draft.task.spec, index, record, reason_code)
    give_grace(draft, index, settings)


def _open_claim(draft: Transition, event: KeyEvent) -> KeyClaim | None:
    """Return the claim that an event answers; None if the node or task needs no answer."""
    claim = _current_claim(draft, event)
    return claim if claim is not None and claim.is_open else None


def _current_claim(draft: Transition, event: KeyEvent) -> KeyClaim | None:
    """Return the claim of an event, if it is the last one of the node or task."""
    index = event.index
    if index != WHOLE_TASK and (
        index >= len(draft.task.marks) or draft.mark(index) not in NODE_REPORTS[type(event)]
    ):
        return None
    claim = _claim(draft, event)
    return None if claim is None or claim.number != event.number else claim


def _claim(draft: Transition, event: KeyEvent) -> KeyClaim | None:
    if event.index == WHOLE_TASK:
        return draft.key
    claim = draft.record(event.index).claim(event.kind)
    if claim is None and (archived := draft.task.recalled.get(event.index)) is not None:
        return archived.claim(event.kind)
    return claim


def archived_claims(task: Task, events: Iterable[Event]) -> list[int]:
    """Return the ended nodes to which these events give places or results, and whose records are in
    the archive. They are to be recalled first: a place is given back by the claim of its node.
    """
    return [
        one.index
        for event in events
        for one in (event.answers if isinstance(event, KeysAnswered) else (event,))
        if isinstance(one, _GIVEN)
        and 0 <= one.index < len(task.marks)
        and task.marks[one.index] in ENDED
        and one.index not in task.records
    ]


def _return_stale(draft: Transition, event: KeyGranted | ResultCached, stale: KeyClaim) -> None:
    """Give back a place, or a result, that came after the end of the claim. An old copy of a task
    may not know a later claim, but a claim that is over in any copy stays so.
    """
    claim = _claim(draft, event)
    if claim is not None and claim.is_past(event.number) and stale.key:
        draft.effects.append(ReturnKey(event.index, stale, event.kind))


def _has_room(draft: Transition, index: int, settings: EngineSettings) -> bool:
    """Return whether a node that got a place may start beside those that have started. Nodes that
    only ask do not count. Otherwise, two nodes with the same key could each give the place back,
    because the other one asks for it, without end.
    """
    plan = draft.task.spec.plan
    most, started = plan.max_parallel, draft.in_flight - draft.asking
    if started >= min(most or settings.max_in_flight, settings.max_in_flight):
        return False
    if most == started + 1 and not sources_progress(draft, index, ATTEMPTED):
        return False
    if index < plan.size:
        return True
    owner = map_of(plan, index)
    spec = plan.nodes[owner].map
    limit = None if spec is None else spec.max_parallel
    if limit is None:
        return True
    state = draft.edit_map(owner)
    return state.in_flight - state.asking < limit
