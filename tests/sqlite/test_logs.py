"""Log lines in an SQLite file."""

from pathlib import Path

from flowkit import Client, Coordinator
from flowkit.worker import Worker
from tests.client.followed_logs import lines_are_kept_and_followed


async def test_log_lines_are_kept_and_followed(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'tasks.db'}"
    await lines_are_kept_and_followed(
        lambda: Coordinator(db=db),
        lambda handlers: Worker(db=db, handlers=handlers),
        lambda: Client(db=db),
    )
