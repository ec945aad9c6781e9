"""Draw the diagrams of the documentation: ``python docs/_diagrams.py``.

``docs/diagrams`` holds the Mermaid source of each diagram (``NAME.mmd``) and the drawing
(``NAME.svg``) that pages show. The drawings are committed, so building or reading the site needs no
drawing program and no script from another host. The dependency group ``diagrams`` brings the
drawing program. A test fails if a drawing is older than its source.
"""

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "diagrams"
SETTINGS = {
    "theme": "neutral",
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False},
    "state": {"htmlLabels": False},
}
"""Settings that make labels SVG text, because not every viewer shows labels in HTML."""
DEBUGGING = re.compile(r' data-points="[^"]*"')


def digest(source: str) -> str:
    """Return the line of a drawing that identifies its source."""
    return f"<!-- sha256 of the source: {hashlib.sha256(source.encode()).hexdigest()} -->"


def is_current(source: Path) -> bool:
    """Return whether the drawing of ``source`` was drawn from its present text."""
    drawing = source.with_suffix(".svg")
    return drawing.exists() and digest(source.read_text(encoding="utf-8")) in drawing.read_text(
        encoding="utf-8"
    )


def draw(source: str) -> str:
    """Draw a Mermaid diagram as SVG, on white and in its natural size."""
    import mermaidx

    svg = mermaidx.render(source, config=SETTINGS).svg()
    box = re.search(r'viewBox="\S+ \S+ (?P<width>\S+) (?P<height>\S+)"', svg)
    if box is None:
        raise ValueError("the drawing has no viewBox")
    size = f'width="{float(box["width"]):.0f}" height="{float(box["height"]):.0f}"'
    svg = svg.replace('width="100%"', size, 1).replace(
        "background-color: transparent", "background-color: white", 1
    )
    return digest(source) + "\n" + DEBUGGING.sub("", svg) + "\n"


def main() -> None:
    for source in sorted(FOLDER.glob("*.mmd")):
        if not is_current(source):
            source.with_suffix(".svg").write_text(
                draw(source.read_text(encoding="utf-8")), encoding="utf-8"
            )


if __name__ == "__main__":
    main()
