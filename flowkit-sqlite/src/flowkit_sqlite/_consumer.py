"""Background reader of a subscription, which fills its inbox."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from flowkit.adapters import Backoff, Notices
from flowkit.errors import FlowKitError
from flowkit_sqlite._database import Database
from flowkit_sqlite._errors import bus_error
from flowkit_sqlite._fetching import NOT_ASSIGNED, Fetched, Source, fetch
from flowkit_sqlite._inbox import Inbox
from flowkit_sqlite._progress import Progress
from flowkit_sqlite._publication import Stored
from flowkit_sqlite._wakeups import Listener

logger = logging.getLogger(__name__)
LONGEST_PAUSE_SEC = 1.0


class Consumer:
    """Reader of the messages of a source.

    Messages that this process publishes come directly, others are read when a notification comes.
    """

    def __init__(self, database: Database, inbox: Inbox, source: Source, *channels: str) -> None:
        self.database = database
        self.inbox = inbox
        self._source = source
        self._channels = (*channels, *(f"topic:{topic.name}" for topic in source.topics))
        self._notices = Notices(time.monotonic)
        self._assignment = NOT_ASSIGNED
        self._by_id: dict[int, Progress] = {}
        self._listener: Listener | None = None
        self._is_idle = False
        self._is_behind = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start to read. Nothing is missed that is published after this returns."""
        self._apply(await self._fetch())
        self.run(self._fetch_forever())

    async def stop(self) -> None:
        """End the background loops."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def run(self, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop in the background until the consumer stops."""
        self._tasks.append(asyncio.create_task(loop))

    def acknowledged(self) -> None:
        """Store the caller's acknowledgements soon, if there is a group that has them."""

    def taken(self) -> None:
        """Continue to read when the caller has made room in the inbox."""
        if self._is_behind and self.inbox.room:
            self.look()

    def look(self) -> None:
        """Read the assignment and messages again."""
        if self._listener is not None:
            self._listener.wake()

    def trouble(self, error: FlowKitError) -> None:
        """Log an error of a background loop."""
        what = f"The subscription to {', '.join(self._channels)} is interrupted"
        self._notices.trouble(logger, "file", what, error, action="subscription_interrupted")

    async def _fetch_forever(self) -> None:
        backoff = Backoff(longest_sec=LONGEST_PAUSE_SEC)
        with self.database.listen(
            *self._channels, named=True, deliver=self._deliver
        ) as self._listener:
            while True:
                try:
                    self._apply(await self._fetch())
                except Exception as error:
                    # If this loop ended, the caller would wait without end.
                    failure = bus_error(error)
                    self.trouble(failure)
                    self.inbox.fail(failure)
                    await asyncio.sleep(backoff.next_sec())
                    continue
                self._notices.over(logger, "file")
                backoff.reset()
                if not (self._is_behind and self.inbox.room):
                    self._is_idle = True
                    await self._listener.wait()
                    self._is_idle = False

    async def _fetch(self) -> Fetched:
        known = self._assignment
        cursors = [
            (partition, progress.cursor) for partition, progress in self.inbox.progress.items()
        ]
        room = self.inbox.room
        return await self.database.read(
            lambda db: fetch(db, self._source, known, cursors, room), brief=True
        )

    def _apply(self, fetched: Fetched) -> None:
        inbox = self.inbox
        if fetched.assignment is not self._assignment:
            self._assignment = fetched.assignment
            inbox.assign(fetched.assignment.firsts)
            self._by_id = {
                partition.partition_id: progress for partition, progress in inbox.progress.items()
            }
        for partition, rows in fetched.rows:
            inbox.put(inbox.progress[partition], rows)
        for partition, cursor in fetched.cursors.items():
            inbox.progress[partition].cursor = cursor
        self._is_behind = fetched.is_behind

    def _deliver(self, stored: Stored) -> bool:
        """Take messages that this process has stored, if they follow those that were read.

        A subscription that reads, or is about to, finds them in the file.
        """
        if not self._is_idle or self._listener is None or self._listener.is_woken:
            return False
        progress = self._by_id.get(stored.partition_id)
        if progress is None:
            return True
        room = self.inbox.room
        if self._is_behind or not room:
            # The caller has to take messages first; taken() continues.
            self._is_behind = True
            return True
        first, last = stored.rows[0][0], stored.rows[-1][0]
        if progress.cursor != first or room < len(stored.rows):
            return False
        self.inbox.put(progress, stored.rows)
        progress.cursor = last + 1
        return True
