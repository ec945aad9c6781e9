"""Checks of ``flowkit doctor``: the file, its disk and its records."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import anyio.to_thread

from flowkit.protocols import CheckResult
from flowkit_sqlite._connections import VERSION, connect_reader
from flowkit_sqlite._context import Context
from flowkit_sqlite._damaged_records import SEARCH_SEC, damaged_records
from flowkit_sqlite._errors import translate
from flowkit_sqlite._file_systems import ON_A_SHARE, network_share

INTEGRITY_SEC = 5.0
"""Time limit of the integrity check, which reads the whole file."""
STEPS_BETWEEN_LOOKS = 10_000
"""Steps of SQLite's virtual machine between two looks at the clock."""
MOST_FAULTS = 5
MOST_DAMAGED = 100
MOST_SHOWN = 5
LEAST_FREE_BYTES = 268_435_456
LARGEST_LOG_BYTES = 1_073_741_824
RESTORE = "Stop all processes that use the file, and restore it from a backup."


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check, without its name."""

    ok: bool
    detail: str
    remedy: str = ""


Check = Callable[[sqlite3.Connection, Context], Finding]


async def diagnose(context: Context) -> list[CheckResult]:
    """Check the file; faults and errors are in the results."""
    return await anyio.to_thread.run_sync(_diagnose, context, abandon_on_cancel=True)


def _diagnose(context: Context) -> list[CheckResult]:
    # A connection of its own, so that a long check does not delay other reads.
    try:
        connection = connect_reader(context.database.path, context.config)
    except sqlite3.Error as error:
        return [_result("sqlite file", _failure(error, context))]
    with closing(connection):
        return [_result(name, _run(check, connection, context)) for name, check in CHECKS.items()]


def _run(check: Check, connection: sqlite3.Connection, context: Context) -> Finding:
    try:
        return check(connection, context)
    except (sqlite3.Error, OSError) as error:
        return _failure(error, context)


def _failure(error: Exception, context: Context) -> Finding:
    ours = translate(error, context.database.path)
    if ours is None:
        return Finding(False, str(error), RESTORE)
    return Finding(False, ours.fault, ours.remedy or RESTORE)


def _result(name: str, finding: Finding) -> CheckResult:
    return CheckResult(name, finding.ok, finding.detail, finding.remedy)


# ---------------------------------------------------------------- checks


def _file(connection: sqlite3.Connection, context: Context) -> Finding:
    path = context.database.path
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    detail = (
        f"{path}, {_size(path.stat().st_size)}, format {version}, SQLite {sqlite3.sqlite_version}"
    )
    if version > VERSION:
        return Finding(False, detail, "Upgrade FlowKit: a later version wrote this file.")
    if (names := path.stat().st_nlink) > 1:
        remedy = (
            "Delete the other names of the file. A process that opens it by another name does not"
            " see its write-ahead log, and damages it."
        )
        return Finding(False, f"{detail}, {names} names (hard links)", remedy)
    return Finding(True, detail)


def _log(connection: sqlite3.Connection, context: Context) -> Finding:
    path = context.database.path
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > LARGEST_LOG_BYTES:
        remedy = (
            "A program keeps a transaction open on the file, so that the write-ahead log cannot be"
            " written back. End that program."
        )
        return Finding(False, f"write-ahead log of {_size(size)}", remedy)
    return Finding(True, f"write-ahead log of {_size(size)}")


def _changes(connection: sqlite3.Connection, context: Context) -> Finding:
    """Make a change that leaves the file as it is."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA query_only = OFF")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {version}")
    return Finding(True, "can be stored")


def _disk(connection: sqlite3.Connection, context: Context) -> Finding:
    free = shutil.disk_usage(context.database.path.parent).free
    if free < LEAST_FREE_BYTES:
        remedy = (
            "Free space on the disk. If the file is large, set finished_retention_sec, after which"
            " ended tasks are deleted."
        )
        return Finding(False, f"{_size(free)} free", remedy)
    return Finding(True, f"{_size(free)} free")


def _file_system(connection: sqlite3.Connection, context: Context) -> Finding:
    share = network_share(context.database.path)
    if share is None:
        return Finding(True, "local, as far as can be seen")
    return Finding(False, f"the network share {share}", ON_A_SHARE)


def _integrity(connection: sqlite3.Connection, context: Context) -> Finding:
    try:
        with _time_limit(connection, INTEGRITY_SEC):
            found = connection.execute(f"PRAGMA quick_check({MOST_FAULTS})").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return Finding(True, f"no fault in the part that was read in {INTEGRITY_SEC:g} s")
    faults = [text for (text,) in found]
    if faults == ["ok"]:
        return Finding(True, "no fault")
    return Finding(False, "; ".join(faults), RESTORE)


@contextmanager
def _time_limit(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Interrupt statements that take longer."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _records(connection: sqlite3.Connection, context: Context) -> Finding:
    search = damaged_records(connection, context.namespace, limit=MOST_DAMAGED)
    found = search.records
    if not found:
        return Finding(
            True,
            "none is damaged"
            if search.in_time
            else f"none of those that were read in {SEARCH_SEC:g} s is damaged",
        )
    shown = "; ".join(
        f"{record.place} {record.record_id!r}: {record.fault}" for record in found[:MOST_SHOWN]
    )
    more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    remedy = (
        "Restore these rows from a backup, or delete them. `flowkit dlq ls` lists them. They do not"
        " affect other records."
    )
    return Finding(False, f"{len(found)} damaged: {shown}{more}", remedy)


CHECKS: Mapping[str, Check] = {
    "sqlite file": _file,
    "sqlite log": _log,
    "sqlite changes": _changes,
    "sqlite disk": _disk,
    "sqlite file system": _file_system,
    "sqlite integrity": _integrity,
    "sqlite records": _records,
}


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
