"""The store suite: calls that are cancelled."""

import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from flowkit.protocols import ArtifactRecord, DeadLetter, Store, Stream, TaskQuery, WorkerSession
from flowkit_testing.conformance._store_base import (
    NOON,
    StoreSuite,
    change,
    load_one,
    plain,
    record,
)

Call = Callable[[Store, str], Awaitable[object]]

CALLS: dict[str, Call] = {
    "create": lambda store, task_id: store.create([record(f"{task_id}-new")]),
    "load": lambda store, task_id: store.load([task_id]),
    "commit": lambda store, task_id: store.commit(
        [change(task_id, put={"state": b"1", "more": b"1"})]
    ),
    "read_archive": lambda store, task_id: store.read_archive(task_id, ["a"]),
    "scan_archive": lambda store, task_id: store.scan_archive(task_id, prefix=""),
    "due": lambda store, task_id: store.due(before=NOON, limit=10),
    "list_tasks": lambda store, task_id: store.list_tasks(TaskQuery(pipeline=task_id)),
    "wait_for_change": lambda store, task_id: store.wait_for_change(task_id, 0),
    "renew_session": lambda store, task_id: store.renew_session(
        WorkerSession(task_id, ["role"], 1, NOON)
    ),
    "end_session": lambda store, task_id: store.end_session(task_id),
    "sessions": lambda store, task_id: store.sessions(),
    "park": lambda store, task_id: store.park(
        [DeadLetter(task_id, NOON, "batch", "code", "error", task_id)]
    ),
    "dead_letters": lambda store, task_id: store.dead_letters(task_id=task_id),
    "drop_dead_letters": lambda store, task_id: store.drop_dead_letters([task_id]),
    "purge": lambda store, task_id: store.purge(finished_before=1.0),
    "check": lambda store, task_id: store.check(),
    "put": lambda store, task_id: store.artifacts.put(
        [ArtifactRecord(Stream(task_id, "node"), "u", True, b"{}", b"{}", NOON)]
    ),
    "read": lambda store, task_id: store.artifacts.read(Stream(task_id, "node")),
    "known": lambda store, task_id: store.artifacts.known(Stream(task_id, "node"), ["u"]),
    "scan": lambda store, task_id: store.artifacts.scan(task_id),
}
MOMENTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Moments of cancellation, as fractions of the duration of a call."""


class Cancelling(StoreSuite):
    """Cancelled calls end, and the store continues to work."""

    async def cancel(self, call: Call, store: Store, task_id: str, *, after_sec: float) -> None:
        with anyio.move_on_after(after_sec):
            await call(store, task_id)

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_store_goes_on_after_a_cancelled_call(
        self, store: Store, task_id: str, name: str
    ) -> None:
        await store.create([record(task_id), record(f"{task_id}-timed")])
        began = time.perf_counter()
        await CALLS[name](store, f"{task_id}-timed")
        took = time.perf_counter() - began
        with anyio.fail_after(self.patience):
            for moment in MOMENTS:
                await self.cancel(CALLS[name], store, task_id, after_sec=took * moment)
            await CALLS[name](store, task_id)
            version = (await load_one(store, task_id)).version
            assert list(await store.commit([change(task_id, version)])) == [True]
            await store.wait_for_change(task_id, version)
            await store.artifacts.put(
                [ArtifactRecord(Stream(task_id, "other"), "u", True, b"{}", b"{}", NOON)]
            )
            assert [
                found.position
                for found in await store.artifacts.read(Stream(task_id, "other"), latest=True)
            ] == [1]

    async def test_a_cancelled_commit_is_applied_whole_or_not_at_all(
        self, store: Store, task_id: str
    ) -> None:
        ids = [f"{task_id}-{number}" for number in range(len(MOMENTS))]
        await store.create([record(name) for name in [*ids, task_id]])
        began = time.perf_counter()
        await CALLS["commit"](store, task_id)
        took = time.perf_counter() - began
        for name, moment in zip(ids, MOMENTS, strict=True):
            await self.cancel(CALLS["commit"], store, name, after_sec=took * moment)
        # The commit that reaches the store first wins: a cancelled one that comes later finds
        # another version.
        with anyio.fail_after(self.patience):
            for name in ids:
                before = plain(await load_one(store, name))
                if (
                    await store.commit(
                        [change(name, before.version, op_id="after", put={"last": b"1"})]
                    )
                )[0]:
                    assert before.version in (1, 2)
                else:
                    before = plain(await load_one(store, name))
                    assert before.version == 2
                parts = (
                    {"state": b'{"n":0}'} if before.version == 1 else {"state": b"1", "more": b"1"}
                )
                assert before.parts == parts
