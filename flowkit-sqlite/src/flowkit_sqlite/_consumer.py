"""Background reader of a subscription, which fills its inbox."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from flowkit.adapters import Backoff, Notices
from flowkit.errors import FlowKitError, StoreError
from flowkit_sqlite._database import Database
from flowkit_sqlite._errors import as_bus_error
from flowkit_sqlite._fetching import Assignment, fetch
from flowkit_sqlite._inbox import Inbox
from flowkit_sqlite._wakeups import Listener

logger = logging.getLogger(__name__)
LONGEST_PAUSE_SEC = 1.0


class Consumer:
    """Reader of the messages of an assignment, woken by what is published."""

    def __init__(self, database: Database, inbox: Inbox, channels: Iterable[str]) -> None:
        self.database = database
        self.inbox = inbox
        self._channels = tuple(channels)
        self._notices = Notices(time.monotonic)
        self._listener: Listener | None = None
        self._is_behind = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start to read. When it returns, nothing is missed that is published later."""
        raise NotImplementedError

    def acknowledged(self) -> None:
        """Store the caller's acknowledgements soon, if there is a group that has them."""

    def run(self, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop in the background until the consumer stops."""
        self._tasks.append(asyncio.create_task(loop))

    async def stop(self) -> None:
        """End the background loops."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def look(self) -> None:
        """Read the assignment and messages again."""
        if self._listener is not None:
            self._listener.wake()

    def taken(self) -> None:
        """Continue to read when the caller has made room in the inbox."""
        if self._is_behind and self.inbox.room:
            self.look()

    def trouble(self, error: FlowKitError) -> None:
        """Log an error of a background loop."""
        self._notices.trouble(
            logger,
            "file",
            f"The subscription to {', '.join(self._channels)} is disturbed",
            error,
            action="outage",
        )

    def over(self) -> None:
        """Log the end of an outage, if there was one."""
        self._notices.over(logger, "file")

    async def fetch_forever(self, assignment: Assignment) -> None:
        """Fill the inbox."""
        backoff = Backoff(longest_sec=LONGEST_PAUSE_SEC)
        with self.database.listen(*self._channels) as self._listener:
            while True:
                try:
                    await self._fetch(assignment)
                except StoreError as error:
                    self.trouble(error)
                    self.inbox.fail(as_bus_error(error))
                    await asyncio.sleep(backoff.next_sec())
                    continue
                self.over()
                backoff.reset()
                if not (self._is_behind and self.inbox.room):
                    await self._listener.wait()

    async def _fetch(self, assignment: Assignment) -> None:
        inbox = self.inbox
        cursors = {partition: progress.cursor for partition, progress in inbox.progress.items()}
        room = inbox.room

        def job(db: sqlite3.Connection) -> Any:
            return fetch(db, assignment, cursors, room)

        fetched = await self.database.read(job)
        inbox.assign((each.partition, each.first) for each in fetched.assignment)
        inbox.put(fetched.deliveries(inbox.progress))
        for partition, cursor in fetched.cursors.items():
            inbox.progress[partition].cursor = cursor
        self._is_behind = fetched.is_behind
