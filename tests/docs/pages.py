"""Code blocks of the documentation: their places, titles and output."""

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
    """A fenced block. A block with a title is a file in the folder of its page."""

    language: str
    code: str
    line: int
    title: str | None
    runs: bool
    output: str = ""
    """Content of the ``text`` block that follows commands in the same section: their output."""


def pages() -> list[Path]:
    """Return the pages for users: the READMEs of the packages and the site."""
    return [
        ROOT / "README.md",
        *sorted(ROOT.glob("flowkit-*/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def info_of(fence: str) -> str:
    """Return the words after the backticks: ``{.python .notest}`` means ``python notest``."""
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
