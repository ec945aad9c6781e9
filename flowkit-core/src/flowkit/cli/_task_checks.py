"""Check of ``flowkit doctor``: whether the tasks in the store can be read."""

from collections.abc import Sequence

from flowkit._codecs.store_codec import encoded
from flowkit._records.damaged_tasks import SEARCH_SEC, damaged_tasks
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult, Clock, Store

MOST_DAMAGED = 100
MOST_SHOWN = 5
REMEDY = (
    "Restore the records of these tasks from a backup, or delete them; then run `flowkit dlq retry"
    " --kind task`. They do not affect other tasks."
)


async def check_tasks(store: Store, plugins: Plugins, clock: Clock) -> Sequence[CheckResult]:
    """Return the check that all tasks can be read, or those that are read in time."""
    search = await damaged_tasks(
        encoded(store, plugins), limit=MOST_DAMAGED, monotonic=clock.monotonic
    )
    read = f"{search.read:,} read{'' if search.in_time else f' in {SEARCH_SEC:g} s'}"
    if not search.records:
        return [CheckResult("tasks", True, f"{read}, none is damaged")]
    shown = "; ".join(record.fault for record in search.records[:MOST_SHOWN])
    hidden = len(search.records) - MOST_SHOWN
    more = f"; and {hidden} more" if hidden > 0 else ""
    return [
        CheckResult("tasks", False, f"{read}, {len(search.records)} damaged: {shown}{more}", REMEDY)
    ]
