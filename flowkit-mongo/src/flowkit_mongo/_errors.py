"""The driver's errors in FlowKit's tree: one table for their classes, one for the codes of the
server.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import bson.errors
import gridfs.errors
from pymongo import errors as driver

from flowkit._text.redaction import redacted
from flowkit.errors import (
    ConfigError,
    FlowKitError,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit_mongo._codes import DUPLICATE_KEY, PASSING, TOO_LARGE

ERRORS: tuple[tuple[type[BaseException], type[FlowKitError]], ...] = (
    # The first row that fits counts, so the special ones come first.
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
    # An integer above 64 bits and a lone surrogate: BSON has no form for them.
    (OverflowError, RecordRefused),
    (UnicodeEncodeError, RecordRefused),
)

LONGEST = 300
_TIMEOUTS = re.compile(r" \(configured timeouts: [^)]*\)")
_TOPOLOGY = re.compile(r", Timeout: [^,]*, Topology Description: .*", re.DOTALL)


def translate(error: BaseException) -> FlowKitError | None:
    """FlowKit's error for one of the driver, or None if it is neither the driver's nor the
    network's.
    """
    for kind, ours in ERRORS:
        if isinstance(error, kind):
            return (_by_code(error) or ours)(redacted(f"MongoDB: {said(error)}"))
    return None


def said(error: BaseException) -> str:
    """What an error says, in one line: without the driver's view of the servers, and without the
    documents that it quotes.
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
    return (
        f"{shown[:LONGEST]}; is the server running, and its address right?"
        if _found_no_server(error)
        else shown[: LONGEST + 20]
    )


def _found_no_server(error: BaseException) -> bool:
    return isinstance(error, driver.ServerSelectionTimeoutError)


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
    """Which writes of a bulk found their key taken, or None if the bulk failed for any other reason
    as well.
    """
    details = _details(error)
    writes = _writes(details)
    if _concerns(details) or any(item.get("code") != DUPLICATE_KEY for item in writes):
        return None
    return {item["index"] for item in writes}


@contextmanager
def translated() -> Iterator[None]:
    """Within this, the driver's errors are raised as FlowKit's."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
