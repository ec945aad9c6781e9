"""Tools for authors of buses and stores.

They are a life cycle, settings, retries, calls that are made together, a probe of a store, log
lines about outages, names of topics, cursors and ranges of texts, readers of documents and times,
and redaction. The adapters for Kafka, MongoDB and SQLite use them.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowkit._json.documents import DocumentError, read_document
from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT
from flowkit._json.values import is_unicode
from flowkit._runtime.concurrency import Gathered, within
from flowkit._runtime.lifecycle import Lifecycle, LifeState
from flowkit._runtime.retries import Backoff, Notices, retry
from flowkit._runtime.store_probe import while_readable, why_unreadable
from flowkit._runtime.topic_names import checked_topic
from flowkit._text.redaction import encodable, labelled, redacted
from flowkit._text.times import read_time
from flowkit._text.validation_errors import errors_in, path_in, plain_message_of
from flowkit.errors import ConfigError, StoreError

Model = TypeVar("Model", bound=BaseModel)


def read_options(model: type[Model], options: Mapping[str, Any], name: str) -> Model:
    """Return the settings of an adapter: ``options["NAME"]`` of the configuration of a coordinator,
    worker or client.

    Args:
        model: A pydantic model of the settings. Give it ``extra="forbid"``, so that a misspelt
            field is an error.
        options: The values that the user gave.
        name: The name of the adapter in ``options``.

    Raises:
        ConfigError: a field is unknown or has a wrong value. The message names each such field as
            ``options.NAME.FIELD``, and contains no value.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        faults = errors_in(error, options)
        raise ConfigError(
            "; ".join(labelled(_place(item, name), _fault(item, model)) for item in faults)
        ) from None


def _place(item: Any, name: str) -> str:
    return ".".join(["options", name, *map(str, item["loc"])])


def _fault(item: Any, model: type[BaseModel]) -> str:
    message = plain_message_of(item)
    if item["type"] != "extra_forbidden":
        return message
    near = get_close_matches(str(item["loc"][-1]), model.model_fields, 1)
    return f"{message}{f'; did you mean {near[0]!r}?' if near else ''}"


def page_cursor(created_at: float, task_id: str) -> str:
    """Return the ``next`` of a page of tasks that ends with this task."""
    return f"{created_at!r}|{task_id}"


def read_page_cursor(cursor: str) -> tuple[float, str]:
    """Return the ``created_at`` and the id of the task at which a page ended.

    Raises:
        StoreError: :func:`page_cursor` did not make the cursor.
    """
    created_at, bar, task_id = cursor.partition("|")
    try:
        if bar and isfinite(moment := float(created_at)):
            return moment, task_id
    except ValueError:
        pass
    raise StoreError(f"invalid page cursor {cursor!r}; use the `next` of an earlier page")


FIRST_SURROGATE, AFTER_SURROGATES = 0xD800, 0xE000
LAST_CHARACTER = 0x10FFFF


def end_of_prefix(prefix: str) -> str | None:
    """Return the first text that sorts after all texts with a prefix, or None if there is none.

    It is the prefix with the successor of its last character.
    """
    while prefix:
        code = ord(prefix[-1]) + 1
        if code == FIRST_SURROGATE:
            code = AFTER_SURROGATES  # surrogates are no characters
        if code <= LAST_CHARACTER:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return None


__all__ = [
    "FIRST_MOMENT",
    "LAST_MOMENT",
    "Backoff",
    "DocumentError",
    "Gathered",
    "LifeState",
    "Lifecycle",
    "Notices",
    "checked_topic",
    "encodable",
    "end_of_prefix",
    "is_unicode",
    "page_cursor",
    "path_in",
    "plain_message_of",
    "read_document",
    "read_options",
    "read_page_cursor",
    "read_time",
    "redacted",
    "retry",
    "while_readable",
    "why_unreadable",
    "within",
]
