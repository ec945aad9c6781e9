"""The shapes of the documents, and how they become the protocol's values and back.

Operators may read them; only FlowKit writes them. Every document has ``schema_version``. Times are
seconds since 1970 as doubles. A *value* is a string (bytes that are UTF-8, which all of FlowKit's
own JSON is), binary data, or ``{"blob": ID}`` where it was too large and lies in the GridFS bucket
``{namespace}_blobs``.

``{namespace}_tasks``: one document a task, with what is in flight::

    {_id: TASK, schema_version: 1, version: 7, op_id: "…", status: "running", created_at: 1.7e9,
    spec: VALUE, parts: {n12: VALUE, …}}

and, where there is one, ``pipeline``, ``labels: [{k, v}, …]``, ``idempotency_key``, ``wake_at``
(when to look at it), ``finished_at``, and ``recent`` (marks of the last bulk commits, by which a
writer tells whether its own was applied).

``{namespace}_archive``: parts that no longer change: ``{_id: {task: TASK, name: NAME},
schema_version, rank, data: VALUE}``.

``{namespace}_artifacts``: ``{_id: '["TASK","NODE",0,"UID"]', schema_version, task_id, node_id,
generation, uid, position, partial,
meta: VALUE or null, metrics: VALUE, created_at, order, put}``. ``order`` sorts those of one time;
    ``put`` marks the call that stored it.

``{namespace}_workers``: ``{_id: WORKER, schema_version, roles: […], beat, started_at, info: [{k,
v}, …], renewed_at}``.

``{namespace}_dead_letters``: ``{_id: LETTER, schema_version, at, kind, reason_code, error, data:
VALUE}`` and, where there are such, ``task_id``, ``node_id``, ``uid``, ``size`` (of the data before
it was cut), ``generation`` and ``attempt`` of a batch, and of a message ``topic``, ``key``,
``partition``, ``position`` and ``headers: [{k, v: BINARY}, …]``.

``{namespace}_purged``: ``{_id: TASK, at: DATE}`` for tasks that were deleted shortly ago, until
what arrived late for them is deleted too.

What users name (nodes, labels, keys) stands in values only, never in the name of a field.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    DeadLetter,
    Stream,
    TaskHeader,
    TaskRecord,
    WorkerSession,
)
from flowkit_mongo._document_schemas import LARGEST_COUNT, PART_NAME, SCHEMA_VERSION, SHAPES
from flowkit_mongo._driver import Change, Document

RECENT = 8
"""So many bulk commits of one task can pass before a writer can no longer tell whether its own was
among them.
"""

LONGEST_KEY = 600
LONGEST_FAULT = 300

Value = str | bytes | Document
Write = Callable[[str, bytes], Value]
"""Makes a value of bytes; the string says what they are used for."""
Read = Callable[[Value], bytes]


def inline(data: bytes) -> Value:
    """A value that is not a blob."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def blob_of(value: object) -> str | None:
    """The id of the blob that a value points at."""
    blob_id = value.get("blob") if isinstance(value, dict) else None
    return blob_id if isinstance(blob_id, str) else None


def pairs(mapping: Mapping[str, str]) -> list[Document]:
    return [{"k": key, "v": value} for key, value in mapping.items()]


def mapping(found: Collection[Mapping[str, str]]) -> dict[str, str]:
    return {pair["k"]: pair["v"] for pair in found}


def _part(name: str) -> str:
    if not PART_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a part")
    return name


# ---------------------------------------------------------------- tasks


def task_document(record: TaskRecord, write: Write) -> Document:
    header = record.header
    optional = {
        "pipeline": header.pipeline,
        "labels": pairs(header.labels) or None,
        "idempotency_key": header.idempotency_key,
        "wake_at": header.wake_at,
        "finished_at": header.finished_at,
    }
    return {
        "_id": header.task_id,
        "schema_version": SCHEMA_VERSION,
        "version": record.version,
        "op_id": record.op_id,
        "status": header.status,
        "created_at": header.created_at,
        **{name: value for name, value in optional.items() if value is not None},
        "spec": write("spec", record.spec),
        "parts": {_part(name): write(f"part/{name}", data) for name, data in record.parts.items()},
    }


