"""Checkpoints, which copy the write-ahead log into the file."""

from contextlib import closing
from pathlib import Path

from flowkit_sqlite import SqliteConfig
from flowkit_sqlite._connections import connect_writer
from flowkit_sqlite._log import CHANGES_A_CHECKPOINT, Checkpoints

CONFIG = SqliteConfig()


def checkpoint(path: Path) -> None:
    """Make one checkpoint, and wait until it has ended."""
    checkpoints = Checkpoints(path, CONFIG)
    checkpoints.changed(CHANGES_A_CHECKPOINT)
    checkpoints.stop()


def test_the_log_is_copied_only_while_no_process_can_change_the_file(tmp_path: Path) -> None:
    """A writer that begins the log again beside a checkpoint damages the file."""
    path = tmp_path / "flowkit.db"
    with closing(connect_writer(path, CONFIG)) as connection:
        connection.execute("CREATE TABLE words (word TEXT)")
        before = path.read_bytes()
        connection.execute("BEGIN IMMEDIATE")
        checkpoint(path)
        assert path.read_bytes() == before
        connection.execute("ROLLBACK")
        checkpoint(path)
        assert path.read_bytes() != before
