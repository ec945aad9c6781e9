"""Records of Python's ``logging``."""

import logging
from typing import Any

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the ``extra`` with which a record was logged."""
    return {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
