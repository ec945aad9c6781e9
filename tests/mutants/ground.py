"""A copy of the packages in which one thing is wrong."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "flowkit-core" / "src", ROOT / "flowkit-testing" / "src")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A small change of the protocol that makes it wrong.

    ``before`` stands once in ``path`` (below a package's ``src``) and becomes ``after``. It is
    looked for by a conformance ``suite``, or in the simulation: of these ``scenarios``, of all of
    them if none is named.
    """

    name: str
    path: str
    before: str
    after: str
    scenarios: tuple[str, ...] = ()
    suite: str | None = None


def source_of(mutant: Mutant) -> Path:
    """The file that is changed, in the project itself."""
    (found,) = (path for source in SOURCES if (path := source / mutant.path).exists())
    return found


def prepare(mutant: Mutant | None, folder: Path) -> dict[str, str]:
    """Copy the packages, apply the change, and give the environment in which Python imports the
    copy.
    """
    for source in SOURCES:
        # Compiled modules are copied too: Python uses those whose source has not changed. Another
        # process may be writing "*.pyc.NUMBER".
        shutil.copytree(
            source,
            folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("*.egg-info", "*.pyc.*"),
        )
    if mutant is not None:
        target = folder / mutant.path
        text = target.read_text(encoding="utf-8")
        assert text.count(mutant.before) == 1, (
            f"{mutant.name}: its text stands {text.count(mutant.before)} times in {mutant.path}"
        )
        target.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
        for compiled in target.parent.glob(f"__pycache__/{target.stem}.*.pyc"):
            compiled.unlink()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(
    command: list[str], environment: dict[str, str], *, limit_sec: float
) -> subprocess.CompletedProcess[str]:
    """Run a Python module in the prepared environment."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit_sec,
        check=False,
    )
