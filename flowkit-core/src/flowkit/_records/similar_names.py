"""Names of flows, schedules and triggers that are similar to one that does not exist."""

from difflib import get_close_matches

from flowkit.protocols import RecordStore

MOST_COMPARED = 200
MOST_COMPARED_CHARS = 100


async def similar_name(records: RecordStore, kind: str, name: str) -> str | None:
    """Return the key of the record that is most similar to a name, of the first ones of its kind;
    None if none is similar.
    """
    if len(name) > MOST_COMPARED_CHARS:
        return None
    found = await records.scan(kind, limit=MOST_COMPARED)
    known = [record.key for record in found if len(record.key) <= MOST_COMPARED_CHARS]
    return next(iter(get_close_matches(name, known, n=1)), None)
