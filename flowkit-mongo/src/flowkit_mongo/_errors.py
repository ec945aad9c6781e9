"""What the driver's errors are in FlowKit's tree: one table."""

from collections.abc import Iterator
from contextlib import contextmanager

import bson.errors
import gridfs.errors
from pymongo import errors as driver

from flowkit.errors import ConfigError, FlowKitError, RecordTooLarge, StoreError, StoreUnavailable
from flowkit.showing import redacted

ERRORS: tuple[tuple[type[BaseException], type[FlowKitError]], ...] = (
    # The first row that fits counts, so the special ones come first.
    (driver.DocumentTooLarge, RecordTooLarge),
    (driver.ConfigurationError, ConfigError),
    (driver.ConnectionFailure, StoreUnavailable),
    (driver.CursorNotFound, StoreUnavailable),
    (driver.ExecutionTimeout, StoreUnavailable),
    (driver.WTimeoutError, StoreUnavailable),
    (driver.WriteConcernError, StoreUnavailable),
    (TimeoutError, StoreUnavailable),
    (OSError, StoreUnavailable),
    (driver.PyMongoError, StoreError),
    (bson.errors.BSONError, StoreError),
    (gridfs.errors.GridFSError, StoreError),
)

UNAVAILABLE_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        50,  # MaxTimeMSExpired
        64,  # WriteConcernFailed
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        112,  # WriteConflict
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
    }
)
TOO_LARGE_CODES = frozenset({10334, 17419, 17420})
"""BSONObjectTooLarge, and an update or insert that would make the document so."""
DUPLICATE_KEY = 11000


def translate(error: BaseException) -> FlowKitError | None:
    """FlowKit's error for one of the driver, or None if it is neither the driver's nor the network's."""
    for kind, ours in ERRORS:
        if isinstance(error, kind):
            return (_by_code(error) or ours)(redacted(f"MongoDB: {error}"))
    return None


def _by_code(error: BaseException) -> type[FlowKitError] | None:
    if not isinstance(error, driver.OperationFailure):
        return None
    details = error.details or {}
    codes = {error.code, *(item.get("code") for item in details.get("writeErrors") or ())}
    if codes & UNAVAILABLE_CODES or details.get("writeConcernErrors"):
        return StoreUnavailable
    if codes & TOO_LARGE_CODES:
        return RecordTooLarge
    return None


def duplicates(error: driver.BulkWriteError) -> set[int] | None:
    """Which writes of a bulk found their key taken, or None if the bulk failed for any other reason as well."""
    details = error.details or {}
    writes = details.get("writeErrors") or []
    if details.get("writeConcernErrors") or any(item.get("code") != DUPLICATE_KEY for item in writes):
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
