"""Search for damaged records: documents with the wrong shape, and files with missing chunks."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import ExecutionTimeout

from flowkit.protocols import DamagedRecord
from flowkit_mongo._context import Context
from flowkit_mongo._database import ANYTHING, Document
from flowkit_mongo._document_schemas import SHAPES

SEARCH_SEC = 5.0
"""Time limit of a search, for which the server reads every document."""
FILES, CHUNKS = "blobs.files", "blobs.chunks"
RECORDS = "records"
LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class Search:
    """The result of a search."""

    records: list[DamagedRecord]
    in_time: bool
    """False if the time limit ended the search before all documents were read."""


class _TimeIsUp(Exception):
    """The search took too long."""


async def damaged_records(context: Context, *, limit: int) -> Search:
    """Search for up to ``limit`` damaged records."""
    found: list[DamagedRecord] = []
    deadline = time.monotonic() + SEARCH_SEC
    if not context.database.driver.has_server:  # a mock supports none of the conditions
        return Search(found, in_time=True)
    try:
        async for record in _damaged(context, limit, deadline):
            found.append(record)
            if len(found) == limit:
                break
    except _TimeIsUp:
        return Search(found, in_time=False)
    return Search(found, in_time=True)


async def _damaged(context: Context, limit: int, deadline: float) -> AsyncIterator[DamagedRecord]:
    for collection, shape in SHAPES.items():
        wrong_shape = {"$nor": [{"$jsonSchema": shape.schema}]}
        for document in await _run(
            context,
            deadline,
            "find",
            collection,
            filter=wrong_shape,
            limit=limit,
            batchSize=limit,
            singleBatch=True,
        ):
            fault = shape.fault(document) or "its document is not one that FlowKit wrote"
            yield _record(context, collection, document, fault)
    for document in await _run(
        context,
        deadline,
        "aggregate",
        FILES,
        pipeline=_incomplete(context, limit),
        cursor={"batchSize": limit},
    ):
        fault = f"it has {document['found']} of {document['wanted']:g} chunks"
        yield _record(context, FILES, document, fault)


def _record(context: Context, collection: str, document: Document, fault: str) -> DamagedRecord:
    record_id = _text(_name(collection, document.get("_id")))
    return DamagedRecord(context.name(collection), record_id, fault, _task_of(collection, document))


def _incomplete(context: Context, limit: int) -> Sequence[Mapping[str, Any]]:
    """Return the pipeline that finds files whose number of chunks does not fit their length."""
    chunks = {
        "from": context.name(CHUNKS),
        "let": {"id": "$_id"},
        "pipeline": [{"$match": {"$expr": {"$eq": ["$files_id", "$$id"]}}}, {"$count": "count"}],
        "as": "chunks",
    }
    wanted = {"$ceil": {"$divide": ["$length", "$chunkSize"]}}
    return [
        {"$match": {"$jsonSchema": SHAPES[FILES].schema}},
        {"$project": {"metadata": 1, "wanted": wanted}},
        {"$lookup": chunks},
        {"$set": {"found": {"$ifNull": [{"$first": "$chunks.count"}, 0]}}},
        {"$match": {"$expr": {"$ne": ["$found", "$wanted"]}}},
        {"$limit": limit},
    ]


async def _run(
    context: Context, deadline: float, command: str, collection: str, **options: Any
) -> list[Document]:
    """Return the documents that a command finds before the deadline."""
    left = max(round((deadline - time.monotonic()) * 1000), 1)
    order = {command: context.name(collection), **options, "maxTimeMS": left}

    async def ask() -> list[Document]:
        try:
            answer = await context.database.handle.command(order, codec_options=ANYTHING)
        except ExecutionTimeout:
            raise _TimeIsUp from None
        found: list[Document] = answer["cursor"]["firstBatch"]
        return found

    return await context.calls.once(ask)


def _task_of(collection: str, document: Document) -> str | None:
    """Return the task that a record belongs to, if it names one."""
    place = {
        "tasks": document,
        "archive": document.get("_id"),
        FILES: document.get("metadata"),
    }.get(collection, document)
    name = {"tasks": "_id", "archive": "task"}.get(collection, "task_id")
    task_id = place.get(name) if isinstance(place, dict) else None
    return task_id if isinstance(task_id, str) else None


def _name(collection: str, document_id: object) -> object:
    """Return the kind and the key of a keyed record as one text."""
    if collection != RECORDS or not isinstance(document_id, dict):
        return document_id
    return " ".join(_text(part) for part in document_id.values())


def _text(record_id: object) -> str:
    return record_id if isinstance(record_id, str) else repr(record_id)[:LONGEST_ID]
