"""Search for tasks whose records cannot be decoded.

A store finds damaged documents or rows, but does not know what is in their bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flowkit._records.task_records import decode_task
from flowkit.errors import CorruptRecord
from flowkit.protocols import DamagedRecord, Store, TaskQuery

SEARCH_SEC = 5.0
"""Time limit of a search, which reads every task, the newest first, or every keyed record."""
PAGE = 20
"""Tasks or records that are in memory at the same time. One may have many megabytes."""
PLACE = "task"


@dataclass(frozen=True, slots=True)
class Search:
    """The result of a search."""

    records: list[DamagedRecord]
    read: int
    """Number of tasks or keyed records that were read."""
    in_time: bool
    """False if the time limit ended the search before all of them were read."""


async def damaged_tasks(
    store: Store, *, limit: int, monotonic: Callable[[], float], within_sec: float = SEARCH_SEC
) -> Search:
    """Search for up to ``limit`` tasks whose records cannot be decoded."""
    found: list[DamagedRecord] = []
    read = 0
    after: str | None = None
    deadline = monotonic() + within_sec
    while True:
        listed, after = await store.list_tasks(TaskQuery(limit=PAGE, after=after))
        records = await store.load([record.header.task_id for record in listed])
        for task_id, record in records.items():
            read += 1
            try:
                decode_task(record)
            except CorruptRecord as error:
                found.append(DamagedRecord(PLACE, task_id, str(error), task_id))
                if len(found) == limit:
                    return Search(found, read, in_time=True)
        if after is None:
            return Search(found, read, in_time=True)
        if monotonic() >= deadline:
            return Search(found, read, in_time=False)
