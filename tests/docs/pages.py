"""The code in the documentation: where it stands and what is to be done with it."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```\s*$",
    re.DOTALL | re.MULTILINE,
)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block. One with a title is a file, which stands beside those of the same page."""

    language: str
    code: str
    line: int
    title: str | None
    runs: bool
    output: str = ""
    """The ``text`` block that follows commands in the same section: what they print."""


def pages() -> list[Path]:
    """Everything that is written for readers."""
    return [
        ROOT / "README.md",
        *sorted(ROOT.glob("flowkit-*/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def info_of(fence: str) -> str:
    """Behind the backticks stands ``python notest``, or ``{.python .notest}``, which is what the
    site's builder understands.
    """
    return fence.strip("{}").replace(".", "") if fence.startswith("{") else fence


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    for found, following in zip_longest(fences, fences[1:]):
        language, _, info = info_of(found["info"].strip()).partition(" ")
        title = TITLE.search(info)
        yield Block(
            language=language,
            code="".join(
                line.removeprefix(found["indent"])
                for line in found["code"].splitlines(keepends=True)
            ),
            line=text.count("\n", 0, found.start()) + 2,
            title=title[1] if title else None,
            runs="notest" not in info.split(),
            output=_output(text, found, following) if language == "sh" else "",
        )


def _output(text: str, found: re.Match[str], following: re.Match[str] | None) -> str:
    """Return the block that follows commands, if it is in their section and shows output."""
    if (
        following is None
        or following["info"].strip() != "text"
        or "\n#" in text[found.end() : following.start()]
    ):
        return ""
    return following["code"]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def script(name: str) -> ModuleType:
    """Import a script of ``docs``."""
    spec = importlib.util.spec_from_file_location(f"docs{Path(name).stem}", ROOT / "docs" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
