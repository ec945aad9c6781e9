"""Tools for authors of buses and stores.

They are a life cycle, settings, retries, log lines about outages, and redaction. The adapters for
Kafka and MongoDB use them.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT
from flowkit._runtime.lifecycle import Lifecycle, LifeState
from flowkit._runtime.retries import Backoff, Notices, retry
from flowkit._text.redaction import redacted
from flowkit.errors import ConfigError

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
        faults = error.errors(include_url=False, include_input=False)
        raise ConfigError(
            "; ".join(f"{_place(item, name)}: {_fault(item, model)}" for item in faults)
        ) from None


def _place(item: Any, name: str) -> str:
    return ".".join(["options", name, *map(str, item["loc"])])


def _fault(item: Any, model: type[BaseModel]) -> str:
    if item["type"] != "extra_forbidden":
        return str(item["msg"]).removeprefix("Value error, ")
    near = get_close_matches(str(item["loc"][-1]), model.model_fields, 1)
    return f"there is no such field{f'; did you mean {near[0]!r}?' if near else ''}"


__all__ = [
    "FIRST_MOMENT",
    "LAST_MOMENT",
    "Backoff",
    "LifeState",
    "Lifecycle",
    "Notices",
    "read_options",
    "redacted",
    "retry",
]
