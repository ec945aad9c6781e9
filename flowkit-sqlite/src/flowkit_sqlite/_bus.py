"""The bus in an SQLite file."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from flowkit.adapters import Lifecycle
from flowkit.config import CommonConfig
from flowkit.errors import BusError, FlowKitError
from flowkit.protocols import CheckResult, Delivery, Message, Place, TopicSpec
from flowkit_sqlite._acknowledgements import is_owned
from flowkit_sqlite._address import file_of
from flowkit_sqlite._bus_queries import check_topics, outstanding
from flowkit_sqlite._bus_schema import create_tables
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._consumer import Consumer
from flowkit_sqlite._database import Database
from flowkit_sqlite._errors import BusErrors
from flowkit_sqlite._fetching import Everything
from flowkit_sqlite._group_member import GroupMember
from flowkit_sqlite._inbox import Inbox
from flowkit_sqlite._jobs import is_brief
from flowkit_sqlite._messages import check_size, dead_letter
from flowkit_sqlite._publication import store_messages
from flowkit_sqlite._subscription import SqliteSubscription
from flowkit_sqlite._topics import Topic, create_topics, get_topics

CHECK_FILE = "make the file readable and writable for this user"


class SqliteBus:
    """A :class:`~flowkit.protocols.Bus` in a file, at ``sqlite:///path.db``."""

    places = key_affinity = replay_for_new_groups = True

    def __init__(self, address: str, config: CommonConfig | None = None) -> None:
        """Check address and settings; the file is opened when the bus is entered.

        Raises:
            ConfigError: the address, or a field of ``config.options["sqlite"]``, is wrong.
        """
        common = config or CommonConfig()
        self._config = SqliteConfig.from_options(common.options.get("sqlite", {}))
        self._database = Database.at(file_of(address), self._config)
        self._dead_letter_topic = common.dead_letter_topic
        self._life = Lifecycle[Database]("this bus", error=BusError)
        self._topics: dict[str, Topic] = {}
        self.max_message_bytes = self._config.max_message_bytes

    async def __aenter__(self) -> Self:
        self._life.check_not_open()
        with BusErrors():
            await self._database.__aenter__()
            try:
                await self._database.write(create_tables)
                self._life.open(self._database)
            except BaseException:
                await self._database.__aexit__()
                raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        database = self._life.close()
        if database is not None:
            await database.__aexit__(*exc)

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        if any(spec.name not in self._topics for spec in topics):
            partitions = self._config.partitions
            with BusErrors():
                await self._life.resource.write(
                    lambda db: create_topics(db, topics, partitions), durable=False, brief=True
                )

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if not messages:
            return []
        size = 0
        for message in messages:
            check_size(message, self.max_message_bytes)
            size += len(message.value)
        return await self._store(
            lambda db: messages,
            durable=any(message.durable for message in messages),
            brief=is_brief(len(messages), size),
        )

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        with BusErrors():
            return await self._life.resource.read(
                lambda db: outstanding(db, topic, group), brief=True
            )

    @asynccontextmanager
    async def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AsyncIterator[SqliteSubscription]:
        found = list((await self._find(topics)).values())
        inbox = Inbox(
            max_unacked=None if group is None else max_unacked, capacity=self._config.prefetch
        )
        consumer: Consumer
        if group is None:
            consumer = Consumer(self._database, inbox, Everything(found))
        else:
            consumer = GroupMember(self._database, self._config, inbox, group, found)
        with BusErrors():
            await consumer.start()
        try:
            yield SqliteSubscription(inbox, consumer, self._park)
        finally:
            await consumer.stop()

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        wanted = {spec.name: spec for spec in [*topics, TopicSpec(self._dead_letter_topic)]}
        try:
            results = await self._life.resource.read(lambda db: check_topics(db, wanted.values()))
        except FlowKitError as error:
            return [CheckResult("bus", False, error.fault, error.remedy or CHECK_FILE)]
        return [CheckResult("bus", True, f"the file {self._database.path}"), *results]

    async def _find(self, names: Sequence[str]) -> dict[str, Topic]:
        with BusErrors():
            found = await self._life.resource.read(
                lambda db: get_topics(db, names, self._topics), brief=True
            )
        self._topics |= found
        return found

    async def _store(
        self,
        choose: Callable[[sqlite3.Connection], Sequence[Message]],
        *,
        durable: bool = False,
        brief: bool = False,
    ) -> list[Place]:
        """Store the messages that ``choose`` returns in the transaction. Return their places."""
        database = self._life.resource

        def job(db: sqlite3.Connection) -> tuple[dict[str, Topic], list[Place]]:
            messages = choose(db)
            topics = get_topics(db, {message.topic for message in messages}, self._topics)
            places, stored = store_messages(
                db, messages, topics, now=time.time(), broadcast_kept=self._config.broadcast_kept
            )
            for each in stored:
                database.notify(f"topic:{each.topic}", each)
            return topics, places

        with BusErrors():
            topics, places = await database.write(job, durable=durable, brief=brief)
        self._topics |= topics
        return places

    async def _park(self, deliveries: Sequence[Delivery], reason: str) -> None:
        letters = [
            (each.handle.partition, dead_letter(each, self._dead_letter_topic, reason))
            for each in deliveries
        ]
        await self._store(
            lambda db: [letter for partition, letter in letters if is_owned(db, partition)]
        )
