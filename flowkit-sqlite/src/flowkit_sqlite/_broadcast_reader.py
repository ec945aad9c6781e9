"""Subscriber without a group."""

import sqlite3
from collections.abc import Sequence

from flowkit_sqlite._consumer import Consumer
from flowkit_sqlite._database import Database
from flowkit_sqlite._fetching import Assigned, partitions_of
from flowkit_sqlite._inbox import Inbox
from flowkit_sqlite._topics import Topic


class BroadcastReader(Consumer):
    """Consumer that reads what is published to its topics from now on."""

    def __init__(self, database: Database, inbox: Inbox, topics: Sequence[Topic]) -> None:
        super().__init__(database, inbox, [f"topic:{topic.name}" for topic in topics])
        self._topics = topics

    async def start(self) -> None:
        located = await self.database.read(self._locate)
        self.inbox.assign((each.partition, each.end) for each in located)
        self.run(self.fetch_forever(self._locate))

    def _locate(self, db: sqlite3.Connection) -> list[Assigned]:
        return [each for topic in self._topics for each in partitions_of(db, topic)]
