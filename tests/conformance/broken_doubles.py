"""Stores and buses with one defect each, run through the suites by ``test_the_suites_catch_broken_doubles``."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from flowkit.protocols import (
    ArtifactRecord,
    ArtifactStore,
    Commit,
    DeadLetter,
    Delivery,
    Message,
    Place,
    Subscription,
    TaskQuery,
    TaskRecord,
)
from flowkit_testing import InMemoryArtifactStore, InMemoryBus, InMemoryStore
from flowkit_testing.broker import Broker
from flowkit_testing.conformance import ArtifactStoreConformance, BusConformance, StoreConformance

# ---------------------------------------------------------------- stores


class BrokenStore(StoreConformance):
    broken: ClassVar[type[InMemoryStore]]
    patience = 0.3
    quiet_sec = 0.02
    oversize_bytes = None

    @pytest.fixture
    async def store(self) -> AsyncIterator[InMemoryStore]:
        async with self.broken() as store:
            yield store

    @pytest.fixture
    def open_store(self, store: InMemoryStore) -> Callable[[], InMemoryStore]:
        return lambda: store


class TestAcceptsStaleCommits(BrokenStore):
    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            rows = self._tasks.rows
            return await super().commit(
                [dataclasses.replace(c, expected_version=rows[c.task_id].version) if c.task_id in rows else c for c in commits]
            )


class TestAppliesHalfOfARefusedCommit(BrokenStore):
    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            for commit in commits:
                if commit.task_id in self._tasks.rows:
                    self._tasks.rows[commit.task_id].parts.update(commit.put)
            return await super().commit(commits)


class TestRefusesAllWhenOneIsStale(BrokenStore):
    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            rows = self._tasks.rows
            if all(c.task_id in rows and rows[c.task_id].version == c.expected_version for c in commits):
                return await super().commit(commits)
            return [False] * len(commits)


class TestNeverDropsParts(BrokenStore):
    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            return await super().commit([dataclasses.replace(commit, drop=()) for commit in commits])


class TestForgetsIdempotencyKeys(BrokenStore):
    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            self._tasks._keys.clear()
            return await super().create(records)


class TestCreatesOverWhatIsThere(BrokenStore):
    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            for record in records:
                self._tasks.rows.pop(record.header.task_id, None)
            return await super().create(records)


class TestSharesWhatItIsGiven(BrokenStore):
    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            ids = await super().create(records)
            for record in records:
                if record.header.task_id in self._tasks.rows:
                    self._tasks.rows[record.header.task_id].parts = record.parts  # type: ignore[assignment]
            return ids


class TestSharesWhatItGives(BrokenStore):
    class broken(InMemoryStore):
        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            return {
                task_id: dataclasses.replace(task, parts=self._tasks.rows[task_id].parts)
                for task_id, task in (await super().load(task_ids)).items()
            }


class TestLoadsWhatWasCreatedOnly(BrokenStore):
    class broken(InMemoryStore):
        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            tasks = await super().load(task_ids)
            return {task_id: dataclasses.replace(task, header=self._tasks.rows[task_id].created) for task_id, task in tasks.items()}


class TestLastArchivedPartWins(BrokenStore):
    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            for commit in commits:
                for part in commit.archive:
                    archive = self._tasks.rows[commit.task_id]._archive if commit.task_id in self._tasks.rows else None
                    if archive is not None:
                        archive.pop(part.name, None)
            return await super().commit(commits)


class TestLosesWakeUps(BrokenStore):
    class broken(InMemoryStore):
        def _wake(self, task_id: str) -> None:
            pass


class TestWakesOneOfSeveral(BrokenStore):
    class broken(InMemoryStore):
        def _wake(self, task_id: str) -> None:
            for event in list(self._waiting.pop(task_id, ()))[:1]:
                event.set()


class TestPagesByCounting(BrokenStore):
    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            start = int(query.after or 0)
            found, _ = await super().list_tasks(dataclasses.replace(query, after=None, limit=1_000_000))
            end = start + query.limit
            return found[start:end], str(end) if end < len(found) else None


class TestListsTheOldestFirst(BrokenStore):
    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            found, after = await super().list_tasks(query)
            return found[::-1], after


class TestOneMatchingLabelIsEnough(BrokenStore):
    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            return await super().list_tasks(dataclasses.replace(query, labels=dict([*query.labels.items()][:1])))


class TestTheLatestIsDueFirst(BrokenStore):
    class broken(InMemoryStore):
        async def due(self, *, before: float, limit: int) -> Sequence[str]:
            return (await super().due(before=before, limit=limit))[::-1]


class TestWhatWasLookedAtIsNoLongerDue(BrokenStore):
    class broken(InMemoryStore):
        async def due(self, *, before: float, limit: int) -> Sequence[str]:
            found = await super().due(before=before, limit=limit)
            for task_id in found:
                self._tasks._wakes.set(task_id, None)
            return found


class TestPurgeLeavesArtifacts(BrokenStore):
    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self._artifacts = InMemoryArtifactStore()


class TestParksOverWhatIsThere(BrokenStore):
    class broken(InMemoryStore):
        async def park(self, letters: Sequence[DeadLetter]) -> None:
            await self.drop_dead_letters([letter.letter_id for letter in letters])
            await super().park(letters)


# ---------------------------------------------------------------- artifacts


class BrokenArtifacts(ArtifactStoreConformance):
    broken: ClassVar[type[InMemoryArtifactStore]]
    patience = 0.3
    quiet_sec = 0.02
    oversize_bytes = 9_000_000

    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        return self.broken()


class TestAcceptsAUidTwice(BrokenArtifacts):
    class broken(InMemoryArtifactStore):
        def _put(self, record: ArtifactRecord) -> bool:
            log = self._log(record.stream)
            if log is not None:
                log.uids.clear()
            return super()._put(record)


class TestDuplicatesUseUpPositions(BrokenArtifacts):
    class broken(InMemoryArtifactStore):
        attempts = 0

        def _put(self, record: ArtifactRecord) -> bool:
            self.attempts += 1
            new = super()._put(record)
            log = self._log(record.stream)
            if new and log is not None:
                log.records[-1] = dataclasses.replace(log.records[-1], position=self.attempts)
            return new


class TestStoresWhatPrecedesTheOversize(BrokenArtifacts):
    class broken(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            return [(await super(type(self), self).put([record]))[0] for record in records]


class TestGenerationsAreOne(BrokenArtifacts):
    class broken(InMemoryArtifactStore):
        def _put(self, record: ArtifactRecord) -> bool:
            return super()._put(dataclasses.replace(record, stream=dataclasses.replace(record.stream, generation=0)))


class TestTheCursorOfAScanIsTheTimeOnly(BrokenArtifacts):
    class broken(InMemoryArtifactStore):
        async def scan(
            self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
        ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
            return await super().scan(task_id, after=None if after is None else (after[0], "9"), limit=limit)


# ---------------------------------------------------------------- buses


class BrokenBus(BusConformance):
    broken: ClassVar[type[InMemoryBus]] = InMemoryBus
    subscription: ClassVar[type["Through"] | None] = None
    patience = 0.3
    quiet_sec = 0.02

    @pytest.fixture
    async def bus(self) -> AsyncIterator[InMemoryBus]:
        async with self.make() as bus:
            yield bus

    def make(self) -> InMemoryBus:
        if self.subscription is None:
            return self.broken()
        through = self.subscription

        class Bus(InMemoryBus):
            @asynccontextmanager
            async def _subscribe(self, topics: Sequence[str], group: str | None, max_unacked: int) -> AsyncIterator[Subscription]:
                async with super()._subscribe(topics, group, max_unacked) as subscription:
                    yield through(subscription)

        return Bus()


class Through:
    """A subscription that hands everything through, for a defect to be put into."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        return await self.inner.receive(max_messages=max_messages)

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        await self.inner.ack(deliveries)

    async def release(self, deliveries: Collection[Delivery]) -> None:
        await self.inner.release(deliveries)

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        await self.inner.reject(deliveries, reason)


