"""Options shared by several verbs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from flowkit._json.documents import DocumentError, read_document, read_document_file
from flowkit._json.values import kind_of
from flowkit._text.times import read_time
from flowkit.client._task_filters import WAITING_FOR
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.task import TaskStatus

Db = Annotated[
    str | None,
    typer.Option("--db", metavar="ADDRESS", help="Store: mongodb://host/name or sqlite:///path."),
]
Bus = Annotated[
    str | None,
    typer.Option(
        "--bus",
        metavar="ADDRESS",
        help="Bus: kafka://host:9092 or sqlite:///path; not needed with a store at sqlite:///path.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file: JSON, TOML or YAML."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a configuration field; repeatable."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=1,
        max=65_535,
        metavar="NUMBER",
        help="Port of /metrics, /healthz and /readyz; it needs flowkit-telemetry.",
    ),
]
Handlers = Annotated[
    list[str] | None,
    typer.Option(
        "--handlers",
        metavar="MODULE:ATTR",
        help="Handlers to serve; repeatable. The current directory is searched too.",
    ),
]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="Id of the node.")]
FlowFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Graph document (.json, .yaml), Python file (.py or .py:NAME), or module:attr.",
    ),
]
OptionalFlowFile = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]",
        help="Graph document (.json, .yaml), Python file (.py or .py:NAME), or module:attr.",
    ),
]
Version = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="N", help="Version of the registered flow."),
]
Params = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="JSON|@FILE",
        help=("Task parameters: a JSON object, or @FILE with an object in JSON, YAML or TOML."),
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="Label; repeatable with other keys. The value may contain `=`.",
    ),
]
After = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="NEXT", help="Continue after a page: the `next` that it returned."
    ),
]
Pipeline = Annotated[str | None, typer.Option("--pipeline", help="Pipeline of the task.")]
Statuses = Annotated[
    list[TaskStatus] | None,
    typer.Option("--status", help="Only tasks in this status; repeatable."),
]
Parent = Annotated[
    str | None,
    typer.Option("--parent", metavar="ID", help="Only the child tasks of this task."),
]
Root = Annotated[bool, typer.Option("--root", help="Only tasks that are no child tasks.")]
Waiting = Annotated[
    str | None,
    typer.Option(
        "--waiting",
        metavar="WHAT",
        help=f"Only tasks with a node that waits for one of {', '.join(WAITING_FOR)}.",
    ),
]
Retrying = Annotated[
    bool,
    typer.Option("--retrying", help="Only tasks with a node that failed and is tried again."),
]
ReasonCode = Annotated[
    str | None,
    typer.Option(
        "--reason-code",
        metavar="CODE",
        help="Only tasks with a node whose last attempt failed with this reason code.",
    ),
]
CreatedAfter = Annotated[
    str | None,
    typer.Option(
        "--created-after",
        metavar="TIME",
        help=(
            "Only tasks created after this time, such as 2026-11-27 or 2026-11-27T10:00:00Z; UTC"
            " if it has no zone."
        ),
    ),
]
CreatedBefore = Annotated[
    str | None,
    typer.Option("--created-before", metavar="TIME", help="Only tasks created before this time."),
]
Timeline = Annotated[
    bool, typer.Option("--timeline", help="Draw a timeline of the nodes at the end.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Maximum time to wait for the end."),
]


def check_timeline(timeline: bool, as_json: bool) -> None:
    """Refuse a timeline in the output of ``--json``."""
    if timeline and as_json:
        raise typer.BadParameter("cannot be used with --json", param_hint="--timeline")


def pairs(items: Iterable[str] | None, option: str) -> dict[str, str]:
    """Parse ``KEY=VALUE`` items: ``["a=1"]`` becomes ``{"a": "1"}``."""
    return dict(_pair(item, option) for item in items or ())


def labels(items: Iterable[str] | None) -> dict[str, str]:
    """Parse the labels of ``--label``. A key is given once."""
    found: dict[str, str] = {}
    for item in items or ():
        key, value = _pair(item, "--label")
        if key in found:
            raise typer.BadParameter(f"the label {key!r} is given twice", param_hint="--label")
        found[key] = value
    return found


def _pair(item: str, option: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"expected KEY=VALUE, not {item!r}", param_hint=option)
    return key, value


def filters(
    status: Statuses = None,
    pipeline: Pipeline = None,
    label: Labels = None,
    parent: Parent = None,
    root: Root = False,
    waiting: Waiting = None,
    retrying: Retrying = False,
    reason_code: ReasonCode = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
) -> dict[str, Any]:
    """Return the filters of tasks, as the client's verbs take them."""
    return {
        "status": status or None,
        "pipeline": pipeline,
        "labels": labels(label),
        "parent": parent,
        "root": root or None,
        "waiting": waiting,
        "retrying": retrying or None,
        "reason_code": reason_code,
        "created_after": time(created_after, "--created-after"),
        "created_before": time(created_before, "--created-before"),
    }


