"""Schedule documents: JSON, TOML or YAML with the fields of a ``Schedule``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowkit._json.documents import DocumentError, read_document_file
from flowkit._json.values import kind_of, short
from flowkit._schedules import Schedule
from flowkit._text.validation_errors import message_of
from flowkit.errors import ConfigError, Fault, GraphError
from flowkit.graph._faults import Faults, sentence


def read_fields(file: Path) -> dict[str, Any]:
    """Return the fields in a document.

    Raises:
        ConfigError: it cannot be read, or is no object.
    """
    try:
        found = read_document_file(file)
    except DocumentError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: a schedule is an object with the fields id, graph, cron, …")
    for key in found:
        if not isinstance(key, str):
            raise ConfigError(f"{file}: the key {short(key)} is {kind_of(key)}; keys are strings")
    return found


def schedule_of(file: Path, fields: Mapping[str, Any]) -> Schedule:
    """Return the schedule with these fields.

    Raises:
        GraphError: they have faults; all of them are listed. The note of the error names the file.
    """
    try:
        return Schedule(**fields)
    except ValidationError as error:
        faults = [Fault(None, _text_of(item)) for item in error.errors(include_url=False)]
        refused = GraphError(faults)
        refused.add_note(str(file))
        raise refused from None


def _text_of(item: Any) -> str:
    if not item["loc"]:
        return message_of(item)
    if item["type"] == "missing":
        return f"{item['loc'][0]} is missing"
    return sentence(Faults(), item, item["loc"], model=Schedule)
