"""The file, which the store and the bus of a process share."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Self, TypeVar
from weakref import WeakValueDictionary

from flowkit.errors import StoreError
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._errors import TranslatedErrors
from flowkit_sqlite._jobs import notify
from flowkit_sqlite._open_file import OpenFile
from flowkit_sqlite._wakeups import HOST, Deliver, Listener

T = TypeVar("T")


class Database:
    """An SQLite file. It is open while at least one user has entered it.

    Users may enter it in several event loops.
    """

    _known: ClassVar["WeakValueDictionary[tuple[Path, SqliteConfig], Database]"] = (
        WeakValueDictionary()
    )
    _lock = threading.Lock()

    def __init__(self, path: Path, config: SqliteConfig, *, wakeup_host: str = HOST) -> None:
        """Take the path of the file; use :meth:`at` to share it.

        Processes wake each other through sockets at ``wakeup_host``, an address of this machine. A
        process that cannot bind one polls the file every two milliseconds instead.
        """
        self.path = path
        self._errors = TranslatedErrors(path)
        self._config = config
        self._wakeup_host = wakeup_host
        self._files: dict[asyncio.AbstractEventLoop, OpenFile] = {}

    @classmethod
    def at(cls, path: Path, config: SqliteConfig) -> "Database":
        """Return the one database of this process for a file and its settings."""
        key = (Path(os.path.realpath(path)), config)
        with cls._lock:
            database = cls._known.get(key)
            if database is None:
                database = cls._known[key] = cls(path, config)
            return database

    async def __aenter__(self) -> Self:
        """Open the file, and create it if it does not exist.

        Raises:
            ConfigError: the folder does not exist, or the file belongs to another program or a
                later version, or cannot be shared by processes.
            StoreUnavailable: the file is locked, or may not be written.
            StoreError: the file is damaged.
        """
        loop = asyncio.get_running_loop()
        file = self._files.get(loop)
        if file is None:
            file = self._files[loop] = OpenFile(
                self.path, self._config, wakeup_host=self._wakeup_host
            )
        file.users += 1
        try:
            with self._errors:
                await file.opened()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the file if this was its last user, after the changes that were submitted."""
        loop = asyncio.get_running_loop()
        file = self._files[loop]
        file.users -= 1
        if not file.users:
            del self._files[loop]
            await file.close()

    async def write(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = True,
        brief: bool = False,
    ) -> T:
        """Run ``job`` in a transaction, and return its result after the commit.

        The job shares a transaction with others that wait. If it raises, its own changes are rolled
        back and the error is raised here. If the call is cancelled, the job may or may not run;
        other jobs are not affected. The changes survive a crash of the process. With ``durable``
        they survive a power failure too, unless the settings say otherwise. A ``brief`` job, which
        changes few rows, runs in the event loop if no other process holds the lock.

        Raises:
            StoreUnavailable: the file is locked, full or cannot be written; the changes may
                or may not have been stored.
            RecordTooLarge: a value is larger than SQLite accepts.
            RecordRefused: a value violates a constraint or cannot be stored.
            StoreError: the file is damaged, or SQLite refused a statement.
        """
        file = self._open_file()
        with self._errors:
            return await file.submit(job, durable=durable, brief=brief)

    def post(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = True,
        brief: bool = False,
    ) -> "asyncio.Future[T]":
        """Submit a job as :meth:`write` does, and return a future with SQLite's own errors.

        The job follows those that were submitted before. It runs unless the future is cancelled.
        """
        return self._open_file().submit(job, durable=durable, brief=brief)

    async def read(self, job: Callable[[sqlite3.Connection], T], *, brief: bool = False) -> T:
        """Run ``job`` in a reader's thread, and return its result.

        The job sees one state of the file, which includes each confirmed write, and may include
        changes that are not on the disk yet. It does not block changes, and must not make any. A
        ``brief`` job, which reads a few rows by an index, runs in the event loop.

        Raises:
            StoreUnavailable, StoreError: as :meth:`write`.
        """
        file = self._open_file()
        with self._errors:
            return await file.read(job, brief=brief)

    notify = staticmethod(notify)

    def listen(
        self,
        *channels: str,
        others: bool = True,
        named: bool = False,
        deliver: Deliver | None = None,
    ) -> AbstractContextManager[Listener]:
        """Listen to channels while the context is open.

        A listener is woken soon after a commit that notified one of its channels and, with
        ``others``, after any commit of another process that notified a channel; with ``named``,
        this is one of its own. News of this process go to ``deliver``, if it is given, in the order
        of the commits; the listener is woken only if that returns False.
        """
        listeners = self._open_file().listeners
        return listeners.listen(channels, others=others, named=named, deliver=deliver)

    def _open_file(self) -> OpenFile:
        file = self._files.get(asyncio.get_running_loop())
        if file is None:
            raise StoreError(f"{self.path} is not open: use it inside 'async with'")
        return file
