"""Process that commits versions of a task until it is killed: ``python -m
tests.sqlite.versions_writer FILE SYNCHRONOUS``.
"""

import sys
from pathlib import Path

import anyio

from flowkit.protocols import ArtifactRecord, Stream
from flowkit_sqlite import SqliteConfig, SqliteStore
from tests.store_records import NOON, change, task

STREAM = Stream("t", "n")


async def write(path: Path, synchronous: str) -> None:
    """Commit versions of a task with artifacts, and print each version that is confirmed."""
    config = SqliteConfig(synchronous=synchronous)
    async with SqliteStore(f"sqlite:///{path}", config=config) as store:
        await store.create([task("t", parts={})])
        version = 1
        while True:
            put = {"state": b"%d" % version, "filling": b"x" * (version % 50 * 200)}
            record = ArtifactRecord(STREAM, f"{version}", True, None, b"{}", NOON)
            assert await store.artifacts.put([record]) == [True]
            assert await store.commit([change("t", version, put=put)]) == [True]
            version += 1
            print(version, flush=True)


if __name__ == "__main__":
    anyio.run(write, Path(sys.argv[1]), sys.argv[2])
