"""Tools for adapters: a life cycle for buses and stores, and their settings.

The settings of an adapter are ``options["NAME"]`` in the configuration of a coordinator, worker or
client.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowkit._runtime.lifecycle import Lifecycle, LifeState
from flowkit.errors import ConfigError

__all__ = ["LifeState", "Lifecycle", "read_options"]

Model = TypeVar("Model", bound=BaseModel)


def read_options(model: type[Model], options: Mapping[str, Any], name: str) -> Model:
    """Check the settings of the adapter ``name`` with its model, which should have
    ``extra="forbid"``.

    Raises:
        ConfigError: a field is unknown or ill-typed; the message names each one, with
            ``options.NAME`` before it, and no value.
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