class TestAnAckCoversWhatWasBefore(BrokenBus):
    class subscription(Through):
        def __init__(self, inner: Any) -> None:
            super().__init__(inner)
            self.seen: list[Delivery] = []

        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            self.seen += found
            return found

        async def ack(self, deliveries: Collection[Delivery]) -> None:
            for last in deliveries:
                before = [item for item in self.seen if item.partition == last.partition and item.position <= last.position]
                await super().ack(before)


class TestReceivingAcknowledges(BrokenBus):
    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            await self.inner.ack(found)
            return found


class TestAcksAreForgotten(BrokenBus):
    class subscription(Through):
        async def ack(self, deliveries: Collection[Delivery]) -> None:
            pass


class TestReleasedMessagesAreGone(BrokenBus):
    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            await self.inner.ack(deliveries)


class TestRejectedMessagesAreNotParked(BrokenBus):
    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            await self.inner.ack(deliveries)


class TestRejectedMessagesComeAgain(BrokenBus):
    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            await self.inner.reject([dataclasses.replace(delivery, handle=None) for delivery in deliveries], reason)


class TestACancelledReceiveLosesMessages(BrokenBus):
    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            await anyio.lowlevel.checkpoint()
            return found


class TestReceiveComesBackEmpty(BrokenBus):
    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            with anyio.move_on_after(0.001):
                return await super().receive(max_messages=max_messages)
            return []


