"""Figures about many tasks."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

from flowkit._engine import reasons_in
from flowkit.client._session import Session
from flowkit.protocols import TaskQuery, TaskRecord

TASKS_A_READ = 100


async def records_found(session: Session, query: TaskQuery, most: int) -> AsyncIterator[TaskRecord]:
    """Yield at most ``most`` records that match, in the order of the query."""
    found, following = 0, query.after
    while found < most:
        page = replace(query, limit=min(TASKS_A_READ, most - found), after=following)
        records, following = await session.store.list_tasks(page)
        for record in records:
            yield record
        found += len(records)
        if following is None:
            break


async def count_reasons(session: Session, query: TaskQuery, most: int) -> dict[str, int]:
    """Return the numbers of tasks by reason code, the largest first. No task is decoded."""
    codes: Counter[str] = Counter()
    async for record in records_found(session, query, most):
        codes.update(reasons_in(record.header.tags))
    return dict(codes.most_common())
