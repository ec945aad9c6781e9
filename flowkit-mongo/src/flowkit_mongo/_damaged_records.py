"""Search for damaged records: documents that do not fit their shape, and files without their
chunks.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pymongo.errors import ExecutionTimeout

from flowkit.protocols import DamagedRecord
from flowkit_mongo._context import Context
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._driver import ANYTHING, Document

SEARCH_SEC = 5.0
"""How long a search may take. The server reads every document for it."""
FILES, CHUNKS = "blobs.files", "blobs.chunks"
LONGEST_ID = 200


class _TimeIsUp(Exception):
    """The search took too long."""


async def damaged_records(context: Context, *, limit: int) -> tuple[list[DamagedRecord], bool]:
    """Up to ``limit`` damaged records, and whether everything was looked at in time."""
    found: list[DamagedRecord] = []
    deadline = time.monotonic() + SEARCH_SEC
    if not context.driver.has_blobs:  # a mock, which knows neither of the conditions
        return found, True
    try:
        async for collection, document, fault in _damaged(context, limit, deadline):
            found.append(
                DamagedRecord(
                    context.name(collection),
                    _text(document.get("_id")),
                    fault,
                    _task_of(collection, document),
                )
            )
            if len(found) == limit:
                break
    except _TimeIsUp:
        return found, False
    return found, True


async def _damaged(
    context: Context, limit: int, deadline: float
) -> AsyncIterator[tuple[str, Document, str]]:
    for collection, shape in SHAPES.items():
        unfitting = {"$nor": [{"$jsonSchema": shape.schema}]}
        for document in await _run(
            context,
            deadline,
            "find",
            collection,
            filter=unfitting,
            limit=limit,
            batchSize=limit,
            singleBatch=True,
        ):
            yield (
                collection,
                document,
                shape.fault(document) or "its document is not one that FlowKit wrote",
            )
    for document in await _run(
        context,
        deadline,
        "aggregate",
        FILES,
        pipeline=_incomplete(context, limit),
        cursor={"batchSize": limit},
    ):
        yield FILES, document, f"it has {document['found']} of {document['wanted']:g} chunks"


def _incomplete(context: Context, limit: int) -> Sequence[Mapping[str, Any]]:
    """Files that have fewer chunks, or more, than their length says."""
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
    """The documents that a command finds, before the deadline."""
    left = max(round((deadline - time.monotonic()) * 1000), 1)
    order = {command: context.name(collection), **options, "maxTimeMS": left}

    async def ask() -> list[Document]:
        try:
            answer = await context.driver.database.command(order, codec_options=ANYTHING)
        except ExecutionTimeout:
            raise _TimeIsUp from None
        found: list[Document] = answer["cursor"]["firstBatch"]
        return found

    return await context.calls.once(ask)


def _task_of(collection: str, document: Document) -> str | None:
    """The task that a record belongs to, where it says so."""
    place = {
        "tasks": document,
        "archive": document.get("_id"),
        FILES: document.get("metadata"),
    }.get(collection, document)
    name = {"tasks": "_id", "archive": "task"}.get(collection, "task_id")
    task_id = place.get(name) if isinstance(place, dict) else None
    return task_id if isinstance(task_id, str) else None


def _text(record_id: object) -> str:
    return record_id if isinstance(record_id, str) else repr(record_id)[:LONGEST_ID]
