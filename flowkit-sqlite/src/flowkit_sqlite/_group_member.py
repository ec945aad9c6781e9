"""Member of a group: its lease, its acknowledgements and its share of the partitions."""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence

from flowkit.errors import StoreError
from flowkit_sqlite._acknowledgements import delete_expired, store_changes
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._consumer import Consumer
from flowkit_sqlite._database import Database
from flowkit_sqlite._errors import translate
from flowkit_sqlite._fetching import Share
from flowkit_sqlite._groups import Member, join, leave, renew
from flowkit_sqlite._inbox import Inbox
from flowkit_sqlite._topics import Topic

logger = logging.getLogger(__name__)

RENEWALS = 3
"""Renewals of a lease in its time."""
RETENTION_INTERVAL_SEC = 60.0


class GroupMember(Consumer):
    """Consumer that shares the messages of its topics with the other members of a group."""

    def __init__(
        self,
        database: Database,
        config: SqliteConfig,
        inbox: Inbox,
        group: str,
        topics: Sequence[Topic],
    ) -> None:
        self._channel = f"group:{group}"
        self._config = config
        self._member = Member(secrets.randbits(62), group, tuple(topics), config.lease_sec)
        source = Share(topics, group, self._member.member_id)
        super().__init__(database, inbox, source, self._channel)
        self._acknowledged = asyncio.Event()
        self._expire_at = time.monotonic() + RETENTION_INTERVAL_SEC

    async def start(self) -> None:
        """Become a member, and start to read. If that is cancelled, leave again."""

        def job(db: sqlite3.Connection) -> None:
            join(db, self._member, time.time())
            self.database.notify(self._channel)

        try:
            await self.database.write(job, durable=False)
            await super().start()
        except BaseException:
            self._post_leave()
            raise
        self.run(self._renew_forever())
        self.run(self._store_forever())

    async def stop(self) -> None:
        """Store acknowledgements, and give everything else back to the group at once."""
        left = self._post_leave()
        await super().stop()
        if left is not None:
            # The job is not cancelled where this wait is.
            await asyncio.wait([left])

    def acknowledged(self) -> None:
        self._acknowledged.set()

    def _post_leave(self) -> "asyncio.Future[None] | None":
        """Submit the last change of the member, and end its assignment."""
        changes = self.inbox.changes()
        self.inbox.assign({})

        def job(db: sqlite3.Connection) -> None:
            store_changes(db, changes)
            leave(db, self._member)
            self.database.notify(self._channel)

        try:
            left = self.database.post(job, durable=False)
        except StoreError as error:
            self._log_leaving(error)
            return None
        left.add_done_callback(self._log_failed_leaving)
        return left

    def _log_failed_leaving(self, left: "asyncio.Future[None]") -> None:
        if not left.cancelled() and (error := left.exception()) is not None:
            self._log_leaving(translate(error, self.database.path) or error)

    def _log_leaving(self, error: BaseException) -> None:
        logger.warning(
            "A member could not leave group %s; its messages go to others when its lease is over"
            " (%g s): %s",
            self._member.group,
            self._member.lease_sec,
            error,
            extra={"action": "leave_failed"},
        )

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._member.lease_sec / RENEWALS)
            try:
                if await self.database.write(self._renew, durable=False):
                    self.look()
            except StoreError as error:
                self.trouble(error)

    def _renew(self, db: sqlite3.Connection) -> bool:
        now = time.time()
        has_changed = renew(db, self._member, now)
        if has_changed:
            self.database.notify(self._channel)
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + RETENTION_INTERVAL_SEC
            delete_expired(db, now - self._config.retention_sec)
        return has_changed

    async def _store_forever(self) -> None:
        while True:
            await self._acknowledged.wait()
            await asyncio.sleep(self._config.ack_interval_sec)
            self._acknowledged.clear()
            try:
                await self._store()
            except StoreError as error:
                self.trouble(error)
                self._acknowledged.set()

    async def _store(self) -> None:
        changes = self.inbox.changes()
        if not changes:
            return
        stored = await self.database.write(
            lambda db: store_changes(db, changes), durable=False, brief=True
        )
        for change in stored:
            change.progress.stored(change)
        if len(stored) < len(changes):
            # A partition went to another member, and its notification has not arrived.
            self.look()
