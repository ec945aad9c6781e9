"""Stores and buses with one defect each.

``test_the_suites_catch_broken_doubles`` runs the suites on them. A double fails in the test
``caught_by`` by an assertion of the suite, or by an error of the type ``caught_as``.
"""

import dataclasses
import fnmatch
import json
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf, nextafter
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from flowkit.errors import BusError, BusUnavailable, RecordTooLarge, StoreUnavailable
from flowkit.protocols import (
    ArtifactRecord,
    ArtifactStore,
    Commit,
    Delivery,
    KeyedRecord,
    Message,
    Place,
    RecordChange,
    RecordDeletion,
    Stream,
    Subscription,
    TaskHeader,
    TaskQuery,
    TaskRecord,
    TopicSpec,
)
from flowkit_testing import InMemoryArtifactStore, InMemoryBus, InMemoryStore
from flowkit_testing._broker import Broker, acknowledge
from flowkit_testing._groups import PartitionLog
from flowkit_testing._keyed_records import InMemoryRecordStore
from flowkit_testing.conformance import (
    ArtifactStoreConformance,
    BusConformance,
    Opener,
    StoreConformance,
)
from flowkit_testing.conformance._artifact_processes import ArtifactProcesses
from flowkit_testing.conformance._store_archive import Archiving, Purging
from flowkit_testing.conformance._store_base import StoreSuite
from flowkit_testing.conformance._store_cancellation import Cancelling
from flowkit_testing.conformance._store_commits import Committing, Waiting
from flowkit_testing.conformance._store_creation import Creating
from flowkit_testing.conformance._store_identity import Identity
from flowkit_testing.conformance._store_keyed_records import KeyedRecords
from flowkit_testing.conformance._store_namespaces import Namespaces
from flowkit_testing.conformance._store_processes import Processes
from tests.conformance.file_store import (
    FileStore,
    HearsItselfOnly,
    LeavesGaps,
    TearsChanges,
    TearsCommits,
    WithoutALock,
    WritesAtTheEnd,
)
from tests.conformance.memory_failures import FailsInMemory

BRIEF = 0.3
"""Time limit for doubles that fail because an event does not come in time.

The other doubles have the suite's own limit, which is long.
"""


def nfc(text: str) -> str:
    """Return a text in a normal form of Unicode, as some databases and file systems do."""
    return unicodedata.normalize("NFC", text)


# ---------------------------------------------------------------- stores


class Broken(StoreSuite):
    """The fixtures of a double, which also inherits the part of the suite that it runs."""

    broken: ClassVar[type[InMemoryStore]] = InMemoryStore
    records: ClassVar[type[InMemoryRecordStore]] = InMemoryRecordStore
    quiet_sec = 0.02
    oversize_bytes = None

    @pytest.fixture
    async def store(self) -> AsyncIterator[InMemoryStore]:
        async with self.broken() as store:
            if self.records is not InMemoryRecordStore:
                store.records = store._records = self.records(max_record_bytes=10_000_000)
            yield store

    @pytest.fixture
    def open_store(self, store: InMemoryStore) -> Callable[[], InMemoryStore]:
        return lambda: store

    @pytest.fixture
    def open_namespace(self) -> Callable[[str], InMemoryStore]:
        stores: dict[str, InMemoryStore] = {}
        return lambda namespace: stores.setdefault(namespace, self.broken())


class BrokenStore(Broken, StoreConformance):
    pass


class TestAcceptsStaleCommits(BrokenStore):
    caught_by = "test_a_commit_of_another_version_is_refused_and_leaves_no_trace"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            rows = self._tasks.rows
            return await super().commit(
                [
                    dataclasses.replace(c, expected_version=rows[c.task_id].version)
                    if c.task_id in rows
                    else c
                    for c in commits
                ]
            )


class TestAppliesHalfOfARefusedCommit(BrokenStore):
    caught_by = "test_a_commit_of_another_version_is_refused_and_leaves_no_trace"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            for commit in commits:
                if commit.task_id in self._tasks.rows:
                    self._tasks.rows[commit.task_id].parts.update(commit.put)
            return await super().commit(commits)


class TestRefusesAllWhenOneIsStale(BrokenStore):
    caught_by = "test_the_commits_of_different_tasks_are_independent"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            rows = self._tasks.rows
            if all(
                c.task_id in rows and rows[c.task_id].version == c.expected_version for c in commits
            ):
                return await super().commit(commits)
            return [False] * len(commits)


class TestNeverDropsParts(BrokenStore):
    caught_by = "test_a_part_moves_to_the_archive_in_one_commit"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            return await super().commit(
                [dataclasses.replace(commit, drop=()) for commit in commits]
            )


class TestForgetsIdempotencyKeys(BrokenStore):
    caught_by = "test_idempotency_keys_are_compared_exactly"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            self._tasks._keys.clear()
            return await super().create(records)


class TestCreatesOverWhatIsThere(BrokenStore):
    caught_by = "test_an_id_is_created_once"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            for record in records:
                self._tasks.rows.pop(record.header.task_id, None)
            return await super().create(records)


class TestSharesWhatItIsGiven(BrokenStore):
    caught_by = "test_what_the_creator_changes_afterwards_is_not_seen"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            ids = await super().create(records)
            for record in records:
                if record.header.task_id in self._tasks.rows:
                    self._tasks.rows[record.header.task_id].parts = record.parts  # type: ignore[assignment]
            return ids


class TestSharesWhatItGives(BrokenStore):
    caught_by = "test_a_loaded_task_does_not_change_with_later_commits"

    class broken(InMemoryStore):
        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            return {
                task_id: dataclasses.replace(task, parts=self._tasks.rows[task_id].parts)
                for task_id, task in (await super().load(task_ids)).items()
            }


class TestLoadsWhatWasCreatedOnly(BrokenStore):
    caught_by = "test_a_commit_changes_what_it_says_and_nothing_else"

    class broken(InMemoryStore):
        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            tasks = await super().load(task_ids)
            return {
                task_id: dataclasses.replace(task, header=self._tasks.rows[task_id].created)
                for task_id, task in tasks.items()
            }


class TestLastArchivedPartWins(BrokenStore):
    caught_by = "test_of_two_archived_parts_the_higher_rank_stays"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            for commit in commits:
                for part in commit.archive:
                    archive = (
                        self._tasks.rows[commit.task_id]._archive
                        if commit.task_id in self._tasks.rows
                        else None
                    )
                    if archive is not None:
                        archive.pop(part.name, None)
            return await super().commit(commits)


class TestLosesWakeUps(BrokenStore):
    caught_by = "test_a_commit_wakes_all_waiters"
    patience = BRIEF

    class broken(InMemoryStore):
        def _wake(self, task_id: str) -> None:
            pass


