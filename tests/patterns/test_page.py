"""The page of patterns: its headings, the files that it shows, and their tests."""

import re
from pathlib import Path

from tests.docs.pages import ROOT, script

PAGE = ROOT / "docs" / "topics" / "patterns.md"
FILES = [path.stem for path in script("_generate.py").PATTERNS]


def test_each_pattern_stands_below_a_heading_of_its_name() -> None:
    shown = re.findall(
        r"^### (.+)\n\n(?:.+\n)+\n<!-- generated: pattern-(\w+) -->$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [name for heading, name in shown if slug(heading) != name] == []
    assert sorted(name for _, name in shown) == sorted(FILES)
    assert len(shown) >= 40


def slug(heading: str) -> str:
    return re.sub(r"[ -]", "_", heading.lower())


def test_each_pattern_is_run_by_a_test() -> None:
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    played = {name for text in texts for name in re.findall(r'^@shows\("(\w+)"\)$', text, re.M)}
    assert set(FILES) - played == set()
