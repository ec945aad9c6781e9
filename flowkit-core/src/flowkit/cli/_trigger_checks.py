"""Checks of ``flowkit doctor``: the sources that coordinators read for triggers."""

from shlex import quote

import anyio

from flowkit._codecs.store_codec import encoded
from flowkit._json.limits import LAST_MOMENT
from flowkit._records.trigger_records import KIND, MOST_READ, decode_trigger
from flowkit.client._trigger_lags import events_behind
from flowkit.config import CommonConfig
from flowkit.errors import CorruptRecord, FlowKitError
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult, KeyedRecord, Store

PATIENCE_SEC = 5.0
CHECK_SOURCE = "check that the source exists and can be reached from here; or delete the trigger"


async def check_triggers(
    store: Store, plugins: Plugins, cfg: CommonConfig, *, max_behind: int | None = None
) -> list[CheckResult]:
    """Return a check for each trigger with the source of a plugin: how far it is behind, and that
    this is not more than ``max_behind`` events.
    """
    records = await encoded(store, plugins).records.due(KIND, before=LAST_MOMENT, limit=MOST_READ)
    results: dict[str, CheckResult] = {}

    async def check(record: KeyedRecord) -> None:
        results[record.key] = await _check(record, plugins, cfg, max_behind)

    async with anyio.create_task_group() as group:
        for record in records:
            group.start_soon(check, record)
    return [results[key] for key in sorted(results)]


async def _check(
    record: KeyedRecord, plugins: Plugins, cfg: CommonConfig, max_behind: int | None
) -> CheckResult:
    name = f"trigger {record.key}"
    try:
        stored = decode_trigger(record)
    except CorruptRecord as error:
        return CheckResult(name, False, error.fault, f"flowkit trigger rm {quote(record.key)}")
    try:
        with anyio.fail_after(PATIENCE_SEC):
            behind = await events_behind(stored, plugins, cfg)
    except TimeoutError:
        detail = f"its source did not answer within {PATIENCE_SEC:g} s"
        return CheckResult(name, False, detail, CHECK_SOURCE)
    except FlowKitError as error:
        return CheckResult(name, False, error.fault, error.remedy or CHECK_SOURCE)
    detail = f"{behind:,} {'event' if behind == 1 else 'events'} behind"
    if stored.paused:
        detail, fix = f"{detail}, paused", f"flowkit trigger resume {quote(record.key)}"
    else:
        fix = "start more coordinators, or allow a higher number"
    return CheckResult(name, max_behind is None or behind <= max_behind, detail, fix)
