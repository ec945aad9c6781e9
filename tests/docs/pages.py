"""The code in the documentation: where it stands and what is to be done with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.DOTALL | re.MULTILINE)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block. One with a title is a file, which stands beside those of the same page."""

    language: str
    code: str
    line: int
    title: str | None
    runs: bool


def pages() -> list[Path]:
    """Everything that is written for readers."""
    return [ROOT / "README.md", *sorted(ROOT.glob("flowkit-*/README.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def info_of(fence: str) -> str:
    """Behind the backticks stands ``python notest``, or ``{.python .notest}``, which is what the site's builder understands."""
    return fence.strip("{}").replace(".", "") if fence.startswith("{") else fence


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        language, _, info = info_of(found["info"].strip()).partition(" ")
        title = TITLE.search(info)
        yield Block(
            language=language,
            code="".join(line.removeprefix(found["indent"]) for line in found["code"].splitlines(keepends=True)),
            line=text.count("\n", 0, found.start()) + 2,
            title=title[1] if title else None,
            runs="notest" not in info.split(),
        )


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
