"""Generator of the verbs in ``docs/reference/cli.md``: ``python -m tests.cli.reference``."""

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from flowkit.cli._app import VERBS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
REGION = re.compile(r"(<!-- verbs -->\n).*?(<!-- end of verbs -->)", re.DOTALL)


def regenerated(page: str) -> str:
    """Return the page with its list of verbs replaced by the current one."""
    return REGION.sub(lambda found: f"{found[1]}\n{verbs()}\n{found[2]}", page)


def verbs() -> str:
    """Return each verb with its usage, help text and options, under the heading of its panel."""
    parts = []
    panel = ""
    for verb in VERBS:
        if verb.panel != panel:
            parts.append(f"## {verb.panel}\n")
            panel = verb.panel
        parts.append("\n".join(section(verb.words, verb.run)))
    return "\n".join(parts)


def section(words: str, run: Callable[..., Any]) -> Iterator[str]:
    """Yield the lines of one verb."""
    given = inspect.signature(run).parameters
    known = [
        (*get_args(hint), given[name].default)
        for name, hint in get_type_hints(run, include_extras=True).items()
        if name in given
    ]
    arguments = [(info, default) for _, info, default in known if isinstance(info, ArgumentInfo)]
    options = [
        (kind, info, default) for kind, info, default in known if isinstance(info, OptionInfo)
    ]
    places = " ".join(info.metavar or "" for info, _ in arguments)
    yield f"### `flowkit {words}`\n"
    yield f"```text\nflowkit {words}{f' {places}' if places else ''} [OPTIONS]\n```\n"
    yield f"{inspect.getdoc(run)}\n"
    yield "| | |\n| --- | --- |"
    for info, _ in arguments:
        yield f"| `{info.metavar}` | {cell(info.help)} |"
    for kind, info, default in options:
        yield f"| `{name_of(info)}{value(kind, info)}` | {cell(info.help)}{default_of(default)} |"
    yield ""


def name_of(info: OptionInfo) -> str:
    """Return the names of an option. Typer reads the default of an annotation as its first name."""
    return " ".join(
        str(name)
        for name in (info.default, *(info.param_decls or ()))
        if str(name).startswith("--")
    )


def value(kind: Any, info: OptionInfo) -> str:
    """Return the placeholder for the value of an option; a flag has none."""
    kinds = [one for one in (*get_args(kind), kind) if one is not type(None)]
    kinds += [one for part in kinds for one in get_args(part)]
    choices = next((one for one in kinds if isinstance(one, type) and issubclass(one, Enum)), None)
    if choices is not None:
        return " " + cell("|".join(choice.value for choice in choices))
    if kind is bool:
        return ""
    return " " + cell(info.metavar or ("NUMBER" if {int, float} & set(kinds) else "TEXT"))


def default_of(default: Any) -> str:
    if default is inspect.Parameter.empty or default is None or default is False or default == "":
        return ""
    return f" Default: `{default}`."


def cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(regenerated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
