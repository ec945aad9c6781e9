"""Shards on a real Kafka and MongoDB, while a worker is killed."""

import pytest

from tests.services.processes import Processes
from tests.services.sharded_streams import read_while_a_worker_is_killed
from tests.services.support import Installation

pytestmark = pytest.mark.services


async def test_the_shards_of_a_killed_worker_run_elsewhere_and_store_each_batch_once(
    installation: Installation, processes: Processes
) -> None:
    await read_while_a_worker_is_killed(installation, processes)
