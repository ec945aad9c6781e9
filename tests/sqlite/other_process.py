"""Other processes that use a file, started by the tests: ``python -m tests.sqlite.other_process``.

Each prints a line when it has done its job.
"""

import asyncio
import sys
from pathlib import Path

from flowkit import CoordinatorConfig
from flowkit.protocols import Message
from flowkit_sqlite import SqliteBus, SqliteConfig
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


async def publish(path: Path, prefix: str) -> None:
    """Publish messages until the process is killed, and print each that was confirmed."""
    async with SqliteBus(f"sqlite:///{path}") as bus:

        async def publish_each(task: int) -> None:
            for number in range(1_000_000):
                value = f"{prefix}.{task}.{number}"
                await bus.publish([Message("t", value.encode(), f"{number}")])
                print(value, flush=True)

        async with asyncio.TaskGroup() as tasks:
            for task in range(5):
                tasks.create_task(publish_each(task))


async def consume(path: Path) -> None:
    """Receive messages until the process is killed: print each, then acknowledge it."""
    config = CoordinatorConfig(options={"sqlite": {"lease_sec": 1, "ack_interval_sec": 0.01}})
    async with (
        SqliteBus(f"sqlite:///{path}", config) as bus,
        bus.subscribe(["t"], group="g") as subscription,
    ):
        while True:
            got = await subscription.receive(max_messages=20)
            for each in got:
                print(each.message.value.decode(), flush=True)
            await subscription.ack(got)


if __name__ == "__main__":
    job, path, *rest = sys.argv[1:]
    match job:
        case "hold":
            asyncio.run(hold(Path(path)))
        case "publish":
            asyncio.run(publish(Path(path), *rest))
        case "consume":
            asyncio.run(consume(Path(path)))
        case _:
            one_by_one = job == "one_by_one"
            asyncio.run(append(Path(path), rest[0], int(rest[1]), one_by_one=one_by_one))
