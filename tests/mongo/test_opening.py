"""Sources that are opened as stores on MongoDB, and their settings."""

import time
from typing import Any

import pytest
from mongomock_motor import AsyncMongoMockClient
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient

from flowkit.config import CoordinatorConfig
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import ServerClock
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_mongo._database import open_address

NOWHERE = "mongodb://nowhere.invalid/?serverSelectionTimeoutMS=50"


def opened(source: Any, **config: Any) -> Any:
    return Plugins().open_store(source, CoordinatorConfig(**config))


async def test_addresses_and_asynchronous_databases_are_taken() -> None:
    motor, mock = AsyncIOMotorClient(NOWHERE, connect=False), AsyncMongoMockClient()
    async with AsyncMongoClient(NOWHERE, connect=False) as client:
        for source in (
            NOWHERE,
            "mongodb+srv://example.org/name",
            motor["name"],
            client["name"],
            mock["name"],
        ):
            assert isinstance(opened(source), MongoStore)
    motor.close()


async def test_anything_else_is_left_to_others() -> None:
    with MongoClient(NOWHERE, connect=False) as client:
        for source in (
            "postgres://host",
            "mongodb",
            client["name"],
            AsyncMongoMockClient(),
            3,
            object(),
        ):
            with pytest.raises(ConfigError, match="no plugin opens a store"):
                opened(source)
            with pytest.raises(ConfigError, match="neither"):
                MongoStore(source)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"blob_treshold_bytes": 1},
            (
                r"options\.mongo\.blob_treshold_bytes: there is no such field; did you mean"
                r" 'blob_threshold_bytes'\?"
            ),
        ),
        ({"max_pool_size": "many"}, r"options\.mongo\.max_pool_size: must be a whole number"),
        (
            {"blob_threshold_bytes": 5_000_000},
            r"options\.mongo\.blob_threshold_bytes: must be at most 1000000",
        ),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opened(NOWHERE, options={"mongo": options})


async def test_an_address_that_is_none_is_named_when_it_is_opened() -> None:
    with pytest.raises(ConfigError, match="RFC 2396") as caught:
        await MongoStore("mongodb://user:secret@host:port:more/name").__aenter__()
    assert "secret" not in str(caught.value)


async def test_a_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await MongoStore(NOWHERE, config=MongoConfig(retry_for_sec=0)).__aenter__()


async def test_the_database_is_that_of_the_address_and_its_options_win() -> None:
    database = open_address("mongodb://h/other?maxPoolSize=7&APPNAME=mine", MongoConfig())
    client = database.client
    assert database.name == "other"
    assert (client.options.pool_options.max_pool_size, client.options.pool_options.appname) == (
        7,
        "mine",
    )
    await client.close()
    database = open_address("mongodb://h", MongoConfig(max_pool_size=9))
    client = database.client
    assert (database.name, client.options.pool_options.max_pool_size) == ("flowkit", 9)
    await client.close()


@pytest.mark.services
async def test_a_client_opened_here_is_closed_and_one_that_was_given_stays_open(
    mongo_address: str,
) -> None:
    own = MongoStore(mongo_address)
    async with own:
        client = own._client
    assert own._client is None
    with pytest.raises(Exception, match="after close"):
        await client.admin.command("ping")
    async with AsyncMongoClient(mongo_address) as given:
        async with MongoStore(given["flowkit-opening"]):
            pass
        await given.admin.command("ping")
        await given.drop_database("flowkit-opening")


@pytest.mark.services
async def test_the_time_of_a_store_is_that_of_its_server(store: MongoStore) -> None:
    assert isinstance(store, ServerClock)
    assert abs(await store.server_time() - time.time()) < 60


async def test_the_time_of_a_mock_is_that_of_the_process() -> None:
    async with MongoStore(AsyncMongoMockClient()["name"]) as store:
        assert abs(await store.server_time() - time.time()) < 60
