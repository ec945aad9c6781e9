"""Connections to the file, and the checks at its opening."""

import os
import sqlite3
import time
from functools import partial
from pathlib import Path

from flowkit.errors import ConfigError, StoreUnavailable
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._errors import RIGHTS, is_busy, with_remedy

OLDEST_SQLITE = (3, 37, 0)
"""Oldest release of SQLite with all features that are used, such as strict tables."""
APPLICATION_ID = 0x464C4F57
"""Number in the header of FlowKit's files: ``FLOW``."""
VERSION = 2
"""Version of the file's format. A file of another version is refused."""

_OWNER = """
    SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
    FROM pragma_application_id, pragma_user_version
"""
NOT_OURS = "name another file, or restore this one from a backup if it is damaged"
_LOCK_PAUSE_SEC = 0.01
_STATEMENTS_KEPT = 512
_CACHE_KIB = 16_384
_JOURNAL_LIMIT_BYTES = 67_108_864


def check_sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Check the release of the SQLite library.

    Raises:
        ConfigError: it is too old.
    """
    if version < OLDEST_SQLITE:
        found, oldest = (".".join(map(str, each)) for each in (version, OLDEST_SQLITE))
        raise ConfigError(
            f"Python's sqlite3 module uses SQLite {found}, but flowkit-sqlite needs {oldest} or"
            " later; use another build of Python"
        )


def connect(path: Path, config: SqliteConfig) -> sqlite3.Connection:
    """Return a connection that leaves transactions to its user.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    connection = sqlite3.connect(
        path,
        timeout=config.busy_timeout_sec,
        isolation_level=None,
        cached_statements=_STATEMENTS_KEPT,
        # Only one thread at a time uses a connection, but the writer's alternates.
        check_same_thread=False,
    )
    # A text that another program damaged must not fail the read of the rows beside it.
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, config: SqliteConfig) -> sqlite3.Connection:
    """Return a connection that cannot change the file."""
    connection = connect(path, config)
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_writer(path: Path, config: SqliteConfig) -> sqlite3.Connection:
    """Return a connection for changes. Create the file if it does not exist and may be created.

    Raises:
        ConfigError: the file or its folder does not exist, or the file belongs to another program
            or a later version, or cannot be shared by processes.
        StoreUnavailable: this process may not write the file.
        sqlite3.Error: the file cannot be opened.
    """
    check_sqlite()
    try:
        _check_path(path, create=config.create)
    except OSError as error:
        fault = f"{path} cannot be used: {error.strerror}"
        raise with_remedy(ConfigError, fault, f"check the path, and {RIGHTS}") from error
    try:
        connection = connect(path, config)
        try:
            _prepare_patiently(connection, path, config.busy_timeout_sec)
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            fault = f"{path} is not a SQLite database"
            raise with_remedy(ConfigError, fault, NOT_OURS) from error
        raise
    return connection


def _check_path(path: Path, *, create: bool) -> None:
    """Check that the path is that of a file which this process may write, or create.

    Raises:
        ConfigError, StoreUnavailable: it is not.
        OSError: the path cannot be looked up.
    """
    if path.is_dir():
        raise with_remedy(ConfigError, f"{path} is a folder", "name a file in it")
    if not path.exists():
        if not create:
            remedy = (
                "check the path, or start a coordinator, 'flowkit run' or 'flowkit dev', which"
                " create the file"
            )
            raise with_remedy(ConfigError, f"{path} does not exist", remedy)
        if not path.parent.is_dir():
            fault = f"{path}: the folder {path.parent} does not exist"
            raise with_remedy(ConfigError, fault, "create it")
    elif not path.is_file():
        raise with_remedy(ConfigError, f"{path} is not a file", "name a file on a local disk")
    elif not os.access(path, os.W_OK):
        raise with_remedy(StoreUnavailable, f"{path} may not be written", RIGHTS)


def _prepare_patiently(connection: sqlite3.Connection, path: Path, patience_sec: float) -> None:
    """Prepare the file again while other processes hold its lock.

    SQLite does not wait for the lock in all of these steps.
    """
    give_up_at = time.monotonic() + patience_sec
    while True:
        try:
            return _prepare(connection, path)
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= give_up_at:
                raise
        time.sleep(_LOCK_PAUSE_SEC)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check whose file it is before anything is changed in it, and mark a new one.

    A file that is marked is not changed, so it can be opened on a full disk.
    """
    is_marked = _check_owner(connection, path)
    if not is_marked:
        # The auto-vacuum mode of a file is set before its first table is created.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        fault = f"{path}: its file system does not support SQLite's write-ahead log"
        raise with_remedy(ConfigError, fault, "use a local disk")
    if is_marked:
        # The first read in this mode creates the log.
        _check_owner(connection, path)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_owner(connection, path)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS processes"
            " (port INTEGER PRIMARY KEY, leased_until REAL NOT NULL) STRICT"
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def log_path(connection: sqlite3.Connection) -> str:
    """Return the path of the write-ahead log."""
    ((_, _, path), *_) = connection.execute("PRAGMA database_list")
    return f"{path}-wal"


def _check_owner(connection: sqlite3.Connection, path: Path) -> bool:
    """Check that the file is new or one of FlowKit's that this version knows. Return whether it has
    the mark of this version.
    """
    # One statement, because another process may create the file at the same time.
    application_id, version, objects = connection.execute(_OWNER).fetchone()
    if application_id != APPLICATION_ID and (application_id or version or objects):
        fault = f"{path} is a database of another program"
        raise with_remedy(ConfigError, fault, "name another file")
    if version > VERSION:
        fault = (
            f"{path} was written by a later version of flowkit-sqlite (format {version}, this one"
            f" knows {VERSION})"
        )
        raise with_remedy(ConfigError, fault, "install that version")
    if application_id == APPLICATION_ID and version < VERSION:
        fault = (
            f"{path} was written by an earlier version of flowkit-sqlite (format {version}, this"
            f" one knows {VERSION})"
        )
        raise with_remedy(ConfigError, fault, "name another file, or delete this one")
    return bool(application_id == APPLICATION_ID and version == VERSION)
