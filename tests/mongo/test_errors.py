"""The driver's errors in FlowKit's tree."""

import inspect

import bson.errors
import gridfs.errors
import pytest
from pymongo import errors as driver

from flowkit.errors import ConfigError, FlowKitError, RecordTooLarge, StoreError, StoreUnavailable
from flowkit_mongo._errors import translate, translated

EVERY = sorted(
    {
        error
        for module in (driver, bson.errors, gridfs.errors)
        for _, error in inspect.getmembers(module, inspect.isclass)
        if issubclass(error, Exception) and error.__module__.partition(".")[0] in ("pymongo", "bson", "gridfs")
    },
    key=lambda error: error.__name__,
)


def made(error: type[Exception]) -> Exception:
    """One of the class, however its constructor is called."""
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
        (driver.BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), StoreUnavailable),
        (driver.BulkWriteError({"writeErrors": [{"code": 10107, "index": 0}], "writeConcernErrors": []}), StoreUnavailable),
        (driver.OperationFailure("not authorized", 13), StoreError),
        (driver.WriteError("too large", 10334), RecordTooLarge),
        (driver.DocumentTooLarge("too large"), RecordTooLarge),
        (driver.InvalidURI("what"), ConfigError),
        (TimeoutError(), StoreUnavailable),
        (ConnectionResetError(), StoreUnavailable),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:40] if isinstance(value, Exception) else None,
)
def test_errors_are_told_apart(error: Exception, ours: type[FlowKitError]) -> None:
    assert type(translate(error)) is ours


def test_other_errors_pass() -> None:
    assert translate(KeyError("a bug")) is None
    with pytest.raises(KeyError), translated():
        raise KeyError("a bug")


def test_the_cause_is_kept() -> None:
    with pytest.raises(StoreUnavailable, match="gone") as caught, translated():
        raise driver.AutoReconnect("gone")
    assert isinstance(caught.value.__cause__, driver.AutoReconnect)
