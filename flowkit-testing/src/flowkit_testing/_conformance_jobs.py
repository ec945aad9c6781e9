"""Jobs of other processes in the conformance suites.

Run as ``python -m flowkit_testing._conformance_jobs OPENER JOB``. ``OPENER`` and ``JOB`` are JSON:
the name of a function and its arguments. The process opens the adapter, prints a line, waits for a
line on its standard input, does the job, and prints its results as lines of JSON.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    ArtifactStore,
    Bus,
    Commit,
    Delivery,
    RecordChange,
    Store,
    Stream,
)

Tell = Callable[[object], None]


def tell(line: object) -> None:
    """Print a line for the parent process."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def asked() -> None:
    """Wait for a line from the parent process."""
    await anyio.to_thread.run_sync(sys.stdin.readline)


def value_of(version: int, size: int = 0) -> bytes:
    """Return the value of every part of a task at a version."""
    return b'{"version":%d,"filling":"%b"}' % (version, b"x" * size)


def commit_to(task_id: str, version: int, op_id: str, *, size: int = 0) -> Commit:
    """Return a commit that sets each part, and a new archived part, to its next value."""
    value = value_of(version + 1, size)
    archived = ArchivedPart(f"version{version + 1:06}", 1, value)
    return Commit(
        task_id,
        version,
        op_id,
        "running",
        None,
        None,
        {"first": value, "second": value},
        archive=[archived],
    )


async def commit_each_version(store: Store, *, task_id: str, name: str, versions: int) -> None:
    """Try to commit every version once, and report which were applied."""
    applied = [
        v
        for v in range(1, versions + 1)
        if (await store.commit([commit_to(task_id, v, f"{name}-{v}")]))[0]
    ]
    tell(applied)


async def commit_until_killed(store: Store, *, task_id: str, size: int) -> None:
    """Commit one version after another, and report each confirmed one."""
    version = (await store.load([task_id]))[task_id].version
    while (await store.commit([commit_to(task_id, version, f"op-{version}", size=size)]))[0]:
        version += 1
        tell(version)


async def count_in_two_records(store: Store, *, kind: str, name: str, times: int) -> None:
    """Add one to a record and to the sum, many times, and report how often it was applied."""
    applied = 0
    while applied < times:
        applied += await _count(store, kind, name) is not None
    tell(applied)


async def count_until_killed(store: Store, *, kind: str, name: str) -> None:
    """Add one to a record and to the sum, and report each confirmed value."""
    while (value := await _count(store, kind, name)) is not None:
        tell(value)


async def _count(store: Store, kind: str, name: str) -> int | None:
    """Add one to a record and to the sum; return None if another process has changed them."""
    found = await store.records.get(kind, [name, "sum"])
    counted = [replace(each, data=b"%d" % (int(each.data) + 1)) for each in found.values()]
    op_id = f"{name}-{uuid4().hex}"
    (applied,) = await store.records.change([RecordChange(op_id, counted)])
    return int(found[name].data) + 1 if applied else None


async def put_each(artifacts: ArtifactStore, *, stream: Sequence[Any], uids: Sequence[str]) -> None:
    """Put every uid once, and report which were new."""
    tell([uid for uid in uids if (await artifacts.put([_artifact(stream, uid)]))[0]])


async def put_until_killed(artifacts: ArtifactStore, *, stream: Sequence[Any], name: str) -> None:
    """Put three records at a time, and report the uids of the confirmed ones."""
    for number in count():
        uids = [f"{name}-{number}-{letter}" for letter in "abc"]
        await artifacts.put([_artifact(stream, uid) for uid in uids])
        tell(uids)


async def receive_and_acknowledge(bus: Bus, *, topic: str, group: str, count: int) -> None:
    """Receive messages and report their values; acknowledge them when a line arrives."""
    async with bus.subscribe([topic], group=group, max_unacked=count) as subscription:
        received: list[Delivery] = []
        while len(received) < count:
            received += await subscription.receive(max_messages=count - len(received))
        tell([delivery.message.value.hex() for delivery in received])
        await asked()
        await subscription.ack(received)
    tell("acknowledged")


def _artifact(stream: Sequence[Any], uid: str) -> ArtifactRecord:
    return ArtifactRecord(Stream(*stream), uid, True, b"{}", b"{}", 1_700_000_000.0)


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        commit_each_version,
        commit_until_killed,
        count_in_two_records,
        count_until_killed,
        put_each,
        put_until_killed,
        receive_and_acknowledge,
    )
}


async def main(opener: str, job: str) -> None:
    where, *arguments = json.loads(opener)
    module, _, function = where.partition(":")
    name, given = json.loads(job)
    async with getattr(importlib.import_module(module), function)(*arguments) as adapter:
        tell("ready")
        await asked()
        await JOBS[name](adapter, **given)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
