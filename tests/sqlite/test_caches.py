"""Cached results in an SQLite file."""

from pathlib import Path

from flowkit import Coordinator
from flowkit.worker import Worker
from tests.caches.shared_results import Fetcher, one_result_is_shared


async def test_one_result_is_shared_until_it_is_deleted(tmp_path: Path) -> None:
    db, fetcher = f"sqlite:///{tmp_path / 'tasks.db'}", Fetcher()
    async with (
        Coordinator(db=db) as one,
        Coordinator(db=db) as other,
        Worker(db=db, handlers=fetcher.handlers),
    ):
        await one_result_is_shared(one, other, fetcher)
