"""Translation of the driver's errors into FlowKit's."""

import inspect

import bson.errors
import gridfs.errors
import pytest
from pymongo import MongoClient, helpers_shared
from pymongo import errors as driver

from flowkit.errors import (
    ConfigError,
    FlowKitError,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_mongo._error_codes import DUPLICATE_KEY, PASSING, TOO_LARGE
from flowkit_mongo._errors import translate, translated
from tests.mongo.lasting_error_codes import LASTING
from tests.servers.mongod import MongoServers

EVERY = sorted(
    {
        error
        for module in (driver, bson.errors, gridfs.errors)
        for _, error in inspect.getmembers(module, inspect.isclass)
        if issubclass(error, Exception)
        and error.__module__.partition(".")[0] in ("pymongo", "bson", "gridfs")
    },
    key=lambda error: error.__name__,
)


def made(error: type[Exception]) -> Exception:
    """Return an instance of the class, for any signature of its constructor."""
    if issubclass(error, driver.BulkWriteError):
        return error({"writeErrors": [], "writeConcernErrors": []})
    for arguments in (("why",), ("why", [])):
        try:
            return error(*arguments)
        except (TypeError, AttributeError):
            continue
    return error({"errmsg": "why"}, False)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_no_error_of_the_driver_is_missing(error: type[Exception]) -> None:
    ours = translate(made(error))
    assert isinstance(ours, FlowKitError)
    if issubclass(error, driver.ConnectionFailure):
        assert isinstance(ours, StoreUnavailable)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (driver.AutoReconnect("gone"), StoreUnavailable),
        (driver.NetworkTimeout("late"), StoreUnavailable),
        (driver.ServerSelectionTimeoutError("none"), StoreUnavailable),
        (driver.WTimeoutError("late", 64), StoreUnavailable),
        (driver.OperationFailure("stepped down", 189), StoreUnavailable),
        (driver.OperationFailure("shutting down", 91), StoreUnavailable),
        (
            driver.BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
            StoreUnavailable,
        ),
        (
            driver.BulkWriteError(
                {"writeErrors": [{"code": 10107, "index": 0}], "writeConcernErrors": []}
            ),
            StoreUnavailable,
        ),
        (driver.OperationFailure("not authorized", 13), StoreError),
        (
            driver.BulkWriteError(
                {"writeErrors": [{"code": 28, "index": 0}], "writeConcernErrors": []}
            ),
            RecordRefused,
        ),
        (
            driver.BulkWriteError(
                {"writeErrors": [{"code": 28, "index": 0}, {"code": 91, "index": 1}]}
            ),
            StoreUnavailable,
        ),
        (driver.WriteError("not viable", 28), RecordRefused),
        (driver.OperationFailure("an unknown code", 987654), StoreError),
        (OverflowError("MongoDB can only handle up to 8-byte ints"), RecordRefused),
        (driver.WriteError("too large", 10334), RecordTooLarge),
        (driver.DocumentTooLarge("too large"), RecordTooLarge),
        (driver.InvalidURI("what"), ConfigError),
        (TimeoutError(), StoreUnavailable),
        (ConnectionResetError(), StoreUnavailable),
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{value}"[:40] if isinstance(value, Exception) else None
    ),
)
def test_errors_are_classified(error: Exception, ours: type[FlowKitError]) -> None:
    assert type(translate(error)) is ours


def test_other_errors_pass() -> None:
    assert translate(KeyError("a bug")) is None
    with pytest.raises(KeyError), translated():
        raise KeyError("a bug")


def test_the_cause_is_kept() -> None:
    with pytest.raises(StoreUnavailable, match="gone") as caught, translated():
        raise driver.AutoReconnect("gone")
    assert isinstance(caught.value.__cause__, driver.AutoReconnect)


# ---------------------------------------------------------------- codes of the server


def test_each_code_is_in_one_table() -> None:
    tables = [PASSING, TOO_LARGE, LASTING, {DUPLICATE_KEY}]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


def test_what_the_driver_repeats_passes() -> None:
    repeated = (
        helpers_shared._RETRYABLE_ERROR_CODES
        | helpers_shared._NOT_PRIMARY_CODES
        | helpers_shared._SHUTDOWN_CODES
    )
    assert repeated <= PASSING


CLOSING = {303, 330, 354, 372}
"""Codes with which this server exits instead of answering."""


@pytest.mark.services
def test_no_code_that_a_server_knows_is_missing(own_mongo: MongoServers) -> None:
    primary, known = own_mongo.primary(), dict[int, str]()
    # Codes that the driver takes for a change of the server's state are left out: it would search
    # for a primary each time.
    asked = sorted(
        {*range(1, 400), *PASSING, *TOO_LARGE, 13297, 17280}
        - CLOSING
        - helpers_shared._NOT_PRIMARY_CODES
        - {92}
    )
    with MongoClient[dict[str, object]](
        primary.host, directConnection=True, retryReads=False
    ) as client:
        for code in asked:
            data = {"failCommands": ["ping"], "errorCode": code}
            client.admin.command(
                {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data}
            )
            try:
                client.admin.command("ping")
            except driver.OperationFailure as error:
                name = (error.details or {}).get("codeName", "Location")
                if not name.startswith("Location"):
                    known[code] = name
    assert len(known) > 300
    assert {
        code: name
        for code, name in known.items()
        if code not in PASSING | TOO_LARGE | LASTING | {DUPLICATE_KEY}
    } == {}


# ---------------------------------------------------------------- texts


async def test_an_unreachable_server_is_reported_in_one_line_with_a_remedy() -> None:
    address = (
        "mongodb://user:secret@127.0.0.1:1,127.0.0.1:2/?replicaSet=rs0&serverSelectionTimeoutMS=50"
    )
    with pytest.raises(StoreUnavailable) as caught:
        await MongoStore(address, config=MongoConfig(retry_for_sec=0)).__aenter__()
    text = str(caught.value)
    assert text.startswith("MongoDB: ")
    assert text.endswith("check that the server runs and that its address is right")
    assert len(text) < 400
    assert not [
        word for word in ("Topology", "\n", "configured timeouts", "secret") if word in text
    ]


def test_an_error_does_not_quote_the_documents_it_is_about() -> None:
    details = {
        "writeErrors": [
            {"index": 0, "code": 28, "errmsg": "not viable", "op": {"u": "tulips" * 1000}}
        ],
        "writeConcernErrors": [],
    }
    assert str(translate(driver.BulkWriteError(details))) == "MongoDB: not viable (code 28)"
    failure = driver.OperationFailure(
        "not authorized", 13, {"errmsg": "not authorized", "code": 13, "$clusterTime": "tulips"}
    )
    assert str(translate(failure)) == "MongoDB: not authorized (code 13)"
