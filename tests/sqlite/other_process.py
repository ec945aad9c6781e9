"""Other processes that use a file, started by the tests: ``python -m tests.sqlite.other_process``.

Each prints a line when it has done its job.
"""

import asyncio
import sys
from pathlib import Path

from flowkit_sqlite import SqliteConfig
from flowkit_sqlite._database import Database


async def append(path: Path, channel: str, count: int, *, one_by_one: bool) -> None:
    """Insert words ``count`` times and notify a channel, each in a transaction of its own."""
    async with Database(path, SqliteConfig()) as database:

        def insert(db):
            db.execute("INSERT INTO words VALUES (hex(randomblob(16)))")
            database.notify(channel)

        for _ in range(count):
            if one_by_one:
                await asyncio.to_thread(sys.stdin.readline)
            await database.write(insert)
            print("done", flush=True)


async def hold(path: Path) -> None:
    """Commit a word, and keep a second one in an open transaction until the process is killed."""
    async with Database(path, SqliteConfig()) as database:
        await database.write(lambda db: db.execute("INSERT INTO words VALUES ('kept')"))

        def block(db):
            db.execute("INSERT INTO words VALUES ('lost')")
            print("done", flush=True)
            sys.stdin.readline()

        await database.write(block)


if __name__ == "__main__":
    job, path, *rest = sys.argv[1:]
    if job == "hold":
        asyncio.run(hold(Path(path)))
    else:
        asyncio.run(append(Path(path), rest[0], int(rest[1]), one_by_one=job == "one_by_one"))
