"""Conditions and page cursors of task lists."""

from flowkit.adapters import FIRST_MOMENT, LAST_MOMENT
from flowkit.errors import StoreError
from flowkit.protocols import TaskQuery, TaskRecord
from flowkit_mongo._database import Document
from flowkit_mongo._document_schemas import TEXT_ID
from flowkit_mongo._documents import pairs


def condition(query: TaskQuery) -> Document:
    """Return the condition of a query.

    Raises:
        StoreError: the page cursor is invalid.
    """
    # A page ends at the place of its last record in the order. A record without a place would hide
    # the records after it, so it is left out.
    moments: Document = {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT, "$not": {"$type": "array"}}
    where: Document = {"_id": TEXT_ID, "created_at": moments}
    if query.statuses:
        where["status"] = {"$in": list(query.statuses)}
    if query.pipeline is not None:
        where["pipeline"] = query.pipeline
    if query.labels:
        where["labels"] = {"$all": pairs(query.labels)}
    if query.after is not None:
        created_at, task_id = _parse_cursor(query.after)
        moments["$lte"] = created_at
        where["$or"] = [{"created_at": {"$lt": created_at}}, {"_id": {"$lt": task_id}}]
    return where


def cursor_after(record: TaskRecord) -> str:
    """Return the cursor of the page after this record."""
    return f"{record.header.created_at!r}|{record.header.task_id}"


def _parse_cursor(cursor: str) -> tuple[float, str]:
    created_at, bar, task_id = cursor.partition("|")
    try:
        if bar:
            return float(created_at), task_id
    except ValueError:
        pass
    raise StoreError(f"invalid page cursor {cursor!r}; use the `next` of an earlier page")
