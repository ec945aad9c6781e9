"""Many commits in one bulk write: each commit learns whether it was applied."""

from collections import Counter

import anyio
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from flowkit.errors import StoreError, StoreUnavailable
from flowkit.protocols import ArchivedPart, TaskQuery
from flowkit_mongo import MongoStore
from flowkit_mongo._commits import _was_applied
from flowkit_mongo._documents import RECENT
from tests.mongo.recording import Commands
from tests.store_records import change, task

MINE = "mine"


@pytest.mark.parametrize(
    ("document", "applied"),
    [
        (None, False),
        ({"version": 4}, False),
        ({"version": 5, "recent": ["theirs"]}, False),
        ({"version": 6}, False),
        ({"version": 6, "recent": ["theirs", MINE]}, True),
        ({"version": 9, "recent": [MINE, "theirs", "others"]}, True),
        ({"version": 9, "recent": ["theirs"]}, False),
    ],
)
def test_a_commit_of_a_bulk_was_applied_if_its_mark_is_there(
    document: dict[str, object] | None, applied: bool
) -> None:
    assert _was_applied(change("t", 5), document, MINE) is applied


def test_the_outcome_of_a_commit_with_many_successors_is_unknown() -> None:
    with pytest.raises(StoreUnavailable, match="changed too often"):
        _was_applied(
            change("t", 5), {"version": 5 + RECENT + 1, "recent": ["theirs"] * RECENT}, MINE
        )


@pytest.mark.services
async def test_one_of_several_concurrent_bulks_wins_each_commit(
    store: MongoStore, database: AsyncDatabase
) -> None:
    ids = [f"t{number}" for number in range(60)]
    await store.create([task(task_id) for task_id in ids])
    won: Counter[str] = Counter()

    async def commit_all(own: MongoStore, writer: int) -> None:
        for turn in range(8):
            versions = {
                task_id: record.version for task_id, record in (await own.load(ids)).items()
            }
            commits = [
                change(task_id, versions[task_id], op_id=f"{writer}.{turn}") for task_id in ids
            ]
            won.update(
                task_id
                for task_id, applied in zip(ids, await own.commit(commits), strict=True)
                if applied
            )

    async with (
        MongoStore(database) as second,
        MongoStore(database) as third,
        anyio.create_task_group() as tasks,
    ):
        for writer, own in enumerate((store, second, third)):
            tasks.start_soon(commit_all, own, writer)
    assert {
        task_id: record.version - 1 for task_id, record in (await store.load(ids)).items()
    } == won


@pytest.mark.services
async def test_a_bulk_is_one_command_and_its_losers_one_more(
    store: MongoStore, commands: Commands
) -> None:
    ids = [f"t{number}" for number in range(500)]
    await store.create([task(task_id) for task_id in ids])
    commands.sent.clear()
    assert all(await store.commit([change(task_id) for task_id in ids]))
    assert commands.names() == ["update"]
    assert (
        sum(
            await store.commit(
                [change(task_id, 2 + number % 2) for number, task_id in enumerate(ids)]
            )
        )
        == 250
    )
    assert commands.names() == ["update", "update", "find"]


@pytest.mark.services
async def test_new_archived_parts_are_inserted_together_and_known_ones_updated(
    store: MongoStore, commands: Commands
) -> None:
    await store.create([task("t")])
    commands.sent.clear()
    await store.commit([change("t", archive=[ArchivedPart(name, 1, b"1") for name in "ab"])])
    assert commands.names() == ["insert", "update"]
    commands.sent.clear()
    await store.commit([change("t", 2, archive=[ArchivedPart(name, 2, b"2") for name in "bc"])])
    (_, inserts), (_, updates), _ = commands.sent
    assert [inserts["insert"], updates["update"]] == ["flowkit_archive"] * 2
    assert [each["q"]["_id"]["name"] for each in updates["updates"]] == ["b"]
    found = await store.read_archive("t", ["a", "b", "c"])
    assert found == {"a": b"1", "b": b"2", "c": b"2"}


@pytest.mark.services
async def test_the_marks_of_bulks_do_not_pile_up(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t"), task("u")])
    for version in range(1, 2 * RECENT):
        assert await store.commit([change("t", version), change("u", version)]) == [True, True]
    document = await database["flowkit_tasks"].find_one({"_id": "t"})
    assert document is not None
    assert len(document["recent"]) == RECENT


@pytest.mark.services
async def test_what_is_no_page_is_refused(store: MongoStore) -> None:
    for after in ("", "noon", "x|t"):
        with pytest.raises(StoreError, match="page"):
            await store.list_tasks(TaskQuery(after=after))