def task_record(document: Document, read: Read) -> TaskRecord:
    """A task, of a document whose shape was checked."""
    return TaskRecord(
        _task_header(document),
        read(document["spec"]),
        {name: read(value) for name, value in document["parts"].items()},
        version=document["version"],
        op_id=document["op_id"],
    )


def unreadable_task(document: Document, fault: str) -> TaskRecord:
    """A task with a ``fault``, and of its header what fits, so that it harms no other that is read
    with it.
    """
    fitting = SHAPES["tasks"].fitting(document)
    header = _task_header(
        {"_id": str(document["_id"]), "status": "queued", "created_at": 0.0, **fitting}
    )
    return TaskRecord(
        header,
        b"",
        {},
        version=fitting.get("version", 0),
        op_id=fitting.get("op_id", ""),
        fault=fault[:LONGEST_FAULT],
    )


def _task_header(document: Document) -> TaskHeader:
    return TaskHeader(
        task_id=document["_id"],
        status=document["status"],
        created_at=document["created_at"],
        pipeline=document.get("pipeline"),
        labels=mapping(document.get("labels", ())),
        idempotency_key=document.get("idempotency_key"),
        wake_at=document.get("wake_at"),
        finished_at=document.get("finished_at"),
    )


def commit_change(commit: Commit, write: Write, *, mark: str | None) -> Change:
    """The compare-and-set of a commit. ``mark`` is remembered in the document for a while."""
    put: Document = {"op_id": commit.op_id, "status": commit.status}
    gone = [f"parts.{_part(name)}" for name in commit.drop if name not in commit.put]
    for name, time in (("wake_at", commit.wake_at), ("finished_at", commit.finished_at)):
        if time is None:
            gone.append(name)
        else:
            put[name] = time
    put.update(
        (f"parts.{_part(name)}", write(f"part/{name}", data)) for name, data in commit.put.items()
    )
    update: Document = {"$set": put, "$inc": {"version": 1}, "$unset": dict.fromkeys(gone, "")}
    if not gone:
        del update["$unset"]
    if mark is not None:
        update["$push"] = {"recent": {"$each": [mark], "$slice": -RECENT}}
    return Change({"_id": commit.task_id, "version": commit.expected_version}, update)


# ---------------------------------------------------------------- archive


def archive_id(task_id: str, name: Any) -> Document:
    return {"task": task_id, "name": name}


def archive_change(task_id: str, part: ArchivedPart, value: Value) -> Change:
    """Replace a part of a lower rank, or of none. Where the stored rank is as high, the upsert
    finds its key taken and changes nothing.
    """
    where = {
        "_id": archive_id(task_id, part.name),
        "rank": {"$not": {"$gte": part.rank, "$lte": LARGEST_COUNT}},
    }
    return Change(
        where,
        {"$set": {"schema_version": SCHEMA_VERSION, "rank": part.rank, "data": value}},
        upsert=True,
    )


# ---------------------------------------------------------------- artifacts


def stream_fields(stream: Stream) -> Document:
    return {"task_id": stream.task_id, "node_id": stream.node_id, "generation": stream.generation}


