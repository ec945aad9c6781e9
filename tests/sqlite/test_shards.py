"""Shards on one file: while a worker is killed, and in one slot."""

from pathlib import Path

import pytest

from tests.services.processes import Processes
from tests.services.sharded_streams import read_while_a_worker_is_killed
from tests.services.streams_in_one_slot import read_in_one_slot
from tests.services.support import Installation
from tests.sqlite.members import SQLITE

pytestmark = pytest.mark.anyio


class OnFile(Installation):
    """An installation on one file."""

    def __init__(self, path: Path) -> None:
        address = f"sqlite:///{path}"
        self.common = {"db": address, "bus": address, "options": {"sqlite": SQLITE}}


async def test_the_shards_of_a_killed_worker_run_elsewhere_and_store_each_batch_once(
    anyio_backend: str, path: Path, tmp_path: Path
) -> None:
    installation = OnFile(path)
    with Processes(installation, tmp_path) as processes:
        await read_while_a_worker_is_killed(installation, processes)


async def test_readers_leave_the_only_slot_to_their_producer_and_to_the_end_of_shards(
    anyio_backend: str, path: Path
) -> None:
    await read_in_one_slot(OnFile(path))
