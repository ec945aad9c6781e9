"""Fixtures and helpers of the store suite."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from flowkit.protocols import ArchivedPart, Commit, Store, TaskHeader, TaskRecord
from flowkit_testing.conformance._common import Conformance
from flowkit_testing.conformance._processes import Opener

OpenStore = Callable[[], Store]
OpenNamespace = Callable[[str], Store]

NOON = 1_700_000_000.0


class StoreSuite(Conformance):
    """Common base of the parts of the store suite."""

    oversize_bytes: ClassVar[int | None] = 64 * 1024 * 1024
    """Size that the store rejects; None if it accepts every size that fits into memory."""

    @pytest.fixture
    def open_store(self) -> OpenStore | None:
        """Return a function that creates another store, not yet entered, for the same data.

        Tests that need it are skipped by default.
        """
        return None

    @pytest.fixture
    def open_namespace(self) -> OpenNamespace | None:
        """Return a function that creates a store, not yet entered, for a namespace on the server.

        Tests that need it are skipped by default.
        """
        return None

    @pytest.fixture
    def opener(self) -> Opener | None:
        """Return the way in which another process opens the same data.

        Tests that need another process are skipped by default.
        """
        return None

    @pytest.fixture
    def task_id(self, unique: str) -> str:
        return f"task-{unique}"


def open_another(open_store: OpenStore | None) -> Store:
    """Open another connection, or skip the test with a reason."""
    if open_store is None:
        pytest.skip("needs the fixture open_store")
    return open_store()


def in_namespace(open_namespace: OpenNamespace | None, namespace: str) -> Store:
    """Open a store for a namespace, or skip the test with a reason."""
    if open_namespace is None:
        pytest.skip("needs the fixture open_namespace")
    return open_namespace(namespace)


def record(
    task_id: str,
    *,
    spec: bytes = b'{"nodes":[]}',
    parts: Mapping[str, bytes] | None = None,
    op_id: str = "created",
    **header: Any,
) -> TaskRecord:
    """Return a new task with default values for what is not given."""
    fields: dict[str, Any] = {"status": "queued", "created_at": NOON} | header
    return TaskRecord(
        TaskHeader(task_id, **fields),
        spec,
        {"state": b'{"n":0}'} if parts is None else parts,
        op_id=op_id,
    )


def change(
    task_id: str,
    expected_version: int = 1,
    *,
    op_id: str = "changed",
    status: str = "running",
    wake_at: float | None = None,
    finished_at: float | None = None,
    put: Mapping[str, bytes] | None = None,
    drop: Sequence[str] = (),
    archive: Sequence[ArchivedPart] = (),
    tags: Collection[str] = (),
) -> Commit:
    """Return a commit with default values for what is not given."""
    return Commit(
        task_id,
        expected_version,
        op_id,
        status,
        wake_at,
        finished_at,
        put or {},
        drop,
        archive,
        tags=frozenset(tags),
    )


async def load_one(store: Store, task_id: str) -> TaskRecord:
    return (await store.load([task_id]))[task_id]


def plain(task: TaskRecord) -> TaskRecord:
    """Return the record with plain dicts, so that records of different stores compare."""
    header = dataclasses.replace(task.header, labels=dict(task.header.labels))
    return dataclasses.replace(task, header=header, parts=dict(task.parts))
