"""Checks of ``flowkit doctor``: whether the tasks and keyed records in the store can be read."""

from collections.abc import Sequence

from flowkit._codecs.store_codec import encoded
from flowkit._records.damaged_records import damaged_keyed_records
from flowkit._records.damaged_tasks import SEARCH_SEC, Search, damaged_tasks
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult, Clock, Store

MOST_DAMAGED = 100
MOST_SHOWN = 5
TASKS_REMEDY = (
    "Restore the records of these tasks from a backup, or delete them; then run `flowkit dlq retry"
    " --kind task`. They do not affect other tasks."
)
RECORDS_REMEDY = (
    "Restore these records from a backup, or delete them. Until then, nodes wait that ask for a"
    " damaged key, rate or cache. Do not delete records of queues (key_queue, rate_queue,"
    " cache_queue): coordinators repair them when they read the queue."
)


async def check_tasks(store: Store, plugins: Plugins, clock: Clock) -> Sequence[CheckResult]:
    """Return the check that all tasks can be read, or those that are read in time."""
    search = await damaged_tasks(
        encoded(store, plugins), limit=MOST_DAMAGED, monotonic=clock.monotonic
    )
    return [_result("tasks", search, TASKS_REMEDY)]


async def check_records(store: Store, plugins: Plugins, clock: Clock) -> Sequence[CheckResult]:
    """Return the check that all keyed records can be read, or those that are read in time: flows,
    schedules, triggers, dead letters, log lines, and those of keys and of workers.
    """
    search = await damaged_keyed_records(
        encoded(store, plugins), limit=MOST_DAMAGED, monotonic=clock.monotonic
    )
    return [_result("records", search, RECORDS_REMEDY)]


def _result(name: str, search: Search, remedy: str) -> CheckResult:
    read = f"{search.read:,} read{'' if search.in_time else f' in {SEARCH_SEC:g} s'}"
    if not search.records:
        return CheckResult(name, True, f"{read}, none is damaged")
    shown = "; ".join(record.fault for record in search.records[:MOST_SHOWN])
    hidden = len(search.records) - MOST_SHOWN
    more = f"; and {hidden} more" if hidden > 0 else ""
    return CheckResult(name, False, f"{read}, {len(search.records)} damaged: {shown}{more}", remedy)
