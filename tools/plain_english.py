"""Check that docstrings, comments, messages and pages are in plain English.

Run it with ``python -m tools.plain_english``. It reports three kinds of lines: docstrings that open
with a question word, words that make a reader guess, also in names of tests, and lines that the
formatter skips.
``EXCEPTIONS`` lists the lines that may stay, each with its reason.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKED = ("*.py", "*.md", "*.toml", "*.ini", "*.yaml", "*.yml", "*.mmd", ".ci/*")
SELF = "tools/plain_english.py"
"""The file that lists the words."""

OPENINGS = ("What", "Who", "Whoever", "Whatever", "How", "Where", "When", "Of", "That", "So")
WORDS = {
    "whoever": "name the actor: the worker, the caller",
    "whatever": "say which: any error, all kinds",
    "somebody": "name the actor: another process, a user",
    "nobody": "name the actor: no worker, no plugin",
    "anew": "again",
    "mend": "fix or repair",
    "mends": "fixes or repairs",
    "mended": "fixed or repaired",
    "mending": "fixing or repairing",
    "sign of life": "heartbeat",
    "signs of life": "heartbeats",
    "told": "reported, notified, sent",
}
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""The reason why a line may stay, by its file and its text."""

_OPENING = re.compile(rf"({'|'.join(OPENINGS)})\b")
_WORD = re.compile(r"\b(" + "|".join(WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
_UNFORMATTED = re.compile(r"fmt:\s*(skip|off)\b")
_PROSE = {
    tokenize.COMMENT,
    tokenize.STRING,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),  # since Python 3.12
}

Finding = tuple[int, str]
"""The number of a line and the reason why it is not allowed."""


def findings(texts: Mapping[str, str], exceptions: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    """Yield each line that is not allowed, and each exception that matches no such line.

    Args:
        texts: The texts to check, by file name.
        exceptions: The lines to accept, by file name and text.
    """
    unused = set(exceptions)
    accepted = frozenset(unused)
    for name, text in texts.items():
        lines = text.splitlines()
        for number, reason in _in_python(text) if name.endswith(".py") else _words(text):
            line = lines[number - 1].strip()
            unused.discard((name, line))
            if (name, line) not in accepted:
                yield f"{name}:{number}: {reason}: {line[:120]}"
    for name, line in sorted(unused):
        yield f"{name}: this exception is not needed: {line[:120]}"


def tracked_texts() -> dict[str, str]:
    """Return the text of each checked file of the repository, by name."""
    command = ["git", "ls-files", "-z", "--", *CHECKED]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = set(listed.stdout.split("\0")) - {"", SELF}
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in sorted(names)}


def _in_python(text: str) -> Iterator[Finding]:
    tree = ast.parse(text)
    for line, docstring in _docstrings(tree):
        prose = docstring.lstrip()
        if opening := _OPENING.match(prose):
            line += docstring[: -len(prose)].count("\n")
            yield line, f"a docstring opens with {opening[1]!r} (write an imperative or a noun)"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_":
            yield from _words(node.name.replace("_", " "), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _PROSE:
            yield from _words(token.string, token.start[0])
        if token.type == tokenize.COMMENT and _UNFORMATTED.search(token.string):
            yield token.start[0], "the formatter skips this line (regroup it)"


def _docstrings(tree: ast.Module) -> Iterator[Finding]:
    """Yield docstrings, also those below constants and fields: strings that are a statement."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value


def _words(text: str, first_line: int = 1) -> Iterator[Finding]:
    for match in _WORD.finditer(text):
        word = " ".join(match[1].lower().split())
        yield first_line + text.count("\n", 0, match.start()), f"{word!r} (write: {WORDS[word]})"


def main() -> int:
    """Print the findings and return the exit status."""
    found = list(findings(tracked_texts(), EXCEPTIONS))
    for finding in found:
        print(finding)
    print(f"{len(found)} findings" if found else "plain English: no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
