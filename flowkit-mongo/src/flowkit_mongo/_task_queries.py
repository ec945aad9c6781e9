"""Conditions of task lists."""

from flowkit.adapters import FIRST_MOMENT, LAST_MOMENT, read_page_cursor
from flowkit.protocols import TaskQuery
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
    if query.tags:
        where["tags"] = {"$all": list(query.tags)}
    if query.created_after is not None:
        moments["$gt"] = query.created_after
    if query.created_before is not None:
        moments["$lt"] = query.created_before
    if query.after is not None:
        created_at, task_id = read_page_cursor(query.after)
        bound, beyond = ("$gte", "$gt") if query.oldest_first else ("$lte", "$lt")
        moments[bound] = created_at
        where["$or"] = [{"created_at": {beyond: created_at}}, {"_id": {beyond: task_id}}]
    return where
