"""A stream in one slot, on a real Kafka and MongoDB."""

import pytest

from tests.services.streams_in_one_slot import read_in_one_slot
from tests.services.support import Installation

pytestmark = pytest.mark.services


async def test_readers_leave_the_only_slot_to_their_producer_and_to_the_end_of_shards(
    installation: Installation,
) -> None:
    await read_in_one_slot(installation)
