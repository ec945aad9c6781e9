"""Translation of the driver's errors into FlowKit's, by their classes and the server's codes."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import bson.errors
import gridfs.errors
from pymongo import errors as driver

from flowkit.adapters import redacted
from flowkit.errors import (
    ConfigError,
    FlowKitError,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit_mongo._error_codes import DUPLICATE_KEY, PASSING, TOO_LARGE

ERRORS: tuple[tuple[type[BaseException], type[FlowKitError]], ...] = (
    # The first matching row counts, so derived classes come first.
    (driver.DocumentTooLarge, RecordTooLarge),
    (driver.ConfigurationError, ConfigError),
    (driver.ConnectionFailure, StoreUnavailable),
    (driver.CursorNotFound, StoreUnavailable),
    (driver.ExecutionTimeout, StoreUnavailable),
    (driver.WTimeoutError, StoreUnavailable),
    (driver.WriteConcernError, StoreUnavailable),
    (driver.WriteError, RecordRefused),
    (driver.BulkWriteError, RecordRefused),
    (TimeoutError, StoreUnavailable),
    (OSError, StoreUnavailable),
    (bson.errors.InvalidDocument, RecordRefused),
    (driver.PyMongoError, StoreError),
    (bson.errors.BSONError, StoreError),
    (gridfs.errors.GridFSError, StoreError),
    # BSON cannot express an integer above 64 bits or a lone surrogate.
    (OverflowError, RecordRefused),
    (UnicodeEncodeError, RecordRefused),
)

LONGEST = 300
LONGEST_CODE = 20
_TIMEOUTS = re.compile(r" \(configured timeouts: [^)]*\)")
_TOPOLOGY = re.compile(r", Timeout: [^,]*, Topology Description: .*", re.DOTALL)


def translate(error: BaseException) -> FlowKitError | None:
    """Return FlowKit's error for an error of the driver or the network, None for other errors."""
    for kind, ours in ERRORS:
        if isinstance(error, kind):
            return (_by_code(error) or ours)(redacted(f"MongoDB: {summary(error)}"))
    return None


def summary(error: BaseException) -> str:
    """Return the text of an error in one line.

    It omits the driver's description of the servers and the documents that an error quotes.
    """
    details = _details(error)
    first = next(
        (item for item in (*_writes(details), *_concerns(details)) if item.get("errmsg")), details
    )
    text, code = first.get("errmsg"), first.get("code")
    if not isinstance(text, str):
        text = _TOPOLOGY.sub("", _TIMEOUTS.sub("", str(error))) or type(error).__name__
    elif code is not None:
        text = f"{text[:LONGEST]} (code {code})"
    shown = " ".join(text.split())
    if isinstance(error, driver.ServerSelectionTimeoutError):
        return f"{shown[:LONGEST]}; check that the server runs and that its address is right"
    return shown[: LONGEST + LONGEST_CODE]


def _details(error: BaseException) -> Mapping[str, Any]:
    details = getattr(error, "details", None)
    return details if isinstance(details, Mapping) else {}


def _writes(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return details.get("writeErrors") or []


def _concerns(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return details.get("writeConcernErrors") or []


def _by_code(error: BaseException) -> type[FlowKitError] | None:
    if not isinstance(error, driver.OperationFailure):
        return None
    details = _details(error)
    codes = {error.code, *(item.get("code") for item in _writes(details))}
    if codes & PASSING or _concerns(details):
        return StoreUnavailable
    if codes & TOO_LARGE:
        return RecordTooLarge
    return None


def duplicates(error: driver.BulkWriteError) -> set[int] | None:
    """Return the indexes of a bulk's writes whose key was taken, None if it has other errors."""
    details = _details(error)
    writes = _writes(details)
    if _concerns(details) or any(item.get("code") != DUPLICATE_KEY for item in writes):
        return None
    return {item["index"] for item in writes}


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the driver as FlowKit's."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
