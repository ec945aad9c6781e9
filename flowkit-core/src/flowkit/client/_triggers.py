"""Verbs for triggers."""

from dataclasses import replace
from secrets import token_hex

from flowkit._json.values import is_unicode
from flowkit._records.record_pages import PAGE, pages_of
from flowkit._records.similar_names import similar_name
from flowkit._records.trigger_changes import (
    changed_pipelines,
    check_number_read,
    log_damage,
    make_due,
)
from flowkit._records.trigger_records import (
    EVENT_KIND,
    KIND,
    StoredTrigger,
    decode_trigger,
    prefix_of,
    trigger_record,
)
from flowkit._tasks.flow_versions import fixed_versions
from flowkit._tasks.submission import plain_params
from flowkit._triggers import Trigger, TriggerView, faults_in_expressions, pipeline_of
from flowkit.client._session import Session
from flowkit.client._valid_models import valid_model
from flowkit.errors import (
    ConfigError,
    CorruptRecord,
    Fault,
    FlowNotFound,
    GraphError,
    PluginError,
    StoreUnavailable,
    TriggerNotFound,
    TriggerRefused,
)
from flowkit.graph._templates import templates_in_params
from flowkit.protocols import RecordChange, RecordDeletion, RecordStore, utc

TRIES = 20


def _view(stored: StoredTrigger, behind: int | None = None) -> TriggerView:
    return TriggerView(
        id=stored.trigger.id,
        trigger=stored.whole,
        paused=stored.paused,
        created_at=utc(stored.created_at),
        behind=behind,
    )


# ---------------------------------------------------------------- definitions


async def put_trigger(session: Session, trigger: Trigger) -> TriggerView:
    """Check a trigger and store it."""
    trigger = valid_model(Trigger, trigger, TriggerRefused)
    refused = _source_refused(session, trigger.source)
    try:
        graph = await _checked(session, trigger)
    except (GraphError, FlowNotFound, CorruptRecord) as error:
        if refused is None:
            raise
        faults = error.faults if isinstance(error, GraphError) else [Fault(None, str(error))]
        raise GraphError([Fault(None, str(refused)), *faults]) from None
    if refused is not None:
        raise TriggerRefused(str(refused)) from refused
    view = await session.patiently(lambda: _put(session, trigger, graph))
    await session.dispatcher.trigger_changed(trigger.id)
    return view


def _source_refused(session: Session, source: str) -> ConfigError | PluginError | None:
    """Return the error of a source that no plugin opens, or None."""
    if pipeline_of(source) is None:
        try:
            session.plugins.open_trigger(source, session.cfg)
        except (ConfigError, PluginError) as error:
            return error
    return None


async def _put(session: Session, trigger: Trigger, graph: bytes) -> TriggerView:
    records = session.store.records
    for _ in range(TRIES):
        record = (await records.get(KIND, [trigger.id])).get(trigger.id)
        before = None if record is None else decode_trigger(record)
        now = session.clock.now()
        if before is None:
            stored = StoredTrigger(trigger, graph, now, token_hex(8), since=now)
        else:
            has_moved = trigger.source != before.trigger.source
            since = now if has_moved else before.since
            stored = replace(before, trigger=trigger, graph=graph, since=since)
        await check_number_read(records, stored, before)
        put = [
            trigger_record(stored),
            *await changed_pipelines(records, trigger.id, stored, before),
        ]
        if (await records.change([RecordChange(token_hex(8), put)]))[0]:
            return _view(stored)
    raise _too_often(trigger.id)


async def _checked(session: Session, trigger: Trigger) -> bytes:
    """Return the graph of a trigger; empty if it names a flow.

    Raises:
        GraphError: it has faults; all of them are listed.
        FlowNotFound, CorruptRecord: its flow does not exist, or cannot be read.
    """
    params, faults = plain_params(trigger.params, session.checks.limits.max_bytes)
    wrong_params = bool(faults)
    faults += [Fault(None, text) for text in faults_in_expressions(trigger)]
    flow, source = None, trigger.graph
    if trigger.flow is not None:
        flow, source = await session.flows.chosen(trigger.flow, trigger.version)
    graph, wrong = await session.checks.parsed(source)
    faults += wrong
    has_expressions = next(iter(templates_in_params(trigger.params)), None) is not None
    if graph is not None and not wrong_params and not has_expressions:
        # The values of the others are known with the event.
        _, texts = await session.checks.threads.params(graph.document.params, params)
        faults += [Fault(None, text) for text in texts]
    if graph is None or faults:
        raise GraphError(faults)
    await fixed_versions(graph, flow, flows=session.flows, checks=session.checks)
    return graph.source if trigger.flow is None else b""


