"""Rates in an SQLite file."""

from pathlib import Path

from flowkit import Client, Coordinator
from flowkit.worker import Worker
from tests.rates.several_coordinators import a_rate_is_kept


async def test_a_rate_holds_over_two_coordinators(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'tasks.db'}"
    await a_rate_is_kept(
        lambda: Coordinator(db=db),
        lambda handlers: Worker(db=db, handlers=handlers),
        lambda: Client(db=db),
    )
