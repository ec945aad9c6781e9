"""Generated damage: each field of each collection with each kind of wrong value."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

MISSING = object()
LARGEST = Int64(2**63 - 1)

WRONG: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "text": "x",
    "text with NUL": "a\x00b",
    "number": 7,
    "negative": -1,
    "largest": LARGEST,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "decimal": Decimal128("1"),
    "flag": True,
    "list": [1, "x", None],
    "object": {"blob": 1},
    "reference": {"$ref": "x", "$id": 1},
    "binary": Binary(b"\xff\xfe"),
    "date": datetime(2020, 1, 1, tzinfo=UTC),
    "date without end": DatetimeMS(2**62),
}

FOREIGN_IDS: tuple[Any, ...] = (
    7,
    2.5,
    None,
    True,
    {"a": 1},
    ObjectId("0" * 24),
    b"\x00x",
    datetime(2020, 1, 1),
    LARGEST,
    float("nan"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One field of one document, and the wrong value for it."""

    field: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.field} {self.kind}".replace(".", "-").replace(" ", "-")

    @property
    def update(self) -> dict[str, Any]:
        value = WRONG[self.kind]
        return {"$unset": {self.field: ""}} if value is MISSING else {"$set": {self.field: value}}


def cases(document: dict[str, Any]) -> Iterator[Case]:
    """Return each field of a document except its id, also nested ones, with each wrong value."""
    names = [name for name in document if name != "_id"]
    names += [
        f"{name}.{inner}"
        for name in names
        if isinstance(document[name], dict)
        for inner in document[name]
    ]
    return (Case(name, kind) for name in names for kind in WRONG)


async def damage(
    database: AsyncDatabase[dict[str, Any]], collection: str, found: dict[Any, Case]
) -> dict[Any, Case]:
    """Damage documents, by their ids, and return those for which the server accepted it.

    It refuses values that an index cannot hold.
    """
    updates = [UpdateOne({"_id": document_id}, case.update) for document_id, case in found.items()]
    refused: set[int] = set()
    try:
        await database[f"flowkit_{collection}"].bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        refused = {item["index"] for item in error.details["writeErrors"]}
    assert len(refused) < len(found) / 50 + 2
    return {
        document_id: case
        for number, (document_id, case) in enumerate(found.items())
        if number not in refused
    }


def copies(
    like: dict[str, Any], ids: Iterable[Any], **fields: Callable[[Any], Any]
) -> list[dict[str, Any]]:
    """Return copies of a document with other ids; ``fields`` compute further fields from the id."""
    return [
        {**like, "_id": one, **{name: made(one) for name, made in fields.items()}} for one in ids
    ]
