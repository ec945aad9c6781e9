"""Fixtures with a real Kafka."""

import os
from collections.abc import Iterator

import pytest

from tests.servers.kafka import KafkaServer
from tests.servers.processes import Unavailable, in_ci

KAFKA_VARIABLE = "FLOWKIT_TEST_KAFKA"


@pytest.fixture(scope="session")
def kafka_address() -> Iterator[str]:
    """Return the bootstrap servers in FLOWKIT_TEST_KAFKA, or start a broker for the session."""
    given = os.environ.get(KAFKA_VARIABLE)
    if given:
        yield given.removeprefix("kafka://")
        return
    with start_kafka() as server:
        yield server.address


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaServer]:
    """Start a broker for the tests of one module, which may break it if they repair it again."""
    with start_kafka() as server:
        yield server


def start_kafka(*, brokers: int = 1, **settings: object) -> KafkaServer:
    """Start a Kafka; if that is impossible, skip the test, or fail it if CI is true."""
    try:
        return KafkaServer.start(brokers=brokers, **settings)
    except Unavailable as error:
        reason = f"no Kafka: {error}; or set {KAFKA_VARIABLE}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
