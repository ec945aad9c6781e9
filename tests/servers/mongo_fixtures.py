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
    """Return the address in FLOWKIT_TEST_MONGO, or start a replica set of one for the session."""
    given = os.environ.get(MONGO_VARIABLE)
    if given:
        yield given
        return
    with start_mongo() as servers:
        yield servers.address


@pytest.fixture(scope="session")
def mongo_standalone() -> Iterator[str]:
    """Return the address of a server that is not a member of a replica set."""
    with start_mongo(replica_set=False) as servers:
        yield servers.address


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[MongoServers]:
    """Start a replica set of one for the tests of one module, which must repair what they break."""
    with start_mongo() as servers:
        yield servers


@pytest.fixture
def mongo_set_of_three() -> Iterator[MongoServers]:
    """Start a replica set with fail-over for one test."""
    with start_mongo(members=3) as servers:
        yield servers


def start_mongo(*, members: int = 1, replica_set: bool = True) -> MongoServers:
    """Return servers to enter; if none is available, skip the test, or fail it if CI is true."""
    require_mongo()
    return MongoServers(members=members, replica_set=replica_set)


def require_mongo() -> None:
    """Skip the test if the program of MongoDB is not available, or fail it if CI is true."""
    try:
        mongod_program()
    except Unavailable as error:
        reason = f"no MongoDB: {error}; or set {MONGO_VARIABLE}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)


def drop_from_given_server(database: str) -> None:
    """Drop a database on the server of FLOWKIT_TEST_MONGO; other servers lose their folders."""
    given = os.environ.get(MONGO_VARIABLE)
    if given:
        with MongoClient[dict[str, Any]](given) as client:
            client.drop_database(database)
