"""The commands in the READMEs of the examples print what the READMEs show."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks

EXAMPLES = ("data_processing", "etl", "event_driven", "microservices", "ml_training")
PROGRAMS = {"python": [sys.executable], "flowkit": [sys.executable, "-m", "flowkit.cli"]}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_commands_of_a_readme_print_what_it_shows(example: str, tmp_path: Path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shown = readme(example)
    commands = [(block, after) for block, after in zip(shown, [*shown[1:], None], strict=True) if block.language == "sh"]
    assert commands
    for block, after in commands:
        printed = "".join(run(line, tmp_path) for line in block.code.splitlines())
        if after is not None and after.language == "text":
            assert fits(after, printed), printed


def test_the_page_of_examples_has_the_commands_of_their_readmes():
    page = ROOT / "docs/how-to/examples.md"
    text = page.read_text(encoding="utf-8")
    commands = [line for block in blocks(page) if block.language == "sh" for line in block.code.splitlines() if "examples" in line]
    firsts = [next(block.code.strip() for block in readme(example) if block.language == "sh") for example in EXAMPLES]
    assert sorted(commands) == sorted(firsts)
    assert [folder for folder in (ROOT / "examples").iterdir() if folder.name[0] != "_" and f"`examples/{folder.name}`" not in text] == []


def readme(example: str) -> list[Block]:
    return list(blocks(ROOT / "examples" / example / "README.md"))


def run(command: str, folder: Path) -> str:
    """Run a command in the folder that contains ``examples/``, and return what it prints."""
    program, *arguments = shlex.split(command)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [*PROGRAMS[program], *arguments], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def fits(shown: Block, printed: str) -> bool:
    """Return whether this was printed, line by line. ``…`` stands for any text."""
    lines, expected = printed.rstrip().splitlines(), shown.code.splitlines()
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in expected]
    return len(lines) == len(patterns) and all(map(re.fullmatch, patterns, (line.rstrip() for line in lines)))
