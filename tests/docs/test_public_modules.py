"""The modules that users may import have a reference page, and their names have an entry there."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import yaml

import flowkit.worker

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
ROWS = re.findall(
    r"^\| (`flowkit.*) \| \[.*\]\((.*\.md)\) \|$",
    (REFERENCE / "index.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
ENTRY = re.compile(r"^::: (?P<target>[\w.]+)\n(?P<options>(?: +.*\n)*)", re.MULTILINE)
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


# ---------------------------------------------------------------- the names of a module


def exported(module: str) -> list[str]:
    """Return the names in the ``__all__`` of a module; none if it has no ``__all__``."""
    return list(getattr(import_module(module), "__all__", ()))


def defined_in(module: ModuleType) -> Iterator[str]:
    """Yield the names that a module defines itself."""
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (ast.unparse(target) for target in statement.targets)


def entries(page: str) -> Iterator[tuple[str, int]]:
    """Yield the name and identity of each object that a page describes.

    The entry of a module describes the names that the module defines and its filter accepts.
    """
    for found in ENTRY.finditer((REFERENCE / page).read_text(encoding="utf-8")):
        described = resolve_name(found["target"])
        if isinstance(described, ModuleType):
            options = yaml.safe_load(found["options"] or "{}").get("options", {})
            (pattern,) = options.get("filters", ["^[^_]"])
            for name in defined_in(described):
                if re.search(pattern, name):
                    yield name, id(getattr(described, name))
        else:
            yield found["target"].rpartition(".")[2], id(described)


def test_each_name_that_a_public_module_exports_has_an_entry() -> None:
    described = {entry for page in PAGES.values() for entry in entries(page)}
    assert [
        f"{module}.{name}"
        for module in PAGES
        for name in exported(module)
        if (name, id(getattr(import_module(module), name))) not in described
    ] == []


def test_no_entry_has_a_private_name() -> None:
    assert [
        found["target"]
        for page in sorted(set(PAGES.values()))
        for found in ENTRY.finditer((REFERENCE / page).read_text(encoding="utf-8"))
        if "._" in found["target"]
    ] == []


def test_the_worker_can_be_imported_beside_the_coordinator() -> None:
    assert flowkit.Worker is flowkit.worker.Worker
