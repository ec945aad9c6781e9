"""Griffe extension that converts Sphinx roles in docstrings to Markdown."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`(?P<short>~?)(?P<target>[\w.]+)`")
LITERAL_BLOCK = re.compile(r"::(?=\n\s*\n)")


def to_markdown(text: str) -> str:
    """Convert a docstring to Markdown.

    Roles become links if the site contains their target. ``::`` before an indented block becomes a
    colon.
    """
    return LITERAL_BLOCK.sub(":", ROLE.sub(_link, text))


def _link(found: re.Match[str]) -> str:
    target = found["target"]
    shown = target.rpartition(".")[2] if found["short"] else target
    return (
        f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
        if "." in target
        else f"`{shown}`"
    )


class MarkdownDocstrings(griffe.Extension):
    """Extension that applies :func:`to_markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
