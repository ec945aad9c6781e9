"""What another process does with an adapter for the conformance suites: ``python -m
flowkit_testing._conformance_jobs OPENER JOB``.

``OPENER`` and ``JOB`` are JSON: the name of a function and its arguments. The process opens the
adapter, prints a line, waits for a line on its standard input, does the job, and prints what it
finds as lines of JSON.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import anyio
import anyio.to_thread

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    ArtifactStore,
    Bus,
    Commit,
    Delivery,
    Store,
    Stream,
)

Tell = Callable[[object], None]


def tell(line: object) -> None:
    """Print a line for the process that started this one."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def asked() -> None:
    """Wait for a line from the process that started this one."""
    await anyio.to_thread.run_sync(sys.stdin.readline)


def value_of(version: int, size: int = 0) -> bytes:
    """The value of every part of a task at a version."""
    return b'{"version":%d,"filling":"%b"}' % (version, b"x" * size)


def commit_to(task_id: str, version: int, op_id: str, *, size: int = 0) -> Commit:
    """A commit after which each part, and a new archived part, has the value of the next
    version.
    """
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
    """Try to commit every version once, and tell which of them were applied."""
    applied = [
        v
        for v in range(1, versions + 1)
        if (await store.commit([commit_to(task_id, v, f"{name}-{v}")]))[0]
    ]
    tell(applied)


async def commit_until_killed(store: Store, *, task_id: str, size: int) -> None:
    """Commit one version after the other, and tell each one that was confirmed."""
    version = (await store.load([task_id]))[task_id].version
    while (await store.commit([commit_to(task_id, version, f"op-{version}", size=size)]))[0]:
        version += 1
        tell(version)


async def put_each(artifacts: ArtifactStore, *, stream: Sequence[Any], uids: Sequence[str]) -> None:
    """Put every uid once, and tell which of them were new."""
    tell([uid for uid in uids if (await artifacts.put([_artifact(stream, uid)]))[0]])


async def put_until_killed(artifacts: ArtifactStore, *, stream: Sequence[Any], name: str) -> None:
    """Put three records at a time, and tell the uids of those that were confirmed."""
    for number in count():
        uids = [f"{name}-{number}-{letter}" for letter in "abc"]
        await artifacts.put([_artifact(stream, uid) for uid in uids])
        tell(uids)


async def receive_and_acknowledge(bus: Bus, *, topic: str, group: str, count: int) -> None:
    """Receive messages and tell their values; acknowledge them when a line comes in."""
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
