"""Keyed records whose bytes a store can read, and FlowKit cannot, in any store."""

from flowkit._records.damaged_records import DECODERS, damaged_records
from flowkit.cli._record_checks import check_records
from flowkit.clock import SystemClock
from flowkit.plugins import Plugins
from flowkit.protocols import KeyedRecord, RecordChange, Store

KEYS = {"flow_version": "x@0000000001"}
"""Keys of kinds whose keys have a form."""


async def check_all_are_named(store: Store) -> None:
    """Store one damaged record of each kind, and check that doctor and ``dlq ls`` name it."""
    keys = {kind: KEYS.get(kind, f"x-{kind}") for kind in DECODERS}
    (before,) = await check_records(store, Plugins(discover=False), SystemClock())
    assert (before.name, before.ok) == ("records", True)
    assert before.detail.endswith("none is damaged")
    changes = [
        RecordChange(f"c-{kind}", [KeyedRecord(kind, key, b'{"v":7}\n', task_id="t")])
        for kind, key in keys.items()
    ]
    assert all(await store.records.change(changes))

    found = await damaged_records(store, limit=100, monotonic=SystemClock().monotonic)
    assert {record.place: record.record_id for record in found} == keys
    assert len(found) == len(keys)
    for record in found:
        name = "'t'" if record.place == "log" else "x"
        assert name in record.fault, record
    for kind in ("schedule", "trigger", "flow"):  # the kinds that lists leave out come first
        assert any(f"{kind} 'x" in record.fault for record in found[:5]), kind

    (check,) = await check_records(store, Plugins(discover=False), SystemClock())
    assert (check.ok, check.remedy != "") == (False, True)
    assert f"{len(keys)} damaged: the record of flow 'x-flow' cannot be read: " in check.detail
    assert f"; and {len(keys) - 5} more" in check.detail
