"""Triggers in an SQLite file."""

from pathlib import Path

from flowkit import Client, Coordinator
from tests.triggers.restarts import each_end_makes_one_task


async def test_each_end_of_a_task_makes_one_task_of_the_trigger(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'tasks.db'}"
    await each_end_makes_one_task(lambda: Coordinator(db=db), lambda: Client(db=db))
