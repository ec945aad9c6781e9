"""Log output of the command line: formats, filters and levels."""

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from pydantic_core import to_json

from flowkit._runtime.concurrency import Recent
from flowkit._runtime.retries import EVERY_SEC
from flowkit._text.bounded_values import plain_copy
from flowkit._text.redaction import escaped_for, printable, printable_json, redacted, redacted_value
from flowkit._user_code.containment import error_text
from flowkit._user_code.log_records import extra_of
from flowkit.tracing import current_trace

DRIVERS = ("aiokafka", "pymongo", "motor")
_OURS = (*DRIVERS, "asyncio", "uvicorn", "opentelemetry", "urllib3")
"""Libraries that FlowKit uses: what they log below a warning concerns its developers."""
_OF_USERS = {**dict.fromkeys(_OURS, logging.WARNING), "": logging.INFO}
"""Levels of the loggers that are not FlowKit's."""
MOST_REMEMBERED = 1_000
"""Maximum number of log lines of drivers whose last time is kept."""
MOST_OF_A_FIELD = 16_000
MOST_OF_A_FAULT = 400
"""Length of the reason why a field is left out."""
OUTAGES = frozenset(
    {
        *("store_unavailable", "bus_unavailable", "subscription_interrupted"),
        *("publish_failed", "worker_retries"),
    }
)
"""Actions of the log lines about a store or a bus that cannot be used."""


class Level(StrEnum):
    """Log level."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        return logging.getLevelNamesMapping()[self.name]


class JsonLines(logging.Formatter):
    """Formatter that writes one JSON object per line.

    Its fields are ``at``, ``level``, ``logger``, ``message``, the ``extra`` fields, and in a trace
    ``trace_id`` and ``span_id``. A long value of an ``extra`` field is replaced by the reason why
    it is left out.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids_of_trace(),
            **{name: _bounded(value) for name, value in extra_of(record).items()},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        shown = {name: redacted_value(value, name) for name, value in line.items()}
        return printable_json(to_json(shown).decode())


def _bounded(value: Any) -> Any:
    try:
        return plain_copy(value, MOST_OF_A_FIELD)
    except Exception as error:
        return f"left out: {error_text(error, most=MOST_OF_A_FAULT)}"


def _ids_of_trace() -> dict[str, str]:
    trace = current_trace()
    return {} if trace is None else {"trace_id": trace.trace_id, "span_id": trace.span_id}


class PlainLines(logging.Formatter):
    """Formatter that writes one line per record, with the traceback below it.

    Secrets are redacted, and line breaks and control characters are escaped. The ids of the task
    and the node are added to the line, unless the message contains them.
    """

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_text:
            # Another formatter, which redacts nothing, has kept the traceback in the record.
            text = None if record.exc_info else _indented(record.exc_text)
            record = copy(record)
            record.exc_text = text
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(redacted(super().formatMessage(record) + _ids(record)))

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _ids(record: logging.LogRecord) -> str:
    ids = {name: getattr(record, f"{name}_id", None) for name in ("task", "node")}
    missing = [
        f"{name} {value}"
        for name, value in ids.items()
        if value is not None and str(value) not in record.message
    ]
    return f" ({', '.join(missing)})" if missing else ""


def _indented(text: str) -> str:
    """Indent a traceback, so that none of its lines can be mistaken for a log line."""
    return "\n".join(
        line if line.startswith("  ") else f"  {line}"
        for line in printable(redacted(text), lines=True).split("\n")
    )


class LastWarning(logging.Handler):
    """Handler that keeps the last warning and prints nothing.

    A driver that cannot connect often gives the reason in a log line only.
    """

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.text = printable(redacted(record.getMessage()))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attach this handler to the root logger for the duration of the block."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)


class DriverRateLimit(logging.Filter):
    """Filter that passes equal messages of a driver once a minute.

    While a server is unreachable, drivers log every attempt to connect.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._shown: Recent[tuple[object, ...], float] = Recent(MOST_REMEMBERED)

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(DRIVERS):
            return True
        about = record.args[0] if isinstance(record.args, tuple) and record.args else None
        key, now = (record.name, record.msg, str(about)[:200]), self._monotonic()
        if now - self._shown.get(key, float("-inf")) < EVERY_SEC:
            return False
        self._shown[key] = now
        return True


class StderrHandler(logging.StreamHandler[TextIO]):
    """Handler that writes to the current ``sys.stderr``.

    A live display replaces ``sys.stderr``, so that log lines appear above it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as text that the stream can encode.

        If a record cannot be formatted, an error that names its place in the code is logged
        instead.
        """
        try:
            text = super().format(record)
        except Exception as error:
            text = super().format(_unformatted(record, error))
        return escaped_for(getattr(self.stream, "encoding", None) or "utf-8", text)


def _unformatted(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    where = f"{record.pathname}, line {record.lineno}"
    return logging.LogRecord(
        record.name,
        logging.ERROR,
        record.pathname,
        record.lineno,
        "Cannot format the log record of %s: %s",
        (where, error_text(error)),
        None,
    )


def log_service(level: Level, *, as_json: bool) -> None:
    """Log from this level on, but only warnings of the libraries that FlowKit uses."""
    formatter = (
        JsonLines() if as_json else PlainLines("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    of_libraries = max(level.number, logging.WARNING)
    _log({**dict.fromkeys(_OURS, of_libraries), "": level.number}, formatter)


def log_verb() -> None:
    """Log FlowKit's warnings only. Errors of the drivers are raised as FlowKit errors."""
    _log(
        {"flowkit": logging.WARNING, "": logging.CRITICAL}, PlainLines("%(levelname)s: %(message)s")
    )


def log_run() -> None:
    """Log messages from the user's code, and what the display does not show: errors and outages."""
    levels = {"flowkit.run": logging.INFO, "flowkit": logging.ERROR, **_OF_USERS}
    _log(levels, PlainLines("%(levelname)s %(name)s: %(message)s"), always=OUTAGES)


def log_dev(reported: Collection[str]) -> None:
    """Log messages from the user's code, and warnings, without the ``reported`` actions.

    ``flowkit dev`` prints those itself.
    """
    levels = {"flowkit.run": logging.INFO, "flowkit": logging.WARNING, **_OF_USERS}
    handler = _log(levels, PlainLines("%(levelname)-9s %(name)s: %(message)s"))
    handler.addFilter(lambda record: getattr(record, "action", None) not in reported)


def _log(
    levels: dict[str, int], formatter: logging.Formatter, *, always: Collection[str] = ()
) -> logging.Handler:
    """Log the records accepted by :func:`is_wanted`, and those of the actions ``always``, to
    stderr. Return the handler.
    """
    handler = StderrHandler()
    handler.setFormatter(formatter)
    handler.addFilter(
        lambda record: getattr(record, "action", None) in always or is_wanted(record, levels)
    )
    handler.addFilter(DriverRateLimit())
    logging.basicConfig(level=min(*levels.values(), logging.WARNING), handlers=[handler])
    return handler


def is_wanted(record: logging.LogRecord, levels: dict[str, int]) -> bool:
    """Tell whether a record is logged.

    The level of a logger is that of the first matching name prefix. FlowKit's tracebacks are always
    logged.
    """
    level = next(level for name, level in levels.items() if record.name.startswith(name))
    return record.levelno >= level or (
        record.exc_info is not None and record.name.startswith("flowkit")
    )