# ---------------------------------------------------------------- reading and changes


async def list_triggers(session: Session, *, behind: bool) -> list[TriggerView]:
    """Return all triggers by id, with their lags if ``behind`` is true."""
    records, found = session.store.records, list[StoredTrigger]()
    async for page in pages_of(records, KIND):
        for record in page:
            try:
                found.append(decode_trigger(record))
            except CorruptRecord as error:
                log_damage(error)
    lags = await session.lags.of(found, records) if behind else [None] * len(found)
    return [_view(one, lag) for one, lag in zip(found, lags, strict=True)]


async def pause_trigger(session: Session, trigger_id: str) -> None:
    """Pause a trigger."""
    _check_id(trigger_id)
    await session.patiently(lambda: _set_paused(session, trigger_id, paused=True))


async def resume_trigger(session: Session, trigger_id: str) -> None:
    """End the pause of a trigger, and let the events that came meanwhile be due."""
    _check_id(trigger_id)
    await session.patiently(lambda: _set_paused(session, trigger_id, paused=False))
    await session.patiently(lambda: _make_due(session, trigger_id))
    await session.dispatcher.trigger_changed(trigger_id)


async def _set_paused(session: Session, trigger_id: str, *, paused: bool) -> None:
    records = session.store.records
    for _ in range(TRIES):
        stored = await _get(session, trigger_id)
        if stored.paused is paused:
            return
        record = trigger_record(stored.with_pause(paused))
        if (await records.change([RecordChange(token_hex(8), [record])]))[0]:
            return
    raise _too_often(trigger_id)


async def _make_due(session: Session, trigger_id: str) -> None:
    stored = await _get(session, trigger_id)
    await make_due(session.store.records, stored, session.clock.now())


async def delete_trigger(session: Session, trigger_id: str) -> None:
    """Delete a trigger."""
    _check_id(trigger_id)
    tried, token = False, None

    async def delete() -> None:
        nonlocal tried, token
        records = session.store.records
        for _ in range(TRIES):
            record = (await records.get(KIND, [trigger_id])).get(trigger_id)
            if record is None:
                if tried:
                    return
                raise await _not_found(records, trigger_id)
            tried = True
            try:
                before = decode_trigger(record)
                token, moved = (
                    before.token,
                    await changed_pipelines(records, trigger_id, None, before),
                )
            except CorruptRecord:
                moved = []  # its pipeline is not known; an event without a trigger is dropped
            deletion = RecordDeletion(KIND, trigger_id, record.revision)
            if (await records.change([RecordChange(token_hex(8), moved, [deletion])]))[0]:
                return
        raise _too_often(trigger_id)

    await session.patiently(delete)
    await session.patiently(lambda: _drop_events(session, prefix_of(trigger_id, token)))
    await session.dispatcher.trigger_changed(trigger_id)


async def _drop_events(session: Session, prefix: str) -> None:
    records = session.store.records
    while page := await records.scan(EVENT_KIND, prefix=prefix, limit=PAGE):
        await records.change(
            [
                RecordChange(token_hex(8), delete=[RecordDeletion(EVENT_KIND, record.key)])
                for record in page
            ]
        )


async def _get(session: Session, trigger_id: str) -> StoredTrigger:
    records = session.store.records
    record = (await records.get(KIND, [trigger_id])).get(trigger_id)
    if record is None:
        raise await _not_found(records, trigger_id)
    return decode_trigger(record)


async def _not_found(records: RecordStore, trigger_id: str) -> TriggerNotFound:
    return TriggerNotFound(trigger_id, near=await similar_name(records, KIND, trigger_id))


def _check_id(trigger_id: object) -> None:
    if not isinstance(trigger_id, str):
        raise ValueError(f"the id of a trigger is a text, not {trigger_id!r}")
    if not is_unicode(trigger_id):
        raise TriggerNotFound(trigger_id)


def _too_often(trigger_id: str) -> StoreUnavailable:
    return StoreUnavailable(f"trigger {trigger_id!r} changes too often")
