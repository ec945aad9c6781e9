"""The store suite: finding tasks."""

from collections.abc import Sequence
from typing import Any

import pytest

from flowkit.protocols import Store, TaskQuery, TaskRecord
from flowkit_testing.conformance._common import assert_new
from flowkit_testing.conformance._store_base import (
    NOON,
    OpenStore,
    StoreSuite,
    change,
    open_another,
    plain,
    record,
)

EVERYTHING = 1_000_000
MOST_PAGES = 100


class FindingDue(StoreSuite):
    """Due tasks.

    Other tasks may be due on a shared server, so the tests consider their own only.
    """

    async def due(self, store: Store, task_id: str, *, before: float) -> list[str]:
        found = await store.due(before=before, limit=EVERYTHING)
        return [name.removeprefix(task_id) for name in found if name.startswith(task_id)]

    async def test_tasks_are_due_from_their_time_on(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, wake_at=NOON)])
        assert await self.due(store, task_id, before=NOON - 0.5) == []
        assert await self.due(store, task_id, before=NOON) == [""]
        assert await self.due(store, task_id, before=NOON + 0.5) == [""]

    async def test_the_earliest_comes_first(self, store: Store, task_id: str) -> None:
        await store.create(
            [record(f"{task_id}{number}", wake_at=NOON + number) for number in (3, 1, 4, 2)]
        )
        assert await self.due(store, task_id, before=NOON + 3) == ["1", "2", "3"]

    async def test_a_task_without_a_time_is_never_due(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        assert await self.due(store, task_id, before=NOON * 10) == []

    async def test_being_due_does_not_end_by_looking(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, wake_at=NOON)])
        assert [await self.due(store, task_id, before=NOON) for _ in range(2)] == [[""], [""]]

    @pytest.mark.parametrize(
        ("wake_at", "expected"),
        [(None, []), (NOON + 5, []), (NOON - 5, [""])],
        ids=["cleared", "later", "earlier"],
    )
    async def test_a_commit_sets_the_time(
        self, store: Store, task_id: str, wake_at: float | None, expected: list[str]
    ) -> None:
        await store.create([record(task_id, wake_at=NOON)])
        await store.commit([change(task_id, wake_at=wake_at)])
        assert await self.due(store, task_id, before=NOON) == expected

    async def test_a_commit_may_make_a_task_due_again(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, wake_at=NOON)])
        for version, wake_at in enumerate((None, NOON, NOON + 1, NOON), 1):
            await store.commit([change(task_id, version, wake_at=wake_at)])
        assert await self.due(store, task_id, before=NOON + 2) == [""]

    async def test_a_refused_commit_does_not_set_the_time(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, wake_at=NOON)])
        await store.commit([change(task_id, 9, wake_at=None)])
        assert await self.due(store, task_id, before=NOON) == [""]

    @pytest.mark.parametrize("limit", [1, 3])
    async def test_no_more_are_given_than_asked_for(
        self, store: Store, task_id: str, limit: int
    ) -> None:
        await store.create(
            [record(f"{task_id}{number}", wake_at=NOON + number) for number in range(5)]
        )
        found = list(await store.due(before=NOON + 9, limit=limit))
        assert len(found) == limit
        assert found == list(await store.due(before=NOON + 9, limit=EVERYTHING))[:limit]


