"""Each fragment of the change log has a package and a kind in its name, and one paragraph."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

CHANGES = ROOT / "changes"
FRAGMENTS = sorted(
    path for path in CHANGES.rglob("*") if path.is_file() and path != CHANGES / "README.md"
)
NAME = re.compile(
    r"(core|kafka|mongo|sqlite|telemetry|testing|web)/[a-z0-9]+(-[a-z0-9]+)*\.(added|changed|fixed|removed)\.md"
)


@pytest.mark.parametrize(
    "fragment", FRAGMENTS, ids=lambda path: path.relative_to(CHANGES).as_posix()
)
def test_a_fragment_has_a_name_that_sorts_it_and_one_paragraph(fragment: Path) -> None:
    assert NAME.fullmatch(fragment.relative_to(CHANGES).as_posix())
    text = fragment.read_text(encoding="utf-8").strip()
    assert text
    assert "\n\n" not in text
