"""Schedules in an SQLite file."""

from pathlib import Path

from flowkit import Client, Coordinator
from tests.schedules.restarts import each_time_makes_one_task


async def test_each_time_of_a_schedule_makes_one_task_over_a_restart(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'tasks.db'}"
    await each_time_makes_one_task(lambda: Coordinator(db=db), lambda: Client(db=db))
