"""Options that several verbs have."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flowkit._json.documents import SYNTAX_OF_SUFFIX, DocumentError, read_document, read_file
from flowkit._json.values import kind_of
from flowkit.config import CommonConfig

Db = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="ADDRESS", help="The store: mongodb://host/name or memory://name."
    ),
]
Bus = Annotated[
    str | None,
    typer.Option("--bus", metavar="ADDRESS", help="The bus: kafka://host:9092 or memory://name."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration: a JSON, TOML or YAML file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Set a field of the configuration; repeatable."
    ),
]
Handlers = Annotated[
    list[str] | None,
    typer.Option(
        "--handlers",
        metavar="MODULE:ATTR",
        help="Handlers to serve; repeatable. Looked for in the current directory too.",
    ),
]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="The node's id.")]
FlowFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A graph document (.json, .yaml), a Python file (.py, or .py:NAME), or module:attr.",
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="JSON|@FILE",
        help=(
            "Parameters of the task: a JSON object, or @FILE with an object in JSON, YAML or TOML."
        ),
    ),
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; repeatable.")
]
Pipeline = Annotated[str | None, typer.Option("--pipeline", help="The pipeline it belongs to.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for the end."),
]


def pairs(items: Iterable[str] | None, option: str) -> dict[str, str]:
    """``["a=1"]`` as ``{"a": "1"}``."""
    found: dict[str, str] = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"expected KEY=VALUE, not {item!r}", param_hint=option)
        found[key] = value
    return found


def read_params(text: str | None) -> dict[str, Any] | None:
    """Read the parameters of a task: a JSON object, or ``@FILE``, a document in JSON, YAML or
    TOML.
    """
    if text is None:
        return None
    name = "the object"
    try:
        if text.startswith("@"):
            name = text[1:]
            path = Path(name)
            value = read_document(
                read_file(path), syntax=SYNTAX_OF_SUFFIX.get(path.suffix.lower(), "JSON")
            )
        else:
            value = read_document(text, syntax="JSON")
    except DocumentError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--params") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"{name}: an object is expected, not {kind_of(value)}", param_hint="--params"
        )
    return value


def settings(kind: type[CommonConfig], items: Iterable[str] | None, **named: Any) -> dict[str, Any]:
    """What ``--set`` and the options of their own say of a configuration. A list is given with
    commas or as JSON, an object as JSON.
    """
    values: dict[str, Any] = {}
    for field, text in pairs(items, "--set").items():
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
    return values | {name: value for name, value in named.items() if value}


def split(text: str) -> list[str]:
    """``"a, b"`` as ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]
