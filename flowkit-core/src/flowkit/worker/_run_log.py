"""Logs of runs: ``ctx.log``, and the lines of other loggers of ``logging``."""

import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from pydantic_core import to_json

from flowkit._text.bounded_values import check_length, plain_copy
from flowkit._text.redaction import encodable, redacted, redacted_start, redacted_value, shortened
from flowkit._user_code.containment import error_text
from flowkit._user_code.failure_logs import users_traceback
from flowkit._user_code.log_records import extra_of
from flowkit.tracing import current_trace
from flowkit.worker._log_lines import LogLines

run_logger = logging.getLogger("flowkit.run")

MOST_CHARS = 16_000
"""Length of the text of a line."""
MOST_FIELDS_BYTES = 16_000
MOST_FAULT_CHARS = 400
"""Length of the reason why a text cannot be formatted, or fields are left out."""
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_ROOT = "root"
_OWN = ("flowkit.", "flowkit_")
"""Beginnings of the names of FlowKit's own loggers, whose lines belong to no run."""


@dataclass(slots=True)
class RunPlace:
    """The place in a run at which a line is logged."""

    task_id: str
    node_id: str
    attempt: int
    batch_uid: str | None = None


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """Logger of one run.

    It adds the ids of the run to the ``extra`` of the caller, and keeps the lines. The level of the
    process's own log does not matter for that.
    """

    def __init__(self, place: RunPlace, lines: LogLines | None) -> None:
        """Without ``lines``, no line is kept."""
        ids = {"task_id": place.task_id, "node_id": place.node_id, "attempt": place.attempt}
        super().__init__(run_logger, ids)
        self._place = place
        self._all = lines if lines is not None and lines.cfg.max_lines else None
        self._level = _LEVELS[lines.cfg.level] if lines is not None else 0
        self._lines = None if self._all is None else self._all.new_run(place.task_id)

    def at(self, place: RunPlace) -> Self:
        """Return a logger of the same run for another place in it."""
        made = copy(self)
        made._place = place  # noqa: SLF001 - a copy of this object
        return made

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def isEnabledFor(self, level: int) -> bool:
        return self._keeps(level) or super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self._keeps(level):
            error = _error_of(kwargs.get("exc_info"))
            self.keep(
                level,
                run_logger.name,
                lambda: _formatted(msg, args),
                kwargs.get("extra"),
                error,
                raw=msg,
            )
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)

    def keep(
        self,
        level: int,
        name: str,
        text: Callable[[], str],
        fields: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        *,
        raw: object,
    ) -> None:
        """Keep a line, unless its level is too low. It raises no error.

        ``raw`` is the message without its arguments, for a text that cannot be formatted.
        """
        if self._all is None or self._lines is None or not self._keeps(level):
            return
        at = self._all.clock.now()
        shown = _text_of(text, raw)
        data = _line(self._place, at, level, name, shown, fields, error)
        self._all.add(self._lines, at, data)

    async def wait_stored(self) -> None:
        """Return when the lines are stored, or soon if that takes long."""
        if self._all is not None and self._lines is not None:
            await self._all.wait_stored(self._lines)

    def is_kept_by(self, lines: LogLines) -> bool:
        """Return whether the lines are kept among these ones."""
        return self._all is lines

    def _keeps(self, level: int) -> bool:
        return self._all is not None and level >= self._level


# ---------------------------------------------------------------- lines


def _line(
    place: RunPlace,
    at: float,
    level: int,
    name: str,
    text: str,
    fields: Mapping[str, Any] | None,
    error: BaseException | None,
) -> bytes:
    line: dict[str, Any] = {
        "at": at,
        "node": place.node_id,
        "attempt": place.attempt,
        "level": logging.getLevelName(level).lower(),
        "logger": encodable(shortened(name, 200)),
        "text": text,
    }
    if place.batch_uid is not None:
        line["batch"] = place.batch_uid
    if error is not None:
        line["traceback"] = redacted(users_traceback(error))
    if (trace := current_trace()) is not None:
        line |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
    if fields is not None:
        line["fields"] = None
        end = b'"fields":%b}' % _fields(fields)
        return to_json(line).removesuffix(b'"fields":null}') + end
    return to_json(line)


def _text_of(text: Callable[[], str], raw: object) -> str:
    try:
        return _shown(text())
    except Exception as error:
        message = raw if isinstance(raw, str) else f"a message of type {type(raw).__name__}"
        fault = f" (it cannot be formatted: {error_text(error, most=MOST_FAULT_CHARS)})"
        return _shown(redacted_start(message, MOST_CHARS - len(fault)) + fault)


def _shown(text: str) -> str:
    return shortened(encodable(redacted_start(text, MOST_CHARS + 1)), MOST_CHARS)


def _fields(fields: Mapping[str, Any]) -> bytes:
    try:
        shown = redacted_value(plain_copy(fields, MOST_FIELDS_BYTES))
        data = to_json(shown, inf_nan_mode="strings")
        check_length(len(data), MOST_FIELDS_BYTES)
    except Exception as error:
        return to_json({"left_out": error_text(error, most=MOST_FAULT_CHARS)})
    return data


def _formatted(msg: object, args: tuple[object, ...]) -> str:
    return logging.LogRecord("", 0, "", 0, msg, args, None).getMessage()


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, tuple):
        return exc_info[1]  # type: ignore[no-any-return]
    if isinstance(exc_info, BaseException):
        return exc_info
    return sys.exc_info()[1] if exc_info else None


# ---------------------------------------------------------------- other loggers

_current: ContextVar[RunLog | None] = ContextVar("flowkit_run_log", default=None)


def keep_other_loggers(log: RunLog) -> None:
    """Keep what other loggers log in the current context, and in copies of it, with this run."""
    _current.set(log)


class _OtherLoggers(logging.Handler):
    """Handler that keeps the lines of other loggers with the run in which they are logged."""

    def __init__(self, lines: LogLines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        log = _current.get()
        if log is None or not log.is_kept_by(self._lines) or f"{record.name}.".startswith(_OWN):
            return
        error = _error_of(record.exc_info)
        fields = extra_of(record) or None
        log.keep(record.levelno, record.name, record.getMessage, fields, error, raw=record.msg)


@asynccontextmanager
async def other_loggers_kept(lines: LogLines) -> AsyncIterator[None]:
    """Keep the lines of the configured loggers in the runs of this worker."""
    handler = _OtherLoggers(lines)
    loggers = [logging.getLogger(name) for name in highest(lines.cfg.loggers)]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)


def highest(names: Sequence[str]) -> list[str]:
    """Return those of these loggers that are below no other of them: their handlers get the lines
    of the loggers below.
    """
    if _ROOT in names:
        return [_ROOT]
    return [
        name
        for name in dict.fromkeys(names)
        if not any(name.startswith(f"{other}.") for other in names)
    ]
