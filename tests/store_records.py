"""Small records for the tests of stores."""

from collections.abc import Collection, Mapping, Sequence
from secrets import token_hex
from typing import Any

from flowkit._records.worker_sessions import WorkerSession, session_record
from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    RecordChange,
    Store,
    Stream,
    TaskHeader,
    TaskRecord,
)
from flowkit.task import DeadLetter

NOON = 1_700_000_000.0
LETTER = DeadLetter(
    letter_id="batch-t-like",
    at=NOON,
    kind="batch",
    reason_code="code",
    error="error",
    task_id="t",
    node_id="n",
    uid="u",
    data=b"data",
    size=2000,
    generation=1,
    attempt=2,
    topic="topic",
    key="key",
    partition=3,
    position=4,
    headers={"header": b"\xff"},
)
"""A dead letter with all fields."""


def task(
    task_id: str, *, spec: bytes = b"{}", parts: Mapping[str, bytes] | None = None, **header: Any
) -> TaskRecord:
    fields = {"status": "queued", "created_at": NOON} | header
    return TaskRecord(
        TaskHeader(task_id, **fields),
        spec,
        {"state": b"0"} if parts is None else parts,
        op_id="created",
    )


def change(
    task_id: str,
    version: int = 1,
    *,
    op_id: str = "op",
    status: str = "running",
    put: Mapping[str, bytes] | None = None,
    drop: Sequence[str] = (),
    archive: Sequence[ArchivedPart] = (),
    finished_at: float | None = None,
    durable: bool = True,
    tags: Collection[str] = (),
) -> Commit:
    return Commit(
        task_id,
        version,
        op_id,
        status,
        None,
        finished_at,
        put or {},
        drop,
        archive,
        durable,
        frozenset(tags),
    )


def artifact(stream: Stream, uid: str, meta: bytes = b"{}", *, at: float = NOON) -> ArtifactRecord:
    return ArtifactRecord(stream, uid, True, meta, b"{}", at)


async def put_session(store: Store, session: WorkerSession) -> None:
    """Store the session of a worker in place of any other."""
    found = (await store.records.get("worker", [session.worker_id])).get(session.worker_id)
    record = session_record(session, "" if found is None else found.revision)
    op_id = f"{session.worker_id}-{token_hex(4)}"
    assert list(await store.records.change([RecordChange(op_id, [record])])) == [True]
