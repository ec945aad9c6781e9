"""Process that commits versions of a task until it is killed: ``python -m
tests.sqlite.versions_writer FILE SYNCHRONOUS [--once]``.
"""

import sys
from functools import partial
from pathlib import Path

import anyio

from flowkit.protocols import ArtifactRecord, Stream
from flowkit_sqlite import SqliteConfig, SqliteStore
from tests.store_records import NOON, change, task

STREAM = Stream("t", "n")


async def write(path: Path, synchronous: str, *, once: bool) -> None:
    """Commit versions of a task with artifacts, and print each version that is confirmed.

    Every second commit is not durable; the artifact after it is, and confirms it too. With
    ``once``, only the first version is committed, and no artifact.
    """
    config = SqliteConfig(synchronous=synchronous)
    async with SqliteStore(f"sqlite:///{path}", config=config) as store:
        await store.create([task("t", parts={})])
        version = 1
        while True:
            put = {"state": b"%d" % version, "filling": b"x" * (version % 50 * 200)}
            durable = version % 2 == 0
            assert await store.commit([change("t", version, put=put, durable=durable)]) == [True]
            version += 1
            if durable or once:
                print(version, flush=True)
            if once:
                await anyio.sleep_forever()
            record = ArtifactRecord(STREAM, f"{version}", True, None, b"{}", NOON)
            assert await store.artifacts.put([record]) == [True]
            print(version, flush=True)


if __name__ == "__main__":
    path, synchronous, *options = sys.argv[1:]
    anyio.run(partial(write, Path(path), synchronous, once=bool(options)))
