"""Translation of SQLite's errors into FlowKit's, by one table of result codes."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flowkit.errors import (
    BusError,
    BusUnavailable,
    FlowKitError,
    MessageTooLarge,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)

Error = TypeVar("Error", bound=FlowKitError)


@dataclass(frozen=True, slots=True)
class Translation:
    """FlowKit's error for a result code, with a remedy for the operator."""

    error: type[StoreError]
    remedy: str = ""


_LOCKED = Translation(
    StoreUnavailable,
    "continue or end the process that has kept its transaction open for longer than"
    " options.sqlite.busy_timeout_sec; it may be suspended",
)
RIGHTS = (
    "give this user the right to write the file and its folder, on a file system that is not"
    " mounted read-only, or copy the file to a folder where this user may write"
)
_FORBIDDEN = Translation(StoreUnavailable, RIGHTS)
_FULL = Translation(StoreUnavailable, "the disk is full, or a quota is used up: free space on it")
_DAMAGED = Translation(
    StoreError, "stop all processes that use it, and restore the file from a backup"
)
_DEFECT = Translation(StoreError)
_OTHER_TABLES = Translation(
    StoreError,
    "if another program has changed its tables, stop all processes that use it, and restore the"
    " file from a backup",
)
_CHECK_DISK = (
    "check the disk, and whether its file system was mounted read-only after an error; the file"
    " must not be on a network file system"
)
_NOT_WRITTEN = Translation(
    StoreUnavailable,
    f"raise the largest size of files that this process may write, if it is limited (ulimit -f);"
    f" otherwise {_CHECK_DISK}",
)

TRANSLATIONS: dict[int, Translation] = {
    sqlite3.SQLITE_ERROR: _OTHER_TABLES,
    sqlite3.SQLITE_INTERNAL: _DEFECT,
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_ABORT: _DEFECT,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_NOMEM: Translation(StoreUnavailable, "free memory on this machine"),
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
    sqlite3.SQLITE_INTERRUPT: Translation(StoreUnavailable),
    sqlite3.SQLITE_IOERR: Translation(StoreUnavailable, _CHECK_DISK),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTFOUND: _DEFECT,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CANTOPEN: Translation(
        StoreUnavailable, f"check that the folder exists, and {RIGHTS}"
    ),
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_EMPTY: _DEFECT,
    sqlite3.SQLITE_SCHEMA: _DEFECT,
    sqlite3.SQLITE_TOOBIG: Translation(RecordTooLarge),
    sqlite3.SQLITE_CONSTRAINT: Translation(RecordRefused),
    sqlite3.SQLITE_MISMATCH: Translation(RecordRefused),
    sqlite3.SQLITE_MISUSE: _DEFECT,
    sqlite3.SQLITE_NOLFS: Translation(
        StoreUnavailable, "the file system does not support large files"
    ),
    sqlite3.SQLITE_AUTH: _FORBIDDEN,
    sqlite3.SQLITE_FORMAT: _DAMAGED,
    sqlite3.SQLITE_RANGE: _DEFECT,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    # The first process that opens a file creates a file beside it, which needs space.
    sqlite3.SQLITE_IOERR_SHMSIZE: Translation(
        StoreUnavailable,
        "the disk is full, a quota is used up, or this process may not write files of this size"
        " (ulimit -f): free space, or raise the limit",
    ),
    sqlite3.SQLITE_IOERR_WRITE: _NOT_WRITTEN,
    sqlite3.SQLITE_IOERR_TRUNCATE: _NOT_WRITTEN,
}
"""Translations by extended result code, or else by primary one, which is its lowest byte."""

VALUE_ERRORS: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    # The first matching row counts.
    (sqlite3.DataError, RecordTooLarge),
    # SQLite cannot store an integer above 64 bits or a lone surrogate.
    (OverflowError, RecordRefused),
    (UnicodeEncodeError, RecordRefused),
    # Errors of the module itself have no result code.
    (sqlite3.Error, StoreError),
)


def with_remedy(kind: type[Error], fault: str, remedy: str) -> Error:
    """Return an error that names a fault and what to do."""
    error = kind(f"{fault}; {remedy}" if remedy else fault)
    error.remedy = remedy
    return error


def translate(error: BaseException, path: Path) -> FlowKitError | None:
    """Return FlowKit's error for an error of SQLite, None for other errors."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, sqlite3.Error) and code is not None:
        translation = TRANSLATIONS.get(code) or TRANSLATIONS.get(code & 0xFF, _DEFECT)
        fault = f"{path}: {error} ({error.sqlite_errorname})"
        return with_remedy(translation.error, fault, translation.remedy)
    for kind, ours in VALUE_ERRORS:
        if isinstance(error, kind):
            return ours(f"{path}: {error}")
    return None


class TranslatedErrors:
    """Context that raises SQLite's errors as FlowKit's, which name the file and what to do."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and (ours := translate(error, self._path)) is not None:
            raise ours from error


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection holds the lock."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


BUS_ERRORS: tuple[tuple[type[StoreError], type[FlowKitError]], ...] = (
    # The first matching row counts.
    (StoreUnavailable, BusUnavailable),
    (RecordTooLarge, MessageTooLarge),
    (StoreError, BusError),
)


def bus_error(error: Exception) -> FlowKitError:
    """Return the bus's error for an error of the file, or an unexpected one."""
    for kind, ours in BUS_ERRORS:
        if isinstance(error, kind):
            found = ours(str(error))
            found.remedy = getattr(error, "remedy", "")
            return found
    return BusError(f"unexpected error: {error!r}")


class BusErrors:
    """Context that raises errors of the file as those of a bus."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StoreError):
            raise bus_error(error) from error
