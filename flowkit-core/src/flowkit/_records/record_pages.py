"""Pages of keyed records."""

from collections.abc import AsyncIterator, Sequence

from flowkit.protocols import KeyedRecord, RecordStore

PAGE = 500


async def pages_of(records: RecordStore, kind: str) -> AsyncIterator[Sequence[KeyedRecord]]:
    """Yield all records of a kind by key, page by page."""
    after = ""
    while page := await records.scan(kind, after=after, limit=PAGE):
        yield page
        if len(page) < PAGE:
            return
        after = page[-1].key
