"""Documents of each collection, and their conversion from and to the protocol's records.

Operators may read the documents; only FlowKit writes them. Every document has ``schema_version``.
Times are seconds since 1970 as doubles. A *value* is text (bytes that are UTF-8, as all of
FlowKit's own JSON is), binary data, or ``{"blob": ID}`` for a large payload in the GridFS bucket
``{namespace}_blobs``.

``{namespace}_tasks``: one document for each task, with its current state::

    {_id: TASK, schema_version: 1, version: 7, op_id: "…", status: "running", created_at: 1.7e9,
     spec: VALUE, parts: {n12: VALUE, …}}

Optional fields are ``pipeline``, ``labels: [{k, v}, …]``, ``idempotency_key``, ``wake_at`` (the
time of the next wake-up), ``finished_at``, ``tags: […]`` (by which the task is found), and
``recent`` (marks of the last bulk commits, by which a writer finds out whether its own commit was
applied).

``{namespace}_archive``: one document for each part that no longer changes::

    {_id: {task: TASK, name: NAME}, schema_version, rank, data: VALUE}

``{namespace}_artifacts``: one document for each artifact::

    {_id: '["TASK","NODE",0,"UID"]', schema_version, task_id, node_id, generation, uid, position,
     partial, meta: VALUE or null, metrics: VALUE, created_at, order, put}

``order`` sorts artifacts of the same time; ``put`` marks the call that stored the artifact.

``{namespace}_records``: one document for each keyed record, such as the session of a worker or a
dead letter::

    {_id: {kind: KIND, key: KEY}, schema_version, revision, data: TEXT or BINARY}

Optional fields are ``due_at``, ``task_id``, and ``next: {change, revision, data, due_at, task_id}``
(the mark of a change of several records, with the contents after it). An empty ``revision`` means
that there is no record: before the change, or after it.

``{namespace}_record_changes``: one document for each change of several records that is not
complete::

    {_id: CHANGE, schema_version, at: DATE, records: [{kind, key}, …]}

It has ``committed: true`` once it cannot be prevented any more.

``{namespace}_purged``: ``{_id: TASK, at: DATE}`` for each recently deleted task, until records that
arrived late for it are deleted too.

Names that users choose (of nodes, labels, keys) are in values only, never in the name of a field.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    KeyedRecord,
    RecordDeletion,
    Stream,
    TaskHeader,
    TaskRecord,
)
from flowkit_mongo._database import Change, Document
from flowkit_mongo._document_schemas import SCHEMA_VERSION, SHAPES
from flowkit_mongo._value_forms import LARGEST_COUNT, PART_NAME

RECENT = 8
"""Number of bulk commits whose marks a task keeps.

After that many further commits, a writer can no longer find out whether its own was applied.
"""

LONGEST_KEY = 600
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
LONGEST_FAULT = 300

Value = str | bytes | Document
Write = Callable[[str, bytes], Value]
"""Returns the value for bytes; the string names their use."""
Read = Callable[[Value], bytes]
"""Returns the bytes of a value."""


def inline(data: bytes) -> Value:
    """Return the value that holds these bytes itself."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def blob_of(value: object) -> str | None:
    """Return the id of the blob that a value points at, or None."""
    blob_id = value.get("blob") if isinstance(value, dict) else None
    return blob_id if isinstance(blob_id, str) else None


def pairs(mapping: Mapping[str, str]) -> list[Document]:
    """Return a mapping as a list of pairs, which keeps users' names out of field names."""
    return [{"k": key, "v": value} for key, value in mapping.items()]


def mapping(found: Collection[Mapping[str, str]]) -> dict[str, str]:
    """Return the mapping of a list of pairs."""
    return {pair["k"]: pair["v"] for pair in found}


@lru_cache(maxsize=1024)
def _part(name: str) -> str:
    if not PART_NAME.fullmatch(name):
        raise ValueError(f"invalid name of a part {name!r}; it must match {PART_NAME.pattern}")
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
        "tags": sorted(header.tags) or None,
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
    """Return the task of a document whose shape was checked."""
    return TaskRecord(
        _task_header(document),
        read(document["spec"]),
        {name: read(value) for name, value in document["parts"].items()},
        version=document["version"],
        op_id=document["op_id"],
    )


