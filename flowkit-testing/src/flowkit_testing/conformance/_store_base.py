"""Fixtures and helpers of the store suite."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from flowkit.protocols import ArchivedPart, Commit, Store, TaskHeader, TaskRecord
from flowkit_testing.conformance._common import Conformance
from flowkit_testing.conformance._processes import Opener

OpenStore = Callable[[], Store]
OpenNamespace = Callable[[str], Store]

NOON = 1_700_000_000.0


class StoreSuite(Conformance):
    """What the parts of the store suite have in common."""

    oversize_bytes: ClassVar[int | None] = 64 * 1024 * 1024
    """A size that the store refuses; None if it refuses none that fits into memory."""

    @pytest.fixture
    def open_store(self) -> OpenStore | None:
        """A callable that gives another store, not yet entered, over the same data; tests that need
        one are skipped without.
        """
        return None

    @pytest.fixture
    def open_namespace(self) -> OpenNamespace | None:
        """A callable that gives a store, not yet entered, for a namespace on the same server; tests
        that need one are skipped without.
        """
        return None

    @pytest.fixture
    def opener(self) -> Opener | None:
        """How another process opens the same data; tests that need another process are skipped
        without.
        """
        return None

    @pytest.fixture
    def task_id(self, unique: str) -> str:
        return f"task-{unique}"


def open_another(open_store: OpenStore | None) -> Store:
    """Another connection, or the reason why the test is skipped."""
    if open_store is None:
        pytest.skip("needs the fixture open_store")
    return open_store()


def in_namespace(open_namespace: OpenNamespace | None, namespace: str) -> Store:
    """A store of a namespace, or the reason why the test is skipped."""
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
    """A new task; what is not given is plain."""
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
) -> Commit:
    """A commit; what is not given is plain."""
    return Commit(
        task_id, expected_version, op_id, status, wake_at, finished_at, put or {}, drop, archive
    )


async def load_one(store: Store, task_id: str) -> TaskRecord:
    return (await store.load([task_id]))[task_id]


def plain(task: TaskRecord) -> TaskRecord:
    """The record with plain dicts for mappings, so that records of different stores compare."""
    header = dataclasses.replace(task.header, labels=dict(task.header.labels))
    return dataclasses.replace(task, header=header, parts=dict(task.parts))
