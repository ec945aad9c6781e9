"""Documents of schedules and triggers: JSON, TOML or YAML with their fields."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from flowkit._json.documents import DocumentError, read_document_file
from flowkit._json.values import wrong_key
from flowkit._schedules import Schedule
from flowkit._text.validation_errors import message_of
from flowkit._triggers import Trigger
from flowkit.cli._loader import load_flow
from flowkit.config import GraphLimits
from flowkit.errors import ConfigError, Fault, GraphError
from flowkit.graph import Graph
from flowkit.graph._faults import Faults, sentence
from flowkit.plugins import Plugins

Definition = TypeVar("Definition", Schedule, Trigger)
_FIELDS: Mapping[type[Any], str] = {
    Schedule: "a schedule is an object with the fields id, graph, cron, …",
    Trigger: "a trigger is an object with the fields id, source, graph, …",
}


def read_definition(
    file: Path, graph: str | None, model: type[Definition], limits: GraphLimits
) -> Definition:
    """Return the schedule or trigger in a document. ``graph`` is a file with its flow, if that is
    not in the document. The graph in the document is checked only if other fields are wrong: else
    the client checks it.

    Raises:
        ConfigError: the document cannot be read, or is no object.
        GraphError: it has faults; all of them are listed. The note of the error names the file.
    """
    fields = _read_fields(file, _FIELDS[model])
    if graph is not None:
        if fields.keys() & {"graph", "flow"}:
            raise ConfigError(f"{file}: it has a graph or flow; leave out --graph")
        fields["graph"] = load_flow(graph, Plugins()).graph
    return _definition_of(file, fields, model, limits)


def _read_fields(file: Path, expected: str) -> dict[str, Any]:
    try:
        found = read_document_file(file)
    except DocumentError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: {expected}")
    for key in found:
        if not isinstance(key, str):
            raise ConfigError(f"{file}: it has {wrong_key(key)}")
    return found


def _definition_of(
    file: Path, fields: Mapping[str, Any], model: type[Definition], limits: GraphLimits
) -> Definition:
    try:
        return model(**fields)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        faults: list[Fault] = [Fault(None, _text_of(item, model)) for item in wrong]
        faults += _faults_in(fields.get("graph"), limits)
        refused = GraphError(faults)
        refused.add_note(str(file))
        raise refused from None


def _faults_in(graph: Any, limits: GraphLimits) -> Sequence[Fault]:
    """Return the faults of a graph in a document."""
    if graph is None:
        return ()
    try:
        Graph.parse(graph, limits=limits, functions=Plugins().functions)
    except GraphError as error:
        return error.faults
    return ()


def _text_of(item: Any, model: type[Any]) -> str:
    if not item["loc"]:
        return message_of(item)
    if item["type"] == "missing":
        return f"{item['loc'][0]} is missing"
    return sentence(Faults(), item, item["loc"], model=model)