class Listing(StoreSuite):
    """Listing of tasks. Each test has a pipeline of its own."""

    async def everything(self, store: Store, task_id: str, **query: Any) -> list[str]:
        return [name for page in await self.pages(store, task_id, **query) for name in page]

    async def pages(self, store: Store, task_id: str, **query: Any) -> list[list[str]]:
        pages: list[list[str]] = []
        after: str | None = None
        for _ in range(MOST_PAGES):
            found, after = await store.list_tasks(
                TaskQuery(**{"pipeline": task_id, **query, "after": after})
            )
            page = names(found, task_id)
            assert_new(page, [name for page in pages for name in page])
            pages.append(page)
            if after is None:
                return pages
            assert isinstance(after, str)
        pytest.fail(f"after {MOST_PAGES} pages, there is still another page")

    async def create(
        self, store: Store, task_id: str, suffixes: Sequence[object], **header: Any
    ) -> None:
        """Create tasks in the test's pipeline, each a second newer than the one before."""
        await store.create(
            [
                record(f"{task_id}{suffix}", pipeline=task_id, **{"created_at": NOON + n, **header})
                for n, suffix in enumerate(suffixes)
            ]
        )

    async def test_the_newest_comes_first(self, store: Store, task_id: str) -> None:
        await self.create(store, task_id, ["b", "c", "a"])
        assert await self.everything(store, task_id) == ["a", "c", "b"]

    async def test_the_oldest_comes_first_if_that_is_asked_for(
        self, store: Store, task_id: str
    ) -> None:
        await self.create(store, task_id, range(5))
        tag = f"{task_id}t"
        await store.commit([change(f"{task_id}{number}", tags=[tag]) for number in (1, 2, 4)])
        first = {"oldest_first": True, "limit": 2}
        assert await self.pages(store, task_id, **first) == [["0", "1"], ["2", "3"], ["4"]]
        assert await self.pages(store, task_id, **first, tags=[tag]) == [["1", "2"], ["4"]]
        assert await self.pages(
            store, task_id, **first, created_after=NOON, created_before=NOON + 4
        ) == [["1", "2"], ["3"]]
        assert await self.pages(store, task_id, **first, statuses=["queued", "running"]) == [
            ["0", "1"],
            ["2", "3"],
            ["4"],
        ]

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_the_oldest_of_the_same_time_are_listed_once_each(
        self, store: Store, task_id: str, limit: int
    ) -> None:
        await self.create(store, task_id, range(7), created_at=NOON)
        found = await self.everything(store, task_id, limit=limit, oldest_first=True)
        assert found in ([*"0123456"], [*"6543210"])

    async def test_tasks_of_the_same_time_are_ordered_by_id(
        self, store: Store, task_id: str
    ) -> None:
        await self.create(store, task_id, ["b", "d", "a", "c"], created_at=NOON)
        assert await self.everything(store, task_id) in (["a", "b", "c", "d"], ["d", "c", "b", "a"])

    async def test_whole_records_are_listed(self, store: Store, task_id: str) -> None:
        created = record(
            task_id, pipeline=task_id, labels={"l": "1"}, spec=b"[1]", parts={"a": b"1"}
        )
        await store.create([created])
        (found,), after = await store.list_tasks(TaskQuery(pipeline=task_id))
        assert plain(found) == created
        assert after is None

    async def test_the_present_state_is_listed(self, store: Store, task_id: str) -> None:
        await self.create(store, task_id, ["a"])
        await store.commit([change(f"{task_id}a", status="finished", put={"state": b"1"})])
        (found,), _ = await store.list_tasks(TaskQuery(pipeline=task_id))
        assert (found.version, found.header.status, found.parts["state"]) == (2, "finished", b"1")

    async def test_nothing_is_listed_where_nothing_matches(
        self, store: Store, task_id: str
    ) -> None:
        found, after = await store.list_tasks(TaskQuery(pipeline=task_id))
        assert (list(found), after) == ([], None)

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            ((), ["c", "b", "a"]),
            (["queued"], ["a"]),
            (["running", "queued"], ["b", "a"]),
            (["lost"], []),
        ],
        ids=["any", "one", "two", "none"],
    )
    async def test_tasks_are_found_by_status(
        self, store: Store, task_id: str, statuses: Sequence[str], expected: list[str]
    ) -> None:
        await self.create(store, task_id, ["a", "b", "c"])
        await store.commit(
            [change(f"{task_id}b", status="running"), change(f"{task_id}c", status="finished")]
        )
        assert await self.everything(store, task_id, statuses=statuses) == expected

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ({}, ["c", "b", "a"]),
            ({"x": "1"}, ["b", "a"]),
            ({"x": "1", "y.z": "2"}, ["b"]),
            ({"x": "2"}, []),
            ({"$y": "1"}, []),
        ],
        ids=["any", "one", "both", "other-value", "other-key"],
    )
    async def test_tasks_are_found_by_labels(
        self, store: Store, task_id: str, labels: dict[str, str], expected: list[str]
    ) -> None:
        for number, (suffix, own) in enumerate(
            [("a", {"x": "1"}), ("b", {"x": "1", "y.z": "2", "w": "3"}), ("c", {})]
        ):
            await self.create(store, task_id, [suffix], created_at=NOON + number, labels=own)
        assert await self.everything(store, task_id, labels=labels) == expected

    async def test_tasks_are_found_by_pipeline(self, store: Store, task_id: str) -> None:
        label = {"test": task_id}
        await store.create(
            [record(f"{task_id}{name}", pipeline=name, labels=label) for name in (None, "p", "q")]
        )
        assert await self.everything(store, task_id, pipeline="p", labels=label) == ["p"]
        assert len(await self.everything(store, task_id, pipeline=None, labels=label)) == 3

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ([], ["d", "c", "b", "a"]),
            (["x"], ["d", "b", "a"]),
            (["y.z", "x"], ["b"]),
            (["x", "y.z"], ["b"]),
            (["$y"], []),
            (["x", "none"], []),
        ],
        ids=["any", "one", "both", "both-in-another-order", "other", "one-of-two"],
    )
    async def test_tasks_are_found_by_tags(
        self, store: Store, task_id: str, tags: Sequence[str], expected: list[str]
    ) -> None:
        for number, (suffix, own) in enumerate(
            [("a", "x"), ("b", "x y.z w"), ("c", ""), ("d", "x w")]
        ):
            own_tags = frozenset(f"{task_id}{tag}" for tag in own.split())
            await self.create(store, task_id, [suffix], created_at=NOON + number, tags=own_tags)
        wanted = [f"{task_id}{tag}" for tag in tags]
        assert await self.everything(store, task_id, tags=wanted) == expected
        if tags:
            assert await self.everything(store, task_id, tags=wanted, pipeline=None) == expected

    async def test_tasks_are_found_by_the_tags_of_their_last_commit(
        self, store: Store, task_id: str
    ) -> None:
        old, kept, new = (f"{task_id}{tag}" for tag in ("old", "kept", "new"))
        await self.create(store, task_id, ["a", "b"], tags=frozenset({old, kept}))
        await store.commit(
            [
                change(f"{task_id}a", tags=[kept, new]),
                change(f"{task_id}b", 9, tags=["refused", new]),
            ]
        )
        assert await self.everything(store, task_id, tags=[old]) == ["b"]
        assert await self.everything(store, task_id, tags=[kept]) == ["b", "a"]
        assert await self.everything(store, task_id, tags=[new]) == ["a"]
        await store.commit([change(f"{task_id}a", 2)])
        assert await self.everything(store, task_id, tags=[kept]) == ["b"]

    async def test_a_new_task_with_the_id_of_a_purged_one_has_none_of_its_tags(
        self, store: Store, task_id: str
    ) -> None:
        long_ago = NOON - 1e9
        await self.create(
            store, task_id, ["a"], tags=frozenset({f"{task_id}old"}), finished_at=long_ago
        )
        await store.purge(finished_before=long_ago + 1)
        await self.create(store, task_id, ["a"])
        assert await self.everything(store, task_id, tags=[f"{task_id}old"]) == []

    @pytest.mark.parametrize(
        ("after", "before", "expected"),
        [
            (None, None, "3210"),
            (NOON + 1, None, "32"),
            (NOON + 0.5, None, "321"),
            (None, NOON + 2, "10"),
            (NOON, NOON + 3, "21"),
            (NOON + 1, NOON + 2, ""),
            (NOON + 9, None, ""),
            (None, NOON - 1, ""),
        ],
    )
    async def test_tasks_are_found_by_the_time_of_their_creation(
        self, store: Store, task_id: str, after: float | None, before: float | None, expected: str
    ) -> None:
        await self.create(store, task_id, range(4), tags=frozenset({task_id}))
        query = {"created_after": after, "created_before": before, "limit": 2}
        for others in ({}, {"tags": [task_id]}, {"statuses": ["queued"]}):
            assert await self.everything(store, task_id, **query, **others) == [*expected]

    async def test_all_that_is_asked_for_must_hold(self, store: Store, task_id: str) -> None:
        tags = frozenset({f"{task_id}t"})
        await self.create(store, task_id, ["a", "b", "untagged"], labels={"x": "1"})
        await self.create(store, task_id, ["c", "d"], labels={"x": "2"}, tags=tags)
        finished = ["b", "d", "untagged"]
        await store.commit(
            [
                change(
                    f"{task_id}{name}",
                    status="finished",
                    tags=() if name == "untagged" else tags,
                )
                for name in finished
            ]
        )
        query = {"labels": {"x": "1"}, "statuses": ["finished"]}
        assert await self.everything(store, task_id, **query) == ["untagged", "b"]
        assert await self.everything(store, task_id, **query, tags=[*tags]) == ["b"]
        assert (
            await self.everything(store, task_id, **query, tags=[*tags], created_before=NOON + 1)
            == []
        )

    @pytest.mark.parametrize(
        ("count", "sizes"), [(5, [2, 2, 1]), (4, [2, 2]), (2, [2]), (1, [1]), (0, [0])]
    )
    async def test_pages_are_full_and_the_last_one_says_so(
        self, store: Store, task_id: str, count: int, sizes: list[int]
    ) -> None:
        await self.create(store, task_id, range(count))
        pages = await self.pages(store, task_id, limit=2)
        assert [len(page) for page in pages] == sizes
        assert [name for page in pages for name in page] == [
            str(number) for number in reversed(range(count))
        ]

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_paging_goes_through_tasks_of_the_same_time(
        self, store: Store, task_id: str, limit: int
    ) -> None:
        await self.create(store, task_id, range(7), created_at=NOON)
        found = await self.everything(store, task_id, limit=limit)
        assert found in ([*"0123456"], [*"6543210"])

    async def test_tasks_created_between_two_pages_neither_repeat_nor_hide_others(
        self, store: Store, task_id: str
    ) -> None:
        await self.create(store, task_id, range(4))
        first, after = await store.list_tasks(TaskQuery(pipeline=task_id, limit=2))
        await self.create(store, task_id, ["new", "newer"], created_at=NOON + 100)
        second, after = await store.list_tasks(TaskQuery(pipeline=task_id, limit=10, after=after))
        assert names(first, task_id) + names(second, task_id) == ["3", "2", "1", "0"]
        assert after is None

    async def test_paging_goes_on_with_filters(self, store: Store, task_id: str) -> None:
        await self.create(store, task_id, range(9))
        await store.commit(
            [change(f"{task_id}{number}", status="finished") for number in range(0, 9, 2)]
        )
        assert await self.pages(store, task_id, statuses=["finished"], limit=2) == [
            ["8", "6"],
            ["4", "2"],
            ["0"],
        ]

    @pytest.mark.parametrize("created_at", [NOON, None], ids=["one-time", "several"])
    async def test_paging_goes_on_with_tags(
        self, store: Store, task_id: str, created_at: float | None
    ) -> None:
        times = {} if created_at is None else {"created_at": created_at}
        await self.create(store, task_id, range(9), **times)
        await store.commit(
            [
                change(f"{task_id}{number}", tags=[f"{task_id}t", f"{task_id}u"])
                for number in range(0, 9, 2)
            ]
        )
        query = {"tags": [f"{task_id}t", f"{task_id}u"], "limit": 2}
        pages = await self.pages(store, task_id, **query)
        assert pages in ([["8", "6"], ["4", "2"], ["0"]], [["0", "2"], ["4", "6"], ["8"]])

    async def test_everything_is_listed_where_nothing_is_asked_for(
        self, store: Store, task_id: str
    ) -> None:
        await self.create(store, task_id, range(3), created_at=NOON * 2)
        found, after = await store.list_tasks(TaskQuery(limit=2))
        assert len(found) == 2
        assert after is not None
        times = [task.header.created_at for task in found]
        assert times == sorted(times, reverse=True)

    async def test_another_connection_goes_on_with_the_next_page(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await self.create(store, task_id, range(3))
        _, after = await store.list_tasks(TaskQuery(pipeline=task_id, limit=2))
        async with open_another(open_store) as other:
            rest, _ = await other.list_tasks(TaskQuery(pipeline=task_id, limit=2, after=after))
        assert names(rest, task_id) == ["0"]


def names(found: Sequence[TaskRecord], task_id: str) -> list[str]:
    return [task.header.task_id.removeprefix(task_id) for task in found]