def check_filters(chosen: Mapping[str, Any]) -> None:
    """Refuse the filters of a verb that changes tasks if none of them is given."""
    if any(value not in (None, {}) for value in chosen.values()):
        return
    names = [f"--{name.replace('_', '-')}" for name in signature(filters).parameters]
    raise typer.BadParameter(f"give at least one filter: {', '.join(names)}")


def filtered(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of :func:`filters` before its own. It is called with the filters as
    its first argument.
    """
    options = signature(filters).parameters
    own = list(signature(verb).parameters.values())[1:]

    @wraps(verb)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        verb(filters(**chosen), **given)

    parameters = [*options.values(), *own]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def read_params(text: str | None) -> dict[str, Any] | None:
    """Parse the parameters of a task: a JSON object, or ``@FILE`` in JSON, YAML or TOML."""
    return read_object(text, "--params")


def read_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Parse the value of an option: a JSON object, or ``@FILE`` in JSON, YAML or TOML."""
    value: Any = read_value(text, option)
    if text is None:
        return None
    if isinstance(value, dict):
        return value
    place = f"{text[1:]}: " if text.startswith("@") else ""
    raise typer.BadParameter(f"{place}expected an object, not {kind_of(value)}", param_hint=option)


def read_value(text: str | None, option: str) -> Any:
    """Parse the value of an option: JSON, or ``@FILE`` in JSON, YAML or TOML."""
    if text is None:
        return None
    place = ""
    try:
        if text.startswith("@"):
            path = Path(text[1:])
            place = f"{path}: "
            return read_document_file(path)
        return read_document(text, syntax="JSON")
    except DocumentError as error:
        raise typer.BadParameter(f"{place}{error}", param_hint=option) from None


def settings(
    kind: type[CommonConfig], items: Iterable[str] | None, **named: Any
) -> dict[str, dict[str, Any]]:
    """Return the configuration overrides of ``--set`` and of other options, by option.

    A list is given with commas or as JSON, an object as JSON.
    """
    values: dict[str, Any] = {}
    for field, text in pairs(items, "--set").items():
        whole, *inner = field.split(".")
        if inner and whole in kind.model_fields:
            advice = f"write --set {quote(f'{whole}={_nested(inner, text)}')}"
            raise ConfigError(f"{field}: --set takes whole fields; {advice}")
        known = kind.model_fields.get(field)
        if known is not None and known.annotation in (str, str | None):
            values[field] = text
        elif text.lstrip().startswith(("[", "{")):
            try:
                values[field] = read_document(text, syntax="JSON")
            except DocumentError as error:
                raise typer.BadParameter(f"{field}: {error}", param_hint="--set") from None
        elif known is not None and known.annotation == list[str]:
            values[field] = split(text)
        else:
            values[field] = text
    given = {f"--{name.replace('_', '-')}": {name: value} for name, value in named.items() if value}
    return {"--set": values} | given


def _nested(names: Sequence[str], text: str) -> str:
    """Return the JSON of objects that have a value at this path of names."""
    value: Any = text
    with suppress(DocumentError):
        value = read_document(text, syntax="JSON")
    for name in reversed(names):
        value = {name: value}
    return json.dumps(value)


def split(text: str) -> list[str]:
    """Split at commas: ``"a, b"`` becomes ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]


def time(text: str | None, option: str) -> datetime | None:
    """Return the time of an option. One without a zone is in UTC, as the verbs print times."""
    return None if text is None else required_time(text, option, UTC)


def required_time(text: str, option: str, zone: tzinfo) -> datetime:
    """Return the time of an option. One without a zone is in this one."""
    try:
        return read_time(text, zone)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
