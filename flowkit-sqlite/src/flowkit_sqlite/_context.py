"""Context of a store: its database, its namespace and its limits."""

import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from flowkit.errors import CorruptRecord, RecordTooLarge
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._database import Database

T = TypeVar("T")

LONGEST_FAULT = 300


@dataclass(frozen=True, slots=True)
class Context:
    """An open database with FlowKit's namespace and configuration."""

    database: Database
    namespace: str
    config: SqliteConfig

    def read(
        self, job: Callable[[sqlite3.Connection], T], *, brief: bool = False
    ) -> Coroutine[Any, Any, T]:
        """Run a job that only reads, as of one moment."""
        return self.database.read(job, brief=brief)

    def write(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = True,
        brief: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Run a job that writes, completely or not at all."""
        return self.database.write(job, durable=durable, brief=brief)

    def check_size(self, size: int, subject: str, *values: object) -> None:
        """Refuse a record that is above the configured limit.

        ``subject`` says what it is, with a ``{}`` for each of the ``values``.

        Raises:
            RecordTooLarge: it is.
        """
        limit = self.config.max_record_bytes
        if size > limit:
            raise RecordTooLarge(
                f"{subject.format(*values)} has {size} bytes; the limit is {limit}"
                " (max_record_bytes)"
            )


def corrupt(record: str, fault: str) -> CorruptRecord:
    """Return the error of a record that cannot be decoded."""
    return CorruptRecord(f"{record} cannot be read: {fault[:LONGEST_FAULT]}")


def before_damage(records: Iterator[T]) -> list[T]:
    """Return the records before the first that cannot be decoded.

    Raises:
        CorruptRecord: the first record cannot be decoded.
    """
    found: list[T] = []
    try:
        for record in records:
            found.append(record)
    except CorruptRecord:
        if not found:
            raise
    return found


def shown(text: str) -> str:
    """Return text that may contain bytes that are not UTF-8 as valid Unicode."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