class TestMoreThanAskedForComes(BrokenBus):
    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            return await super().receive(max_messages=max_messages * 2)


class TestPublishingReorders(BrokenBus):
    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return (await super().publish(messages[::-1]))[::-1]


class TestSendsWhatPrecedesTheOversize(BrokenBus):
    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return [place for message in messages for place in await super().publish([message])]


class TestHeadersAreLost(BrokenBus):
    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return await super().publish([dataclasses.replace(message, headers={}) for message in messages])


class TestKeysArePutAnywhere(BrokenBus):
    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return await super().publish([dataclasses.replace(message, key=f"{number}") for number, message in enumerate(messages)])


class TestPlacesAreThoseOfAnotherOrder(BrokenBus):
    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return (await super().publish(messages))[::-1]


class TestWhatIsUnderWayCountsAsAcknowledged(BrokenBus):
    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
            cursors = self.broker.groups[group].cursors.get(topic, []) if group in self.broker.groups else []
            found = await super().outstanding(topic, group)
            return {**found, **{cursor.log.number: (cursor.next, cursor.log.end) for cursor in cursors}}


class TestWhatLiesBehindAGapCountsAsAcknowledged(BrokenBus):
    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
            cursors = self.broker.groups[group].cursors.get(topic, []) if group in self.broker.groups else []
            found = await super().outstanding(topic, group)
            return {**found, **{c.log.number: (max(c.acked, default=c.committed - 1) + 1, c.log.end) for c in cursors}}


class TestNothingIsOutstandingForAGroupThatDoesNotExist(BrokenBus):
    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
            found = await super().outstanding(topic, group)
            return found if group in self.broker.groups else {number: (end, end) for number, (_, end) in found.items()}


class TestTheFurthestGroupCountsForAll(BrokenBus):
    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
            views = [await super().outstanding(topic, name) for name in [group, *self.broker.groups]]
            return {number: max(view[number] for view in views) for number in views[0]}


class TestTheEndIsTooEarly(BrokenBus):
    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
            found = await super().outstanding(topic, group)
            return {number: (first, max(first, end - 1)) for number, (first, end) in found.items()}


class TestTheWindowIsIgnored(BrokenBus):
    class broken(InMemoryBus):
        def subscribe(self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000) -> Any:
            return super().subscribe(topics, group=group, max_unacked=1000)


class TestAGroupStartsWithTheNewest(BrokenBus):
    class broken(InMemoryBus):
        def subscribe(self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000) -> Any:
            for topic in topics:
                for log in self.broker.topics[topic].partitions:
                    if not log.cursors:
                        log.start = log.end
                        log.entries.clear()
            return super().subscribe(topics, group=group, max_unacked=max_unacked)


class TestMembersDoNotShare(BrokenBus):
    class broken(InMemoryBus):
        members = 0

        def subscribe(self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000) -> Any:
            self.members += 1
            return super().subscribe(topics, group=group and f"{group}-{self.members}", max_unacked=max_unacked)


class TestListenersHearTheOldToo(BrokenBus):
    class broken(InMemoryBus):
        listeners = 0

        def subscribe(self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000) -> Any:
            self.listeners += 1
            for topic in topics:
                self.broker.topics[topic].broadcast = False
            return super().subscribe(topics, group=group or f"listener-{self.listeners}", max_unacked=max_unacked)


class TestWhoLeavesTakesItsMessagesAlong(BrokenBus):
    class broken(InMemoryBus):
        def __init__(self) -> None:
            class Forgetful(Broker):
                def leave(self, member: Any) -> None:
                    for cursors in member.group.cursors.values():
                        for cursor in cursors:
                            cursor.out.clear()
                    super().leave(member)

            super().__init__(broker=Forgetful())
