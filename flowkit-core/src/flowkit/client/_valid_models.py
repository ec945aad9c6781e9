"""Checks of the fields of schedules and triggers that are put."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowkit._text.validation_errors import plain_message_of
from flowkit.errors import FlowKitError

M = TypeVar("M", bound=BaseModel)


def valid_model(kind: type[M], given: Any, refusal: type[FlowKitError]) -> M:
    """Return a model whose fields were checked: a copy of one can have any fields.

    Raises:
        FlowKitError: it is none, or has a wrong field. The error is a ``refusal``.
    """
    name = kind.__name__
    if not isinstance(given, kind):
        raise refusal(f"a {name.lower()} is a flowkit.{name}, not {type(given).__name__}")
    try:
        return kind(**{field: getattr(given, field) for field in given.model_fields_set})
    except ValidationError as error:
        faults = [
            ": ".join([*map(str, item["loc"]), plain_message_of(item)])
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise refusal(f"the {name.lower()} is not valid: {'; '.join(faults)}") from None