def unreadable_task(document: Document, fault: str) -> TaskRecord:
    """Return a task with its ``fault`` and its undamaged header fields.

    So a damaged task does not fail a read of several tasks.
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
        tags=frozenset(document.get("tags", ())),
    )


def commit_change(commit: Commit, write: Write, *, mark: str | None) -> Change:
    """Return the compare-and-set of a commit; the document keeps its ``mark`` for a while."""
    put: Document = {"op_id": commit.op_id, "status": commit.status}
    gone = [f"parts.{_part(name)}" for name in commit.drop if name not in commit.put]
    optional = {
        "wake_at": commit.wake_at,
        "finished_at": commit.finished_at,
        "tags": sorted(commit.tags) or None,
    }
    for name, value in optional.items():
        if value is None:
            gone.append(name)
        else:
            put[name] = value
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


def archive_document(task_id: str, part: ArchivedPart, value: Value) -> Document:
    return {
        "_id": archive_id(task_id, part.name),
        "schema_version": SCHEMA_VERSION,
        "rank": part.rank,
        "data": value,
    }


def archive_change(document: Document) -> Change:
    """Return the change that stores a part unless the stored one has the same or a higher rank.

    In that case, the upsert finds its key taken and has no effect.
    """
    fields = dict(document)
    where = {
        "_id": fields.pop("_id"),
        "rank": {"$not": {"$gte": document["rank"], "$lte": LARGEST_COUNT}},
    }
    return Change(where, {"$set": fields}, upsert=True)


# ---------------------------------------------------------------- artifacts


def stream_fields(stream: Stream) -> Document:
    return {"task_id": stream.task_id, "node_id": stream.node_id, "generation": stream.generation}


def artifact_id(stream: Stream, uid: str) -> str:
    """Return the id of an artifact, unique for any characters in its names; long ids are hashed."""
    key = _compact([stream.task_id, stream.node_id, stream.generation, uid])
    return key if len(key) <= LONGEST_KEY else "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def artifact_document(record: ArtifactRecord, write: Write, *, mark: str) -> Document:
    """Return the document without its position in the stream, which :func:`placed` adds."""
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
    """Return the document of an artifact with its position."""
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


# ---------------------------------------------------------------- keyed records

AFTER_ALL_TEXTS: Document = {}
"""MongoDB sorts objects after strings."""
NOT_YET: Document = {"schema_version": SCHEMA_VERSION, "data": ""}
"""Fields of a document whose record does not exist before a change."""


def gone_update(op_id: str) -> Document:
    """Return the update that leaves a document without a record, which names the deletion."""
    return {
        "$set": NOT_YET | {"revision": "", "gone": op_id},
        "$unset": {"due_at": "", "task_id": "", "next": ""},
    }


def record_id(kind: str, key: Any) -> Document:
    return {"kind": kind, "key": key}


def name_of(document_id: Document) -> str:
    """Return a text that identifies a document by its id."""
    return f"{document_id.get('kind')!r} {document_id.get('key')!r}"


def record_document(record: KeyedRecord, op_id: str) -> Document:
    """Return the document of a new record."""
    return {"_id": record_id(record.kind, record.key), **record_update(record, op_id)["$set"]}


def record_update(record: KeyedRecord, op_id: str) -> Document:
    """Return the update of a record's document."""
    return current_fields(following_fields(record, "", op_id))


def following_fields(record: KeyedRecord | RecordDeletion, mark: str, op_id: str) -> Document:
    """Return the contents of a record after a change, with the mark of the change."""
    if isinstance(record, RecordDeletion):
        return {"change": mark, "revision": "", "data": "", "due_at": None, "task_id": None}
    return {
        "change": mark,
        "revision": op_id,
        "data": inline(bytes(record.data)),
        "due_at": record.due_at,
        "task_id": record.task_id,
    }


def current_fields(following: Document) -> Document:
    """Return the update that makes the next contents of a record the current ones."""
    optional = {name: following[name] for name in ("due_at", "task_id")}
    gone = ["next", "gone", *(name for name, value in optional.items() if value is None)]
    put = {"schema_version": SCHEMA_VERSION}
    put |= {name: following[name] for name in ("revision", "data")}
    put |= {name: value for name, value in optional.items() if value is not None}
    return {"$set": put, "$unset": dict.fromkeys(gone, "")}


def note_change(mark: str, records: Collection[Document]) -> Change:
    """Return the write that stores a change which is not committed."""
    put = {"schema_version": SCHEMA_VERSION, "records": list(records)}
    # The time is the server's, because other processes compare it.
    return Change({"_id": mark}, {"$set": put, "$currentDate": {"at": True}}, upsert=True)


def mark_of(document: Document) -> str | None:
    """Return the change whose mark a record's document has."""
    following = document.get("next")
    mark = following.get("change") if isinstance(following, dict) else None
    return mark if isinstance(mark, str) else None


def keyed_record(document: Document, *, following: bool) -> KeyedRecord | None:
    """Return the record of a document whose shape was checked, or None if there is none.

    With ``following``, it is that after the change whose mark the document has.
    """
    contents = document["next"] if following else document
    if not contents["revision"]:
        return None
    data = contents["data"]
    return KeyedRecord(
        document["_id"]["kind"],
        document["_id"]["key"],
        data.encode() if isinstance(data, str) else data,
        contents["revision"],
        contents.get("due_at"),
        contents.get("task_id"),
    )
