"""Log lines of a task."""

from collections.abc import AsyncIterator
from functools import partial

from pydantic_core import to_json

from flowkit._records.log_reader import LogReader
from flowkit._records.task_records import decode_task
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import Backoff
from flowkit.client._session import Session, index_of
from flowkit.graph._expanded_plan import split_child_id
from flowkit.task import IN_FLIGHT, LogLine

FIRST_LOOK_SEC = 0.25
LONGEST_LOOK_SEC = 2.0
"""While nodes run, new lines are looked for after pauses that double up to this."""
AT_REST_SEC = 60.0
"""While no node runs, new lines are looked for when the task changes, or after this time."""


async def read_logs(
    session: Session, task_id: str, node_id: str | None, *, follow: bool
) -> AsyncIterator[LogLine]:
    """Yield the log lines of a task, or of one of its nodes; with ``follow``, until its end."""
    record = await session.record(task_id)
    task = decode_task(record, to_look_at=True)
    if node_id is not None:
        index_of(task, node_id)
    reader, pauses = _reader(session, task_id, node_id), _pauses()
    while True:
        async for line in reader.read():
            yield line
            pauses.reset()
        if task.terminal or not follow:
            return
        running = any(mark in IN_FLIGHT for mark in task.marks)
        # A running task may change many times a second, and a task at rest for days not at all.
        change = partial(session.store.wait_for_change, task_id, record.version, ended=running)
        await within(pauses.next_sec() if running else AT_REST_SEC, change, clock=session.clock)
        record = await session.record(task_id)
        task = decode_task(record, to_look_at=True)


_pauses = partial(Backoff, first_sec=FIRST_LOOK_SEC, longest_sec=LONGEST_LOOK_SEC)


def _reader(session: Session, task_id: str, node_id: str | None) -> LogReader:
    records = session.store.records
    if node_id is None:
        return LogReader(records, task_id, of=lambda node: True)
    # The id of a child begins with that of its map.
    part = b'"node":%b' % to_json(node_id)[:-1]
    return LogReader(
        records, task_id, of=lambda node: node_id in (node, split_child_id(node)[0]), part=part
    )
