"""Pages show diagrams as committed images, which are current."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, name_of, pages, script

generate, diagrams = script("_generate.py"), script("_diagrams.py")
SOURCES = sorted((ROOT / "docs" / "diagrams").glob("*.mmd"))


@pytest.mark.parametrize("path", generate.diagrams(), ids=lambda path: path.stem)
def test_the_source_of_a_generated_diagram_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.diagrams()[path], (
        "run: python docs/_generate.py"
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_drawing_is_made_from_the_present_source(source: Path) -> None:
    assert diagrams.is_current(source), (
        "run: python docs/_diagrams.py (needs the dependency group 'diagrams')"
    )


def test_each_drawing_has_a_source_and_a_page_that_shows_it() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    drawings = [path.name for path in sorted((ROOT / "docs" / "diagrams").glob("*.svg"))]
    assert drawings == [path.with_suffix(".svg").name for path in SOURCES]
    assert [name for name in drawings if f"diagrams/{name})" not in text] == []


def test_a_drawing_of_another_source_is_not_current(tmp_path: Path) -> None:
    source = tmp_path / "a.mmd"
    source.write_text("flowchart LR; a --> b")
    source.with_suffix(".svg").write_text(diagrams.digest("flowchart LR; a --> b") + "<svg/>")
    assert diagrams.is_current(source)
    source.write_text("flowchart LR; a --> c")
    assert not diagrams.is_current(source)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_page_has_a_diagram_that_a_script_of_another_host_would_draw(page: Path) -> None:
    assert [block.line for block in blocks(page) if block.language == "mermaid"] == [], (
        "put the source into docs/diagrams"
    )
