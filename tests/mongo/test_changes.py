"""Waiting for changes costs one query at a time, for any number of waiters."""

from collections.abc import Callable, Collection, Mapping

import anyio
import anyio.lowlevel
import pytest

from flowkit.errors import StoreUnavailable
from flowkit_mongo._changes import LONGEST_REST_SEC, REST, Changes, State, rest_sec


class Versions:
    """Stands for the database: the versions of its tasks, and a record of the queries."""

    def __init__(self, **versions: int) -> None:
        self.versions = versions
        self.asked: list[int] = []
        self.at_once = 0
        self.fails = 0
        self.ended: set[str] = set()

    async def __call__(self, task_ids: Collection[str]) -> Mapping[str, State]:
        self.at_once += 1
        assert self.at_once == 1
        await anyio.lowlevel.checkpoint()
        self.asked.append(len(task_ids))
        self.at_once -= 1
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        return {
            task_id: State(self.versions[task_id], task_id in self.ended)
            for task_id in task_ids
            if task_id in self.versions
        }


def changes(versions: Versions) -> Changes:
    return Changes(versions, min_sec=0.001, max_sec=0.01)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


def test_the_pause_after_a_query_follows_from_its_cost_and_not_from_an_outage() -> None:
    assert rest_sec(0.1) == pytest.approx(REST * 0.1)
    assert rest_sec(20) == LONGEST_REST_SEC <= 1


async def test_a_thousand_who_wait_are_one_query() -> None:
    versions = Versions(**{f"t{number}": 1 for number in range(1000)})
    waiting = changes(versions)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(waiting.wait, f"t{number}", 1)
            await until(lambda: len(versions.asked) > 2)
            assert versions.asked[:3] == [1, 999, 1000]
            versions.versions = dict.fromkeys(versions.versions, 2)
    assert len(versions.asked) < 50


async def test_a_newcomer_is_looked_for_at_once_and_alone() -> None:
    versions = Versions(old=1, new=2)
    waiting = Changes(versions, min_sec=60, max_sec=60)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.wait, "old", 1)
        await until(lambda: versions.asked)
        with anyio.fail_after(60):
            await waiting.wait("new", 1)
        assert versions.asked == [1, 1]
        tasks.cancel_scope.cancel()


async def test_a_commit_of_the_same_process_is_notified_without_a_query() -> None:
    versions = Versions(t=1)
    waiting = Changes(versions, min_sec=60, max_sec=60)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(waiting.wait, "t", 1)
            await until(lambda: versions.asked)
            waiting.committed([("t", State(2, False))])
    assert versions.asked == [1]


async def test_when_the_one_who_looks_is_cancelled_another_goes_on() -> None:
    versions = Versions(t=1)
    waiting = changes(versions)
    first = anyio.CancelScope()

    async def look_first() -> None:
        with first:
            await waiting.wait("t", 1)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look_first)
            await until(lambda: versions.asked)
            tasks.start_soon(waiting.wait, "t", 1)
            tasks.start_soon(waiting.wait, "t", 1)
            await until(lambda: len(versions.asked) > 2)
            first.cancel()
            await anyio.lowlevel.checkpoint()
            versions.versions["t"] = 2


async def test_an_error_reaches_the_one_who_looked_and_the_others_go_on() -> None:
    versions = Versions(t=1)
    waiting = changes(versions)
    failed: list[str] = []

    async def wait() -> None:
        try:
            await waiting.wait("t", 1)
        except StoreUnavailable:
            failed.append("failed")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            versions.fails = 1
            for _ in range(3):
                tasks.start_soon(wait)
            await until(lambda: len(versions.asked) > 2)
            versions.versions["t"] = 2
    assert failed == ["failed"]


async def test_all_waiters_return_when_their_task_is_deleted() -> None:
    versions = Versions(t=1)
    waiting = changes(versions)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for version in (1, 5, 3):
                tasks.start_soon(waiting.wait, "t", version)
            await until(lambda: versions.asked)
            del versions.versions["t"]


@pytest.mark.parametrize("version", [0, 1])
async def test_no_waiter_is_remembered_after_it_returns(version: int) -> None:
    waiting = changes(Versions(t=version + 1))
    await waiting.wait("t", version)
    with anyio.move_on_after(0.01):
        await waiting.wait("t", 99)
    assert not waiting._waiters


async def test_a_commit_looks_at_those_alone_who_wait_for_its_task() -> None:
    class Counted(int):
        compared = 0

        def __gt__(self, other: int) -> bool:
            Counted.compared += 1
            return int(self) > other

    versions = Versions(**{f"t{number}": 1 for number in range(500)})
    waiting = Changes(versions, min_sec=60, max_sec=60)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(waiting.wait, f"t{number}", 1)
            await until(lambda: sum(versions.asked) == 500)
            waiting.committed(
                [("t7", State(Counted(2), False)), ("other", State(Counted(2), False))]
            )
            tasks.cancel_scope.cancel()
    assert Counted.compared == 1


async def test_a_waiter_for_the_end_does_not_return_before_the_end() -> None:
    versions = Versions(t=5)
    waiting = changes(versions)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: waiting.wait("t", 0, ended=True))
            await until(lambda: len(versions.asked) > 2)
            waiting.committed([("t", State(6, False))])
            asked = len(versions.asked)
            await until(lambda: len(versions.asked) > asked)
            versions.ended.add("t")
    assert not waiting._waiters
