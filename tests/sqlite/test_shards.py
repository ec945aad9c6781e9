"""Shards on one file, while a worker is killed."""

from pathlib import Path

import pytest

from tests.services.processes import Processes
from tests.services.sharded_streams import read_while_a_worker_is_killed
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