class TestWakesOneOfSeveral(BrokenStore):
    caught_by = "test_a_commit_wakes_all_waiters"
    patience = BRIEF

    class broken(InMemoryStore):
        def _wake(self, task_id: str) -> None:
            for woken in list(self._waiting.pop(task_id, ()))[:1]:
                woken.set_result(None)


class TestPagesByCounting(BrokenStore):
    caught_by = "test_tasks_created_between_two_pages_neither_repeat_nor_hide_others"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            start = int(query.after or 0)
            found, _ = await super().list_tasks(
                dataclasses.replace(query, after=None, limit=1_000_000)
            )
            end = start + query.limit
            return found[start:end], str(end) if end < len(found) else None


class TestListsTheOldestFirst(BrokenStore):
    caught_by = "test_the_newest_comes_first"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            found, after = await super().list_tasks(query)
            return found[::-1], after


class TestIgnoresWhichEndIsAskedFor(BrokenStore):
    caught_by = "test_the_oldest_comes_first_if_that_is_asked_for"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            return await super().list_tasks(dataclasses.replace(query, oldest_first=False))


class TestOneMatchingLabelIsEnough(BrokenStore):
    caught_by = "test_tasks_are_found_by_labels"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            return await super().list_tasks(
                dataclasses.replace(query, labels=dict([*query.labels.items()][:1]))
            )


class TestOneMatchingTagIsEnough(BrokenStore):
    caught_by = "test_tasks_are_found_by_tags"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            return await super().list_tasks(dataclasses.replace(query, tags=query.tags[:1]))


class TestFindsByTheTagsOfTheCreation(BrokenStore):
    caught_by = "test_tasks_are_found_by_the_tags_of_their_last_commit"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            change = self._tasks._tags.change
            self._tasks._tags.change = (  # type: ignore[method-assign]
                lambda age, before, after: change(age, before, after) if not before else None
            )


class TestForgetsTagsInCommits(BrokenStore):
    caught_by = "test_tasks_are_found_by_the_tags_of_their_last_commit"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            rows = self._tasks.rows
            return await super().commit(
                [
                    dataclasses.replace(c, tags=rows[c.task_id].tags | c.tags)
                    if c.task_id in rows
                    else c
                    for c in commits
                ]
            )


