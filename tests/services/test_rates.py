"""Rates on a real Kafka and MongoDB."""

import pytest

from tests.rates.several_coordinators import a_rate_is_kept
from tests.services.support import Installation

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


async def test_a_rate_holds_over_two_coordinators(installation: Installation) -> None:
    await a_rate_is_kept(installation.coordinator, installation.worker, installation.client)