def artifact_id(stream: Stream, uid: str) -> str:
    """Different for different artifacts, whatever characters are in their names; hashed if long."""
    key = json.dumps(
        [stream.task_id, stream.node_id, stream.generation, uid],
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return key if len(key) <= LONGEST_KEY else "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def artifact_document(record: ArtifactRecord, write: Write, *, mark: str) -> Document:
    """The document but for its place in the stream, which :func:`placed` adds."""
    return {
        "_id": artifact_id(record.stream, record.uid),
        "schema_version": SCHEMA_VERSION,
        **stream_fields(record.stream),
        "uid": record.uid,
        "partial": record.partial,
        "meta": None if record.meta is None else write("meta", record.meta),
        "metrics": write("metrics", record.metrics),
        "created_at": record.created_at,
        "put": mark,
    }


def placed(document: Document, position: int) -> Document:
    order = f"{position:012d}/{document['node_id']}/{document['generation']}"
    return {**document, "position": position, "order": order}


def artifact_record(document: Document, read: Read) -> ArtifactRecord:
    return ArtifactRecord(
        stream=Stream(document["task_id"], document["node_id"], document["generation"]),
        uid=document["uid"],
        partial=document["partial"],
        meta=None if document["meta"] is None else read(document["meta"]),
        metrics=read(document["metrics"]),
        created_at=document["created_at"],
        position=document["position"],
    )


# ---------------------------------------------------------------- workers and dead letters


def session_change(session: WorkerSession) -> Change:
    put = {
        "schema_version": SCHEMA_VERSION,
        "roles": list(session.roles),
        "beat": session.beat,
        "started_at": session.started_at,
        "info": pairs(session.info),
    }
    # The server's clock, for it is the server that forgets silent sessions.
    return Change(
        {"_id": session.worker_id}, {"$set": put, "$currentDate": {"renewed_at": True}}, upsert=True
    )


def session(document: Document) -> WorkerSession:
    return WorkerSession(
        document["_id"],
        tuple(document["roles"]),
        document["beat"],
        document["started_at"],
        mapping(document["info"]),
    )


def letter_document(letter: DeadLetter, write: Write) -> Document:
    optional = {
        "task_id": letter.task_id,
        "node_id": letter.node_id,
        "uid": letter.uid,
        "size": letter.size or None,
        "generation": letter.generation or None,
        "attempt": letter.attempt or None,
        "topic": letter.topic,
        "key": _storable(letter.key) if letter.key else None,
        "partition": letter.partition,
        "position": letter.position,
        "headers": [{"k": _storable(name), "v": value} for name, value in letter.headers.items()]
        or None,
    }
    return {
        "_id": letter.letter_id,
        "schema_version": SCHEMA_VERSION,
        "at": letter.at,
        "kind": letter.kind,
        "reason_code": letter.reason_code,
        "error": letter.error,
        **{name: value for name, value in optional.items() if value is not None},
        "data": write("letter", letter.data),
    }


def dead_letter(document: Document, read: Read) -> DeadLetter:
    return _letter(document, read(document["data"]))


def unreadable_letter(document: Document, fault: str) -> DeadLetter:
    """A letter with a ``fault``, and what fits of the rest."""
    least = {
        "_id": str(document["_id"]),
        "at": 0.0,
        "kind": "message",
        "reason_code": "damaged",
        "error": "",
    }
    return _letter(
        least | SHAPES["dead_letters"].fitting(document), b"", fault=fault[:LONGEST_FAULT]
    )


def _letter(document: Document, data: bytes, fault: str | None = None) -> DeadLetter:
    return DeadLetter(
        letter_id=document["_id"],
        at=document["at"],
        kind=document["kind"],
        reason_code=document["reason_code"],
        error=document["error"],
        task_id=document.get("task_id"),
        node_id=document.get("node_id"),
        uid=document.get("uid"),
        data=data,
        size=document.get("size", 0),
        generation=document.get("generation", 0),
        attempt=document.get("attempt", 0),
        topic=document.get("topic"),
        key=_text(document.get("key", "")),
        partition=document.get("partition"),
        position=document.get("position"),
        headers={_text(pair["k"]): pair["v"] for pair in document.get("headers", ())},
        fault=fault,
    )


def _storable(text: str) -> str | bytes:
    """What others gave a message as its key need not be Unicode; MongoDB takes that as bytes
    only.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(stored: str | bytes) -> str:
    if isinstance(stored, str):
        return stored
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")
