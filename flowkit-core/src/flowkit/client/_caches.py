"""Deletion of cached results."""

from secrets import token_hex
from typing import Any

from flowkit._engine.key_places import FREE
from flowkit._json.values import is_unicode, json_copy
from flowkit._records.cache_records import GRAPHS, flow_prefix, hash_of, role_prefix
from flowkit._records.key_records import key_change, key_state
from flowkit._records.record_pages import PAGE
from flowkit.client._session import Session
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord

SUBFLOW = "subflow"


async def delete_cached(session: Session, role: str | None, flow: str | None, key: Any) -> int:
    """Delete cached results, and return how many."""
    prefix = _prefix(role, flow)
    ending = "" if key is None else hash_of(json_copy(key, "the cache key"))
    if prefix != GRAPHS:
        prefix += ending
    return await session.patiently(lambda: _delete(session, prefix, ending))


def _prefix(role: str | None, flow: str | None) -> str:
    """Return the beginning of the keys of the records."""
    for name in (role, flow):
        if name is not None and not (isinstance(name, str) and is_unicode(name)):
            raise ValueError(f"a role or a flow is a text, not {name!r}")
    if (role is None) == (flow is None):
        raise ValueError("give a role or a flow, and not both")
    if role == SUBFLOW:
        return GRAPHS
    return f"{flow_prefix(flow or '') if role is None else role_prefix(role)}\n"


async def _delete(session: Session, prefix: str, ending: str) -> int:
    records, after, deleted = session.store.records, "", 0
    while page := await records.scan("cache", prefix=prefix, after=after, limit=PAGE):
        for record in page:
            deleted += record.key.endswith(ending) and await _forget(session, record)
        after = page[-1].key
    return deleted


async def _forget(session: Session, record: KeyedRecord | None) -> bool:
    """Delete the result in a record, and let the one that is computed now not be stored. Return
    False if there is none.
    """
    records = session.store.records
    while record is not None:
        try:
            state = key_state(record)
            after = state.forgotten()
        except CorruptRecord:
            state, after = None, FREE
        if state == after:
            return False
        change = key_change(
            record.key,
            after,
            record.revision,
            op_id=token_hex(8),
            due_at=session.clock.now(),
            kind="cache",
        )
        if (await records.change([change]))[0]:
            return True
        record = (await records.get("cache", [record.key])).get(record.key)
    return False
