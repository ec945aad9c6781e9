"""The store suite: calls that are cancelled."""

import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from flowkit.protocols import (
    ArtifactRecord,
    KeyedRecord,
    RecordChange,
    Store,
    Stream,
    TaskQuery,
)
from flowkit_testing.conformance._store_base import (
    NOON,
    StoreSuite,
    change,
    load_one,
    plain,
    record,
)

Call = Callable[[Store, str], Awaitable[object]]


def keyed_change(op_id: str, *keys: str) -> RecordChange:
    """Return a change that puts new records with these keys."""
    return RecordChange(op_id, [KeyedRecord("kind", key, b"1") for key in keys])


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
    "change_records": lambda store, task_id: store.records.change(
        [keyed_change(task_id, f"{task_id}-a", f"{task_id}-b")]
    ),
    "get_records": lambda store, task_id: store.records.get("kind", [task_id]),
    "scan_records": lambda store, task_id: store.records.scan("kind", prefix=task_id),
    "due_records": lambda store, task_id: store.records.due("kind", before=NOON, limit=10),
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

    async def test_a_cancelled_change_of_keyed_records_is_applied_whole_or_not_at_all(
        self, store: Store, task_id: str
    ) -> None:
        began = time.perf_counter()
        await CALLS["change_records"](store, task_id)
        took = time.perf_counter() - began
        with anyio.fail_after(self.patience):
            for number, moment in enumerate(MOMENTS):
                name = f"{task_id}-{number}"
                keys = [f"{name}-a", f"{name}-b"]
                await self.cancel(CALLS["change_records"], store, name, after_sec=took * moment)
                # The change that reaches the store first wins: a cancelled one that comes later
                # finds the records.
                change = keyed_change(f"{name}-after", *keys)
                (applied,) = await store.records.change([change])
                found = await store.records.get("kind", keys)
                revision = f"{name}-after" if applied else name
                assert {key: each.revision for key, each in found.items()} == dict.fromkeys(
                    keys, revision
                )