class TestTheBoundsOfATimeRangeCount(BrokenStore):
    caught_by = "test_the_oldest_comes_first_if_that_is_asked_for"

    class broken(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            after, before = query.created_after, query.created_before
            wider = dataclasses.replace(
                query,
                created_after=None if after is None else nextafter(after, -inf),
                created_before=None if before is None else nextafter(before, inf),
            )
            return await super().list_tasks(wider)


class TestTheLatestIsDueFirst(BrokenStore):
    caught_by = "test_the_earliest_comes_first"

    class broken(InMemoryStore):
        async def due(self, *, before: float, limit: int) -> Sequence[str]:
            return (await super().due(before=before, limit=limit))[::-1]


class TestWhatWasLookedAtIsNoLongerDue(BrokenStore):
    caught_by = "test_tasks_are_due_from_their_time_on"

    class broken(InMemoryStore):
        async def due(self, *, before: float, limit: int) -> Sequence[str]:
            found = await super().due(before=before, limit=limit)
            for task_id in found:
                self._tasks._wakes.set(task_id, None)
            return found


class TestPurgeLeavesArtifacts(BrokenStore):
    caught_by = "test_a_purged_task_is_gone_with_its_archive_and_artifacts"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self._artifacts = InMemoryArtifactStore()


class TestPutsOverWhatIsThere(Broken, KeyedRecords):
    caught_by = "test_a_record_that_exists_is_not_put_as_a_new_one"

    class records(InMemoryRecordStore):
        def _has(self, wanted: KeyedRecord | RecordDeletion) -> bool:
            return wanted.revision == "" or super()._has(wanted)


class TestIgnoresTheRevisionsOfDeletions(Broken, KeyedRecords):
    caught_by = "test_a_record_is_deleted_in_its_revision"

    class records(InMemoryRecordStore):
        def _has(self, wanted: KeyedRecord | RecordDeletion) -> bool:
            if isinstance(wanted, RecordDeletion):
                wanted = dataclasses.replace(wanted, revision=None)
            return super()._has(wanted)


class TestDeletesWhatIsMissing(Broken, KeyedRecords):
    caught_by = "test_a_missing_record_is_not_deleted"

    class records(InMemoryRecordStore):
        async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
            applied = await super().change(changes)
            return [each or not change.put for each, change in zip(applied, changes, strict=True)]


class TestAppliesHalfOfARefusedChange(Broken, KeyedRecords):
    caught_by = "test_a_refused_change_leaves_all_records_as_they_were"

    class records(InMemoryRecordStore):
        def _apply(self, change: RecordChange) -> bool:
            parts = [RecordChange(change.op_id, [record]) for record in change.put]
            parts += [RecordChange(change.op_id, delete=[each]) for each in change.delete]
            return all(map(super()._apply, parts))


class TestRefusesAllChangesOfACall(Broken, KeyedRecords):
    caught_by = "test_the_changes_of_a_call_are_independent"

    class records(InMemoryRecordStore):
        async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
            applied = await super().change(changes)
            return [all(applied)] * len(changes)


class TestSharesKeyedRecords(Broken, KeyedRecords):
    caught_by = "test_what_the_caller_changes_afterwards_is_not_seen"

    class records(InMemoryRecordStore):
        async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
            records = self._of(kind).records
            return {key: records[key] for key in keys if key in records}


class TestKeysAreSortedAsInUtf16(Broken, KeyedRecords):
    caught_by = "test_records_are_scanned_in_the_order_of_their_keys"

    class records(InMemoryRecordStore):
        async def scan(
            self, kind: str, *, limit: int = 100, last: bool = False, **place: Any
        ) -> Sequence[KeyedRecord]:
            found = await super().scan(kind, limit=1_000_000, **place)
            return sorted(found, key=lambda each: each.key.encode("utf-16-be"), reverse=last)[
                :limit
            ]


class TestThePrefixIsForgottenBackwards(Broken, KeyedRecords):
    caught_by = "test_records_are_scanned_by_prefix_and_place"

    class records(InMemoryRecordStore):
        async def scan(
            self, kind: str, *, prefix: str = "", last: bool = False, **place: Any
        ) -> Sequence[KeyedRecord]:
            return await super().scan(kind, prefix="" if last else prefix, last=last, **place)


class TestPagesOfRecordsRepeatTheirCursor(Broken, KeyedRecords):
    caught_by = "test_records_are_scanned_page_by_page"

    class records(InMemoryRecordStore):
        async def scan(
            self, kind: str, *, after: str = "", limit: int = 100, last: bool = False, **place: Any
        ) -> Sequence[KeyedRecord]:
            found = await super().scan(kind, limit=1_000_000, last=last, **place)
            return [
                each
                for each in found
                if not after or (each.key <= after if last else each.key >= after)
            ][:limit]


class TestOldTimesOfRecordsStay(Broken, KeyedRecords):
    caught_by = "test_a_changed_record_is_due_at_its_new_time"

    class records(InMemoryRecordStore):
        def _put(self, record: KeyedRecord) -> None:
            before = self._of(record.kind).records.get(record.key)
            super()._put(record)
            if before is not None:
                self._of(record.kind).times.set(record.key, before.due_at)


class TestDueRecordsComeByTheirKeys(Broken, KeyedRecords):
    caught_by = "test_due_records_come_in_the_order_of_their_times"

    class records(InMemoryRecordStore):
        async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
            found = await super().due(kind, before=before, limit=1_000_000)
            return sorted(found, key=lambda each: each.key)[:limit]


class TestAPurgeLeavesKeyedRecords(Broken, KeyedRecords):
    caught_by = "test_a_purge_deletes_the_records_of_its_tasks"

    class records(InMemoryRecordStore):
        def forget(self, task_id: str) -> None:
            pass


class TestACancelledChangeIsHalfApplied(Broken, Cancelling):
    caught_by = "test_a_cancelled_change_of_keyed_records_is_applied_whole_or_not_at_all"

    class records(InMemoryRecordStore):
        async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
            for change in changes:
                if change.put and all(map(self._has, change.put)):
                    first, *rest = change.put
                    await super().change([RecordChange(change.op_id, [first])])
                    await anyio.sleep(0.002)
                    return await super().change([RecordChange(change.op_id, rest)])
            return await super().change(changes)


class TestWaitsForTheEndAsForAnyChange(Broken, Waiting):
    caught_by = "test_a_wait_for_the_end_ignores_other_changes"

    class broken(InMemoryStore):
        async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
            await super().wait_for_change(task_id, version)


class TestNeverTellsAnEnd(Broken, Waiting):
    caught_by = "test_a_wait_for_an_end_that_has_happened_returns_at_once"
    patience = BRIEF

    class broken(InMemoryStore):
        async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
            if ended and (await self.load([task_id])).get(task_id) is not None:
                await anyio.sleep_forever()
            await super().wait_for_change(task_id, version)


class TestTellsAnOldEnd(Broken, Waiting):
    caught_by = "test_a_wait_for_the_end_waits_for_a_later_version_than_the_given_one"

    class broken(InMemoryStore):
        async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
            await super().wait_for_change(task_id, 0 if ended else version, ended=ended)


class LimitedStore(Broken, Committing):
    oversize_bytes = 2_000_001


class TestCommitsAboveTheLimit(LimitedStore):
    caught_by = "test_a_commit_above_the_limit_is_refused_and_leaves_the_record_as_it_was"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__(max_record_bytes=2_000_000, max_part_bytes=1_000_000_000)


class TestRefusesACommitAboveTheLimitAsStale(LimitedStore):
    caught_by = "test_a_commit_above_the_limit_is_refused_and_leaves_the_record_as_it_was"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__(max_record_bytes=2_000_000)

        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            try:
                return await super().commit(commits)
            except RecordTooLarge:
                return [False] * len(commits)


class TestAppliesHalfOfACommitAboveTheLimit(LimitedStore):
    caught_by = "test_a_commit_above_the_limit_is_refused_and_leaves_the_record_as_it_was"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__(max_record_bytes=2_000_000)

        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            fitting = [
                part
                for commit in commits
                for part in commit.put.items()
                if len(part[1]) < self.max_part_bytes
            ]
            try:
                return await super().commit(commits)
            except RecordTooLarge:
                self._tasks.rows[commits[0].task_id].parts.update(fitting)
                raise


class TestConnectionsHearThemselvesOnly(Broken, Waiting):
    caught_by = "test_a_commit_over_another_connection_wakes_a_waiter"
    patience = BRIEF
    broken = InMemoryStore

    @pytest.fixture
    def open_store(self, store: InMemoryStore) -> Callable[[], InMemoryStore]:
        def another() -> InMemoryStore:
            other = InMemoryStore()
            other.__dict__.update({**store.__dict__, "_waiting": {}})
            return other

        return another


class TestAPurgeTellsNoWaiter(Broken, Waiting):
    caught_by = "test_a_wait_for_a_task_that_is_purged_ends"
    patience = BRIEF

    class broken(InMemoryStore):
        async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
            waiting, self._waiting = self._waiting, {}
            try:
                return await super().purge(finished_before=finished_before, limit=limit)
            finally:
                self._waiting = waiting


class TestAPurgeLeavesTheArchive(Broken, Purging):
    caught_by = "test_nothing_of_a_purged_task_is_in_a_new_one_of_its_id"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.left: dict[str, Any] = {}

        async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
            self.left |= {
                task_id: row._archive
                for task_id, row in self._tasks.rows.items()
                if row.finished_at is not None
            }
            return await super().purge(finished_before=finished_before, limit=limit)

        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            ids = await super().create(records)
            for task_id in set(ids) & set(self.left):
                self._tasks.rows[task_id]._archive = self.left.pop(task_id)
            return ids


class TestAPurgeLeavesWhichUidsAreKnown(Broken, Purging):
    caught_by = "test_nothing_of_a_purged_task_is_in_a_new_one_of_its_id"

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            logs: dict[Any, Any] = {}
            forget = self._artifacts.forget

            def half(task_id: str) -> None:
                logs.update(self._artifacts._tasks)
                forget(task_id)

            class Remembering(InMemoryArtifactStore):
                async def known(self, stream: Any, uids: Collection[str]) -> set[str]:
                    log = logs.get(stream.task_id)
                    old = log.streams.get((stream.node_id, stream.generation)) if log else None
                    return await super().known(stream, uids) | (
                        old.uids.intersection(uids) if old else set()
                    )

            self.artifacts = self._artifacts = Remembering()
            forget = self._artifacts.forget
            self._artifacts.forget = half


class TestAPurgeDeletesRecordsOfAllTasks(Broken, KeyedRecords):
    caught_by = "test_a_purge_deletes_the_records_of_its_tasks"

    class records(InMemoryRecordStore):
        def forget(self, task_id: str) -> None:
            for each in list(self._by_task):
                super().forget(each)


class TestNamespacesAreIgnored(Broken, Namespaces):
    caught_by = "test_tasks_of_two_namespaces_may_have_one_id_and_one_key"
    broken = InMemoryStore

    @pytest.fixture
    def open_namespace(self, store: InMemoryStore) -> Callable[[str], InMemoryStore]:
        return lambda namespace: store


class TestRecordsOfAllNamespacesAreOne(Broken, Namespaces):
    caught_by = "test_tasks_and_keyed_records_are_read_in_their_namespace"
    broken = InMemoryStore

    @pytest.fixture
    def open_namespace(self) -> Callable[[str], InMemoryStore]:
        first = InMemoryStore()

        def another(namespace: str) -> InMemoryStore:
            store = InMemoryStore()
            store.records = first.records
            return store

        return another


class TestACancelledCallKillsTheStore(Broken, Cancelling):
    caught_by = "test_a_store_goes_on_after_a_cancelled_call"
    caught_as = StoreUnavailable

    class broken(InMemoryStore):
        dead = False

        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            if self.dead:
                raise StoreUnavailable("the connection is gone")
            try:
                await anyio.sleep(0.002)
            except BaseException:
                self.dead = True
                raise
            return await super().load(task_ids)


class TestACancelledCommitKeepsALock(Broken, Cancelling):
    caught_by = "test_a_store_goes_on_after_a_cancelled_call"
    patience = BRIEF

    class broken(InMemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.lock = anyio.Semaphore(1)

        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            await self.lock.acquire()
            await anyio.sleep(0.002)
            answers = await super().commit(commits)
            self.lock.release()
            return answers


class TestACancelledCommitIsHalfApplied(Broken, Cancelling):
    caught_by = "test_a_cancelled_commit_is_applied_whole_or_not_at_all"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            for commit in commits:
                row = self._tasks.rows.get(commit.task_id)
                if (
                    row is not None
                    and row.version == commit.expected_version
                    and "more" in commit.put
                ):
                    row.parts["more"] = commit.put["more"]
                    await anyio.sleep(0.002)
            return await super().commit(commits)


class TestTaskIdsAreComparedWithoutCase(Broken, Identity):
    caught_by = "test_ids_and_names_are_compared_exactly"

    class broken(InMemoryStore):
        def _same(self, task_id: str) -> str:
            return next(
                (known for known in self._tasks.rows if known.lower() == task_id.lower()), task_id
            )

        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            found = await super().load([self._same(task_id) for task_id in task_ids])
            return {
                task_id: found[self._same(task_id)]
                for task_id in task_ids
                if self._same(task_id) in found
            }


class TestIdempotencyKeysAreTrimmed(Broken, Identity):
    caught_by = "test_idempotency_keys_are_compared_exactly"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            return await super().create(
                [
                    dataclasses.replace(record, header=self._trimmed(record.header))
                    for record in records
                ]
            )

        def _trimmed(self, header: TaskHeader) -> TaskHeader:
            key = header.idempotency_key
            return dataclasses.replace(header, idempotency_key=None if key is None else key.strip())


class TestStatusesAreNormalised(Broken, Identity):
    caught_by = "test_ids_and_names_are_compared_exactly"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            return await super().create(
                [
                    dataclasses.replace(
                        record,
                        header=dataclasses.replace(record.header, status=nfc(record.header.status)),
                    )
                    for record in records
                ]
            )


class TestPrefixesArePatterns(Broken, Identity):
    caught_by = "test_ids_and_names_are_compared_exactly"

    class records(InMemoryRecordStore):
        async def scan(
            self, kind: str, *, prefix: str = "", limit: int = 100, **place: Any
        ) -> Sequence[KeyedRecord]:
            pattern = prefix.replace("%", "*").replace("_", "?") + "*"
            found = await super().scan(kind, limit=1_000_000, **place)
            return [each for each in found if fnmatch.fnmatchcase(each.key, pattern)][:limit]


class TestRevisionsAreTrimmed(Broken, Identity):
    caught_by = "test_revisions_are_compared_exactly"

    class records(InMemoryRecordStore):
        def _has(self, wanted: KeyedRecord | RecordDeletion) -> bool:
            stored = self._of(wanted.kind).records.get(wanted.key)
            if stored is None or not wanted.revision:
                return super()._has(wanted)
            return wanted.revision.strip() == stored.revision.strip()


class TestRecordKeysAreNumbersWhereTheyLookSo(Broken, Identity):
    caught_by = "test_ids_and_names_are_compared_exactly"

    class records(InMemoryRecordStore):
        def _put(self, record: KeyedRecord) -> None:
            if record.key.isdecimal():
                record = dataclasses.replace(record, key=f"{int(record.key)}")
            super()._put(record)


class TestNamespacesAreComparedWithoutCase(Broken, Namespaces):
    caught_by = "test_namespaces_are_compared_exactly"
    broken = InMemoryStore

    @pytest.fixture
    def open_namespace(self) -> Callable[[str], InMemoryStore]:
        stores: dict[str, InMemoryStore] = {}
        return lambda namespace: stores.setdefault(namespace.lower(), InMemoryStore())


class TestPurgesByAge(Broken, Purging):
    caught_by = "test_a_task_that_is_old_and_has_not_ended_stays"

    class broken(InMemoryStore):
        async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
            for row in self._tasks.rows.values():
                if row.finished_at is None:
                    self._tasks._ends.set(row.created.task_id, row.created.created_at)
            return await super().purge(finished_before=finished_before, limit=limit)


class TestAPurgeNeverSaysThatItIsDone(Broken, Purging):
    caught_by = "test_a_purged_task_is_gone_with_its_archive_and_artifacts"

    class broken(InMemoryStore):
        async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
            return await super().purge(finished_before=finished_before, limit=limit) or 1


class TestReadsAHundredArchivedParts(Broken, Archiving):
    caught_by = "test_many_archived_parts_are_read_at_once"

    class broken(InMemoryStore):
        async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
            return await super().read_archive(task_id, [*names][:100])


class TestPartsAreText(Broken, Creating):
    caught_by = "test_bytes_that_are_no_text_load_as_they_were_stored"

    class broken(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            return await super().commit(
                [
                    dataclasses.replace(
                        commit,
                        put={
                            name: data.decode(errors="replace").encode()
                            for name, data in commit.put.items()
                        },
                    )
                    for commit in commits
                ]
            )


class TestTimesAreMilliseconds(Broken, Creating):
    caught_by = "test_a_task_loads_as_it_was_created"

    class broken(InMemoryStore):
        async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
            return await super().create(
                [
                    dataclasses.replace(
                        record,
                        header=dataclasses.replace(
                            record.header, created_at=round(record.header.created_at, 3)
                        ),
                    )
                    for record in records
                ]
            )


# ---------------------------------------------------------------- stores of several processes


class BrokenProcesses(Processes):
    broken: ClassVar[type[FileStore]]
    quiet_sec = 0.02

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")

    @pytest.fixture
    def store(self, path: str) -> FileStore:
        return FileStore(path)

    @pytest.fixture
    def opener(self, path: str) -> Opener:
        return Opener("tests.conformance.file_store:open_file", (self.broken.__name__, path))


class TestTwoProcessesCommitOneVersion(BrokenProcesses):
    caught_by = "test_of_commits_by_two_processes_one_is_applied_for_each_version"
    broken = WithoutALock


class KilledProcesses(BrokenProcesses):
    """Only the tests that kill a process, because each process takes a second to start."""

    test_of_commits_by_two_processes_one_is_applied_for_each_version = None
    test_a_commit_by_another_process_wakes_a_waiter = None
    test_changes_of_keyed_records_by_two_processes_lose_nothing = None


class TestAKilledProcessLeavesHalfACommit(KilledProcesses):
    caught_by = "test_a_process_that_is_killed_leaves_each_commit_whole_or_absent"
    broken = TearsCommits


class TestAKilledProcessLosesConfirmedCommits(KilledProcesses):
    caught_by = "test_a_process_that_is_killed_leaves_each_commit_whole_or_absent"
    broken = WritesAtTheEnd


class TestAKilledProcessLeavesHalfAChange(KilledProcesses):
    caught_by = "test_a_process_that_is_killed_leaves_each_change_of_records_whole_or_absent"
    broken = TearsChanges


class TestProcessesHearThemselvesOnly(BrokenProcesses):
    caught_by = "test_a_commit_by_another_process_wakes_a_waiter"
    patience = 2.0
    broken = HearsItselfOnly
    test_of_commits_by_two_processes_one_is_applied_for_each_version = None
    test_changes_of_keyed_records_by_two_processes_lose_nothing = None

    @pytest.fixture
    def store(self, path: str) -> FileStore:
        return HearsItselfOnly(path)


class TestAKilledProcessLeavesAGapOfPositions(ArtifactProcesses):
    caught_by = "test_a_process_that_is_killed_while_it_puts_leaves_no_gap"
    test_of_puts_by_two_processes_one_is_new_for_each_uid = None

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")

    @pytest.fixture
    def artifacts(self, path: str) -> ArtifactStore:
        return FileStore(path).artifacts

    @pytest.fixture
    def opener(self, path: str) -> Opener:
        return Opener(
            "tests.conformance.file_store:open_file_artifacts", (LeavesGaps.__name__, path)
        )


# ---------------------------------------------------------------- artifacts


class BrokenArtifacts(ArtifactStoreConformance):
    broken: ClassVar[type[InMemoryArtifactStore]]
    quiet_sec = 0.02
    oversize_bytes = 9_000_000

    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        return self.broken()


class TestAcceptsAUidTwice(BrokenArtifacts):
    caught_by = "test_a_uid_may_be_any_text"

    class broken(InMemoryArtifactStore):
        def _put(self, record: ArtifactRecord) -> bool:
            log = self._log(record.stream)
            if log is not None:
                log.uids.clear()
            return super()._put(record)


class TestDuplicatesUseUpPositions(BrokenArtifacts):
    caught_by = "test_positions_grow_by_one_past_duplicates"

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
    caught_by = "test_a_record_above_the_limit_is_refused_and_nothing_is_stored"

    class broken(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            return [(await super(type(self), self).put([record]))[0] for record in records]


class TestGenerationsAreOne(BrokenArtifacts):
    caught_by = "test_streams_are_apart"

    class broken(InMemoryArtifactStore):
        def _put(self, record: ArtifactRecord) -> bool:
            return super()._put(
                dataclasses.replace(record, stream=dataclasses.replace(record.stream, generation=0))
            )


class TestUidsAreNormalised(BrokenArtifacts):
    caught_by = "test_uids_are_compared_exactly"

    class broken(InMemoryArtifactStore):
        def _put(self, record: ArtifactRecord) -> bool:
            return super()._put(dataclasses.replace(record, uid=nfc(record.uid)))


class TestNodeIdsAreComparedWithoutCase(BrokenArtifacts):
    caught_by = "test_the_ids_of_streams_are_compared_exactly"

    class broken(InMemoryArtifactStore):
        def _log(self, stream: Stream) -> Any:
            return super()._log(dataclasses.replace(stream, node_id=stream.node_id.lower()))


class TestTheCursorOfAScanIsTheTimeOnly(BrokenArtifacts):
    caught_by = "test_scanning_goes_through_records_of_the_same_time"

    class broken(InMemoryArtifactStore):
        async def scan(
            self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
        ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
            return await super().scan(
                task_id, after=None if after is None else (after[0], "9"), limit=limit
            )


# ---------------------------------------------------------------- buses


class BrokenBus(FailsInMemory, BusConformance):
    broken: ClassVar[type[InMemoryBus]] = InMemoryBus
    subscription: ClassVar[type["Through"] | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    quiet_sec = 0.02
    many = 700

    @pytest.fixture
    async def bus(self) -> AsyncIterator[InMemoryBus]:
        async with self.make(**self.options) as bus:
            yield bus

    @pytest.fixture
    def open_bus(self, bus: InMemoryBus) -> Callable[[], InMemoryBus]:
        return lambda: InMemoryBus(broker=bus.broker)

    def connect(self, bus: InMemoryBus, **options: Any) -> InMemoryBus:
        return self.make(broker=bus.broker, **options)

    def make(self, **options: Any) -> InMemoryBus:
        if self.subscription is None:
            return self.broken(**options)
        through = self.subscription

        class Bus(InMemoryBus):
            @asynccontextmanager
            async def _subscribe(
                self, topics: Sequence[str], group: str | None, max_unacked: int
            ) -> AsyncIterator[Subscription]:
                async with super()._subscribe(
                    topics, group, through.window(max_unacked)
                ) as subscription:
                    yield through(subscription)

        return Bus(**options)


class Through:
    """A subscription that passes on all calls; derived classes add a defect."""

    @staticmethod
    def window(max_unacked: int) -> int:
        return max_unacked

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
    caught_by = "test_acknowledging_a_later_message_does_not_acknowledge_an_earlier_one"
    patience = BRIEF

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
                before = [
                    item
                    for item in self.seen
                    if item.partition == last.partition and item.position <= last.position
                ]
                await super().ack(before)


class TestReceivingAcknowledges(BrokenBus):
    caught_by = "test_a_reject_that_is_not_confirmed_acknowledges_nothing"
    patience = BRIEF

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            await self.inner.ack(found)
            return found


class TestAcksAreForgotten(BrokenBus):
    caught_by = "test_acknowledged_messages_do_not_come_again"

    class subscription(Through):
        async def ack(self, deliveries: Collection[Delivery]) -> None:
            pass


class TestReleasedMessagesAreGone(BrokenBus):
    caught_by = "test_released_messages_come_again"
    patience = BRIEF

    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            await self.inner.ack(deliveries)


class TestRejectedMessagesAreNotParked(BrokenBus):
    caught_by = "test_a_rejected_message_is_parked_with_its_origin_and_the_reason"
    patience = BRIEF

    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            await self.inner.ack(deliveries)


class TestRejectedMessagesComeAgain(BrokenBus):
    caught_by = "test_a_rejected_message_does_not_come_again"

    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            await self.inner.reject(
                [dataclasses.replace(delivery, handle=None) for delivery in deliveries], reason
            )


class TestACancelledReceiveLosesMessages(BrokenBus):
    caught_by = "test_cancelling_a_receive_loses_no_message"
    patience = BRIEF

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            await anyio.sleep(0.005)
            return found


class TestReceiveComesBackEmpty(BrokenBus):
    caught_by = "test_receive_waits_while_there_is_no_message"

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            return []


class TestMoreThanAskedForComes(BrokenBus):
    caught_by = "test_no_more_messages_come_than_were_asked_for"

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            return await super().receive(max_messages=max_messages * 2)


class TestPublishingReorders(BrokenBus):
    caught_by = "test_a_listener_gets_the_messages_of_a_key_in_order"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return (await super().publish(messages[::-1]))[::-1]


class TestSendsWhatPrecedesTheOversize(BrokenBus):
    caught_by = "test_a_value_above_the_limit_is_refused_and_nothing_is_sent"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            publish = super().publish
            return [place for message in messages for place in await publish([message])]


class TestHeadersAreLost(BrokenBus):
    caught_by = "test_headers_arrive_as_they_were_sent"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return await super().publish(
                [dataclasses.replace(message, headers={}) for message in messages]
            )


class TestKeysArePutAnywhere(BrokenBus):
    caught_by = "test_messages_of_a_key_come_from_one_partition_with_growing_positions"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return await super().publish(
                [
                    dataclasses.replace(message, key=f"{number}")
                    for number, message in enumerate(messages)
                ]
            )


class TestPlacesAreThoseOfAnotherOrder(BrokenBus):
    caught_by = "test_publish_returns_the_places_that_the_deliveries_have"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return (await super().publish(messages))[::-1]


class TestWhatIsUnderWayCountsAsAcknowledged(BrokenBus):
    caught_by = "test_what_was_not_acknowledged_is_to_come"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            cursors = (
                self.broker.groups[group].cursors.get(topic, [])
                if group in self.broker.groups
                else []
            )
            found = await super().outstanding(topic, group)
            return {
                **found,
                **{cursor.log.number: (cursor.next, cursor.log.end) for cursor in cursors},
            }


class TestWhatLiesBehindAGapCountsAsAcknowledged(BrokenBus):
    caught_by = "test_what_was_not_acknowledged_is_to_come"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            cursors = (
                self.broker.groups[group].cursors.get(topic, [])
                if group in self.broker.groups
                else []
            )
            found = await super().outstanding(topic, group)
            return {
                **found,
                **{
                    c.log.number: (max(c.acked, default=c.committed - 1) + 1, c.log.end)
                    for c in cursors
                },
            }


class TestNothingIsOutstandingForAGroupThatDoesNotExist(BrokenBus):
    caught_by = "test_everything_is_to_come_to_a_group_that_does_not_exist"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            found = await super().outstanding(topic, group)
            return (
                found
                if group in self.broker.groups
                else {number: (end, end) for number, (_, end) in found.items()}
            )


class TestTheFurthestGroupCountsForAll(BrokenBus):
    caught_by = "test_how_far_a_group_is_is_its_own_affair"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            outstanding = super().outstanding
            views = [await outstanding(topic, name) for name in [group, *self.broker.groups]]
            return {number: max(view[number] for view in views) for number in views[0]}


class TestTheEndIsTooEarly(BrokenBus):
    caught_by = "test_everything_is_to_come_to_a_group_that_does_not_exist"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            found = await super().outstanding(topic, group)
            return {number: (first, max(first, end - 1)) for number, (first, end) in found.items()}


class TestTheWindowIsIgnored(BrokenBus):
    caught_by = "test_the_partition_goes_on_behind_a_rejected_message"
    patience = BRIEF

    class broken(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            return super().subscribe(topics, group=group, max_unacked=1000)


class TestAGroupStartsWithTheNewest(BrokenBus):
    caught_by = "test_publishing_raises_while_the_server_is_stopped"
    patience = BRIEF

    class broken(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            for topic in topics:
                for log in self.broker.topics[topic].partitions:
                    if not log.cursors:
                        log.start = log.end
                        log.entries.clear()
            return super().subscribe(topics, group=group, max_unacked=max_unacked)


class TestMembersDoNotShare(BrokenBus):
    caught_by = "test_the_members_of_a_group_share_the_messages"
    patience = BRIEF

    class broken(InMemoryBus):
        members = 0

        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            self.members += 1
            return super().subscribe(
                topics, group=group and f"{group}-{self.members}", max_unacked=max_unacked
            )


class TestListenersHearTheOldToo(BrokenBus):
    caught_by = "test_nothing_is_kept_for_a_listener_that_left"

    class broken(InMemoryBus):
        listeners = 0

        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            self.listeners += 1
            for topic in topics:
                self.broker.topics[topic].broadcast = False
            return super().subscribe(
                topics, group=group or f"listener-{self.listeners}", max_unacked=max_unacked
            )


class TestWhoLeavesTakesItsMessagesAlong(BrokenBus):
    caught_by = "test_a_reject_that_is_not_confirmed_acknowledges_nothing"
    patience = BRIEF

    class broken(InMemoryBus):
        def __init__(self) -> None:
            class Forgetful(Broker):
                def leave(self, member: Any) -> None:
                    for cursors in member.group.cursors.values():
                        for cursor in cursors:
                            cursor.out.clear()
                    super().leave(member)

            super().__init__(broker=Forgetful())


class PublishesChanged(BrokenBus):
    """A bus that changes each message when it is published."""

    @staticmethod
    def change(message: Message) -> Message:
        return message

    def make(self, **options: Any) -> InMemoryBus:
        change = self.change

        class Bus(InMemoryBus):
            async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
                return await super().publish([change(message) for message in messages])

        return Bus(**options)


class TestHeadersAreComparedWithoutCase(PublishesChanged):
    caught_by = "test_headers_arrive_as_they_were_sent"

    @staticmethod
    def change(message: Message) -> Message:
        return dataclasses.replace(
            message, headers={name.lower(): value for name, value in message.headers.items()}
        )


class TestKeysAreNormalised(PublishesChanged):
    caught_by = "test_a_key_arrives_as_it_was_sent"

    @staticmethod
    def change(message: Message) -> Message:
        return dataclasses.replace(message, key=nfc(message.key))


class TestKeysAreTrimmed(PublishesChanged):
    caught_by = "test_a_key_arrives_as_it_was_sent"

    @staticmethod
    def change(message: Message) -> Message:
        return dataclasses.replace(message, key=message.key.strip())


class TestValuesAreTrimmed(PublishesChanged):
    caught_by = "test_a_value_arrives_as_it_was_sent"
    patience = BRIEF

    @staticmethod
    def change(message: Message) -> Message:
        return dataclasses.replace(message, value=message.value.strip())


class TestJsonIsWrittenAnotherWay(PublishesChanged):
    caught_by = "test_a_value_arrives_as_it_was_sent"
    patience = BRIEF

    @staticmethod
    def change(message: Message) -> Message:
        try:
            return dataclasses.replace(
                message, value=json.dumps(json.loads(message.value)).encode()
            )
        except ValueError:
            return message


class TestEqualMessagesAreOne(BrokenBus):
    caught_by = "test_equal_messages_all_arrive"
    patience = BRIEF

    class broken(InMemoryBus):
        def __init__(self) -> None:
            super().__init__()
            self.known: dict[tuple[str, str, bytes], Place | None] = {}

        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            names = [(message.topic, message.key, message.value) for message in messages]
            new = {
                name: message
                for name, message in zip(names, messages, strict=True)
                if name not in self.known
            }
            self.known |= zip(new, await super().publish([*new.values()]), strict=True)
            return [self.known[name] for name in names]


class TestTopicsAreComparedWithoutCase(BrokenBus):
    caught_by = "test_the_names_of_topics_are_compared_exactly"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            return await super().publish(
                [dataclasses.replace(message, topic=message.topic.lower()) for message in messages]
            )

        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            return super().subscribe(
                [topic.lower() for topic in topics], group=group, max_unacked=max_unacked
            )


class TestGroupsAreComparedWithoutCase(BrokenBus):
    caught_by = "test_the_names_of_groups_are_compared_exactly"
    patience = BRIEF

    class broken(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            return super().subscribe(topics, group=group and group.lower(), max_unacked=max_unacked)


class TestAGroupStartsWithTheNewestOfItsSecondTopic(BrokenBus):
    caught_by = "test_a_group_that_is_new_to_a_topic_starts_with_the_oldest_message_kept"
    patience = BRIEF

    class broken(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            self.broker.replay_for_new_groups = group not in self.broker.groups
            return super().subscribe(topics, group=group, max_unacked=max_unacked)


class TestHowFarAGroupIsIsReadOnce(BrokenBus):
    caught_by = "test_each_message_is_to_come_once_it_is_published"
    patience = BRIEF

    class broken(InMemoryBus):
        def __init__(self) -> None:
            super().__init__()
            self.read: dict[tuple[str, str], Mapping[int, tuple[int, int]] | None] = {}

        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            return self.read.setdefault((topic, group), await super().outstanding(topic, group))


def is_held(delivery: Delivery) -> bool:
    return bool(delivery.handle.cursor.is_held(delivery.position, delivery.handle))


class TestAcknowledgingTwiceMakesRoomTwice(BrokenBus):
    caught_by = "test_acknowledging_twice_makes_room_once"

    class subscription(Through):
        async def ack(self, deliveries: Collection[Delivery]) -> None:
            for delivery in deliveries:
                delivery.handle.member.unacked -= not is_held(delivery)
                await super().ack([delivery])


class TestWhatWasAcknowledgedIsReleased(BrokenBus):
    caught_by = "test_releasing_what_was_acknowledged_does_nothing"

    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            for delivery in deliveries:
                if not is_held(delivery):
                    delivery.handle.cursor.again.append(delivery.position)
                    delivery.handle.cursor.announce()


class TestReleasesAreNotFenced(BrokenBus):
    caught_by = "test_acknowledging_after_the_partition_moved_on_does_nothing"

    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            for delivery in deliveries:
                delivery.handle.cursor.give_back(delivery.position)


class TestRejectsAreNotFenced(BrokenBus):
    caught_by = "test_acknowledging_after_the_partition_moved_on_does_nothing"
    patience = BRIEF

    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            for delivery in deliveries:
                delivery.handle.cursor.ack(delivery.position)


class ForgetsHeaders(BrokenBus):
    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            seen = self.inner._broker.__dict__.setdefault("seen", set())
            for delivery in found:
                place = delivery.message.topic, delivery.partition, delivery.position
                if place in seen:
                    delivery.message = dataclasses.replace(delivery.message, headers={})
                seen.add(place)
            return found


class TestWhatIsReleasedComesWithoutHeaders(ForgetsHeaders):
    caught_by = "test_released_messages_come_again"


class TestWhatComesToAnotherMemberComesWithoutHeaders(ForgetsHeaders):
    caught_by = "test_what_comes_again_to_another_member_is_the_same_message"


class TestAReleaseIsLostInAnOutage(BrokenBus):
    caught_by = "test_a_release_while_the_server_is_stopped_raises_or_gives_back"
    caught_as = (AssertionError, TimeoutError)
    patience = BRIEF

    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            with suppress(BusUnavailable):
                await super().release(deliveries)


class TestMessagesComeAgainWithoutEnd(BrokenBus):
    caught_by = "test_unacknowledged_messages_are_not_given_twice_to_a_member"
    quiet_sec = 1.0

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            await self.inner.release(found)
            return found


# ---------------------------------------------------------------- buses that fail with a failure


class TestDeadMembersAreNeverReclaimed(BrokenBus):
    caught_by = "test_what_a_killed_member_had_comes_to_another"
    patience = BRIEF

    def expire(self, bus: InMemoryBus, member: Any) -> None:
        pass


class TestLiveMembersAreRobbed(BrokenBus):
    caught_by = "test_a_live_member_keeps_what_it_has_not_acknowledged"
    silence_sec = 0.5

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            while True:
                with anyio.move_on_after(0.03):
                    return await self.inner.receive(max_messages=max_messages)
                for cursors in self.inner.source.group.cursors.values():
                    for cursor in cursors:
                        cursor.lend(self.inner.source)


class LosesAReplyAfterACut(BrokenBus):
    patience = BRIEF
    loser: ClassVar[type]

    def make(self, **options: Any) -> InMemoryBus:
        class Cuttable(Broker):
            was_cut = False

            def cut(self) -> None:
                self.was_cut = True

        options.setdefault("broker", Cuttable())
        return super().make(**options)

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            found = await super().receive(max_messages=max_messages)
            broker = self.inner._broker
            if not broker.was_cut:
                return found
            broker.was_cut = False
            return await super().receive(max_messages=max_messages)


class TestLostReadRepliesAreNeverFound(LosesAReplyAfterACut):
    caught_by = "test_messages_on_their_way_when_a_connection_breaks_are_delivered"


class TestAListenerSkipsWhatComesWhileItConnectsAgain(LosesAReplyAfterACut):
    caught_by = "test_a_listener_misses_nothing_when_its_connection_breaks"


class TestPublishSwallowsAnOutage(BrokenBus):
    caught_by = "test_publishing_raises_while_the_server_is_stopped"

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            try:
                return await super().publish(messages)
            except BusUnavailable:
                return [None] * len(messages)


class TestReceiveWaitsThroughAnOutage(BrokenBus):
    caught_by = "test_receiving_raises_while_the_server_is_stopped_and_continues_afterwards"
    patience = BRIEF

    class subscription(Through):
        async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
            while True:
                try:
                    return await super().receive(max_messages=max_messages)
                except BusUnavailable:
                    await anyio.sleep(0.01)


class TestAnOutageComesAsAnErrorOfTheDriver(BrokenBus):
    caught_by = "test_every_call_ends_while_the_server_is_stopped"
    caught_as = ExceptionGroup

    class subscription(Through):
        async def release(self, deliveries: Collection[Delivery]) -> None:
            try:
                await super().release(deliveries)
            except BusUnavailable:
                raise OSError("connection refused") from None


class TestAcknowledgementsAreNotFenced(BrokenBus):
    caught_by = "test_a_member_that_was_suspended_does_not_acknowledge_for_another"
    patience = BRIEF

    class subscription(Through):
        async def ack(self, deliveries: Collection[Delivery]) -> None:
            for delivery in deliveries:
                if delivery.position in delivery.handle.cursor.out:
                    delivery.handle.cursor.ack(delivery.position)


class AcknowledgesFirst(Through):
    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        await self.inner.ack(deliveries)
        await anyio.sleep(0.002)
        await self.inner.reject(deliveries, reason)


class TestRejectAcknowledgesBeforeTheLetterIsStored(BrokenBus):
    caught_by = "test_a_dead_letter_that_cannot_be_stored_leaves_its_message"
    patience = BRIEF
    subscription = AcknowledgesFirst


class TestACancelledRejectLosesMessages(BrokenBus):
    caught_by = "test_a_cancelled_reject_loses_no_message"
    patience = BRIEF
    subscription = AcknowledgesFirst


class TestRejectIgnoresALetterThatIsNotStored(BrokenBus):
    caught_by = "test_a_dead_letter_that_cannot_be_stored_leaves_its_message"

    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            try:
                await self.inner.reject(deliveries, reason)
            except BusError:
                await self.inner.ack(deliveries)


class TestRejectHidesAnOutage(BrokenBus):
    caught_by = "test_a_reject_that_is_not_confirmed_acknowledges_nothing"

    class subscription(Through):
        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            try:
                await self.inner.reject(deliveries, reason)
            except BusUnavailable:
                acknowledge(deliveries)


class TestTrimmingDropsPendingMessages(BrokenBus):
    caught_by = "test_no_number_of_messages_removes_one_that_is_not_acknowledged"
    patience = BRIEF

    class broken(InMemoryBus):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            places = await super().publish(messages)
            for topic in self.broker.topics.values():
                for log in topic.partitions:
                    drop = max(0, len(log.entries) - 500)
                    log.start += drop
                    del log.entries[:drop]
                    for cursor in log.cursors:
                        cursor.next = max(cursor.next, log.start)
                        cursor.committed = max(cursor.committed, log.start)
            return places


class TestTrimmingIgnoresOtherGroups(BrokenBus):
    caught_by = "test_acknowledgements_remove_no_message_that_another_group_has_not_acknowledged"
    patience = BRIEF

    class broken(InMemoryBus):
        def __init__(self) -> None:
            class Hasty(PartitionLog):
                @property
                def oldest(self) -> int:
                    return max((cursor.committed for cursor in self.cursors), default=self.start)

            class HastyBroker(Broker):
                def create(self, spec: TopicSpec) -> None:
                    if spec.name not in self.topics:
                        super().create(spec)
                        self.topics[spec.name].partitions = [
                            Hasty(number) for number in range(self.partitions)
                        ]

            super().__init__(broker=HastyBroker())


class TestABroadcastIsKeptForEver(BrokenBus):
    caught_by = "test_the_server_keeps_a_bounded_number_of_broadcast_messages"

    class broken(InMemoryBus):
        async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
            await super().ensure_topics([TopicSpec(spec.name) for spec in topics])


class Prefetching(Through):
    """Moves messages from the server into its own buffer and never returns them."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.buffer: list[Delivery] = []

    @staticmethod
    def window(max_unacked: int) -> int:
        return 1_000_000

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        if not self.buffer:
            self.buffer = [*await self.inner.receive(max_messages=1_000_000)]
        given, self.buffer = self.buffer[:max_messages], self.buffer[max_messages:]
        return given


class TestPrefetchHasNoBound(BrokenBus):
    caught_by = "test_a_member_takes_a_bounded_number_of_messages_ahead"
    subscription = Prefetching


class TestAnIdleBufferIsKeptFromOthers(BrokenBus):
    caught_by = "test_messages_that_an_idle_member_does_not_receive_go_to_others"
    patience = BRIEF
    options: ClassVar[Mapping[str, Any]] = {"key_affinity": False}
    subscription = Prefetching


class TestASubscriptionToATopicThatDoesNotExistHearsNothing(BrokenBus):
    caught_by = (
        "test_a_subscription_to_a_topic_that_does_not_exist_gets_its_messages_later_or_raises"
    )
    patience = BRIEF

    class broken(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            there = [
                topic if topic in self.broker.topics else f"{topic}.nowhere" for topic in topics
            ]
            return super().subscribe(there, group=group, max_unacked=max_unacked)


# ---------------------------------------------------------------- buses with wrong claims


class TestClaimsPlaces(BrokenBus):
    caught_by = "test_what_was_acknowledged_is_not_to_come"

    class broken(InMemoryBus):
        async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
            return None


class TestClaimsKeyAffinity(BrokenBus):
    caught_by = "test_the_messages_of_a_key_go_to_one_member"

    class broken(InMemoryBus):
        def __init__(self) -> None:
            super().__init__(key_affinity=False)
            self.key_affinity = True


class TestClaimsReplayForNewGroups(BrokenBus):
    caught_by = "test_a_new_group_starts_with_the_oldest_message_kept"
    patience = BRIEF

    class broken(InMemoryBus):
        def __init__(self) -> None:
            super().__init__(replay_for_new_groups=False)
            self.replay_for_new_groups = True


# ---------------------------------------------------------------- without a defect


class ControlWaiting(Broken, Waiting):
    broken = InMemoryStore
    patience = BRIEF


class ControlCancelling(Broken, Cancelling):
    broken = InMemoryStore
    patience = BRIEF


class ControlBus(BrokenBus):
    patience = BRIEF


class ControlBusWithoutAffinity(ControlBus):
    options: ClassVar[Mapping[str, Any]] = {"key_affinity": False}
