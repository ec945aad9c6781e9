"""Fixtures with a real MongoDB."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from tests.servers.mongod import MongoServers, mongod_program
from tests.servers.processes import Unavailable, in_ci

MONGO_VARIABLE = "FLOWKIT_TEST_MONGO"


@pytest.fixture(scope="session")
def mongo_address() -> Iterator[str]:
    """Address of a MongoDB: that of FLOWKIT_TEST_MONGO, else of a replica set of one that is
    started for the session.
    """
    given = os.environ.get(MONGO_VARIABLE)
    if given:
        yield given
        return
    with start_mongo() as servers:
        yield servers.address


@pytest.fixture(scope="session")
def mongo_standalone() -> Iterator[str]:
    """Address of a server that is no member of a replica set."""
    with start_mongo(replica_set=False) as servers:
        yield servers.address


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[MongoServers]:
    """A replica set of one for the tests of this module alone, which may break it if they mend it
    again.
    """
    with start_mongo() as servers:
        yield servers


@pytest.fixture
def mongo_set_of_three() -> Iterator[MongoServers]:
    """A replica set with fail-over for this test alone."""
    with start_mongo(members=3) as servers:
        yield servers


def start_mongo(*, members: int = 1, replica_set: bool = True) -> MongoServers:
    """Servers to enter; where they cannot be had, skip the test, or fail it where CI is true."""
    try:
        mongod_program()
    except Unavailable as error:
        reason = f"no MongoDB: {error}; or set {MONGO_VARIABLE}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
    return MongoServers(members=members, replica_set=replica_set)


def drop_from_given_server(database: str) -> None:
    """Leave nothing behind on the server of FLOWKIT_TEST_MONGO; one that was started here goes with
    its folder.
    """
    given = os.environ.get(MONGO_VARIABLE)
    if given:
        with MongoClient[dict[str, Any]](given) as client:
            client.drop_database(database)
