"""The modules that users may import are those with a reference page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
ROWS = re.findall(
    r"^\| (`flowkit.*) \| \[.*\]\((.*\.md)\) \|$",
    (REFERENCE / "index.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
PAGES = {module: page for modules, page in ROWS for module in re.findall(r"`([\w.]+)`", modules)}


def public_modules() -> set[str]:
    """Return the modules of all packages whose names have no part with an underscore in front."""
    found = set()
    for source in ROOT.glob("flowkit-*/src"):
        for path in source.rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not any(part.startswith("_") for part in parts):
                found.add(".".join(parts))
    return found


def test_each_public_module_is_in_the_table_of_the_reference() -> None:
    assert PAGES.keys() == public_modules()


def test_the_page_of_each_public_module_names_the_package() -> None:
    for module, page in PAGES.items():
        text = (REFERENCE / page).read_text(encoding="utf-8")
        assert module.partition(".")[0] in text.lower(), module
