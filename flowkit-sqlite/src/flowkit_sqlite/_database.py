"""The file, which the store and the bus of a process share."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from weakref import WeakValueDictionary

from flowkit.errors import StoreError
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._errors import translated
from flowkit_sqlite._jobs import Job, finished
from flowkit_sqlite._readers import Readers
from flowkit_sqlite._wakeups import HOST, Deliver, Listener, Listeners
from flowkit_sqlite._writer import Writer, notify

T = TypeVar("T")


class _OpenFile:
    """Threads and connections of an open file."""

    def __init__(
        self, path: Path, config: SqliteConfig, listeners: Listeners, *, wakeup_host: str
    ) -> None:
        self.readers = Readers(path, config)
        self.writer = Writer(path, config, listeners, self.readers, wakeup_host=wakeup_host)


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
        self._config = config
        self._wakeup_host = wakeup_host
        self._listeners = Listeners()
        self._users = 0
        self._file: _OpenFile | None = None

    @classmethod
    def at(cls, path: Path, config: SqliteConfig) -> "Database":
        """Return the one database of this process for a file and its settings."""
        key = (path.resolve(), config)
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
        with self._lock:
            if self._file is None:
                self._file = _OpenFile(
                    self.path, self._config, self._listeners, wakeup_host=self._wakeup_host
                )
            self._users += 1
            opened = self._file.writer.opened
        try:
            with translated(self.path):
                await finished(opened)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the file if this was its last user, after the changes that were submitted."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            file, self._file = self._file, None
        if file is not None:
            file.writer.stop()
            await finished(file.writer.closed)

    async def write(self, job: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run ``job`` in the writer's thread, and return its result after the commit.

        The job shares a transaction with others that wait. If it raises, its own changes are rolled
        back and the error is raised here. If the call is cancelled, the job may or may not run;
        other jobs are not affected. The changes survive a crash of the process. With ``durable``
        they survive a power failure too, unless the settings say otherwise.

        Raises:
            StoreUnavailable: the file is locked, full or cannot be written; the changes may
                or may not have been stored.
            RecordTooLarge: a value is larger than SQLite accepts.
            RecordRefused: a value violates a constraint or cannot be stored.
            StoreError: the file is damaged, or SQLite refused a statement.
        """
        with translated(self.path):
            result: T = await self.post(job, durable=durable)
        return result

    def post(
        self, job: Callable[[sqlite3.Connection], T], *, durable: bool = True
    ) -> "asyncio.Future[T]":
        """Submit a job as :meth:`write` does, and return a future with SQLite's own errors.

        The job follows those that were submitted before. It runs unless the future is cancelled.
        """
        loop = asyncio.get_running_loop()
        call = Job(job, loop, loop.create_future(), durable)
        self._open_file().writer.submit(call)
        return call.future

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``job`` in a reader's thread, and return its result.

        The job sees one state of the file, which includes each confirmed write. It does not block
        the writer, and cannot change the file.

        Raises:
            StoreUnavailable, StoreError: as :meth:`write`.
        """
        file = self._open_file()
        loop = asyncio.get_running_loop()
        call = Job(job, loop, loop.create_future())
        file.readers.submit(call)
        with translated(self.path):
            result: T = await call.future
        return result

    def notify(self, channel: str, news: Any = None) -> None:
        """Wake the listeners of a channel, and other processes, after the commit.

        Listeners of this process get the ``news``. Call it inside a job of :meth:`write`. A job
        that fails wakes no listener.
        """
        notify(channel, news)

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
        return self._listeners.listen(channels, others=others, named=named, deliver=deliver)

    def _open_file(self) -> _OpenFile:
        if self._file is None:
            raise StoreError(f"{self.path} is not open: use it inside 'async with'")
        return self._file
