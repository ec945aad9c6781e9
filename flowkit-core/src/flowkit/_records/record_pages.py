"""Pages of keyed records."""

from collections.abc import AsyncIterator, Sequence

from flowkit.protocols import KeyedRecord, RecordStore

PAGE = 500


async def pages_of(
    records: RecordStore, kind: str, *, size: int = PAGE
) -> AsyncIterator[Sequence[KeyedRecord]]:
    """Yield all records of a kind by key, ``size`` of them at a time."""
    after = ""
    while page := await records.scan(kind, after=after, limit=size):
        yield page
        if len(page) < size:
            return
        after = page[-1].key
