"""Check that docstrings, comments, messages and pages are in plain English: ``python -m
tools.plain_english``.

A docstring says what its object does or is: its first line does not begin with a question word.
Some words are banned everywhere, because readers have to guess what they mean. ``EXCEPTIONS`` lists
the lines that may stay, each with its reason.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SKIPPED = ("CHANGELOG.md", "LICENSE", "tests/fuzz/corpus/", "tools/plain_english.py")

OPENINGS = ("What", "Who", "Whoever", "Whatever", "How", "Where", "When", "Of", "That", "So")
_OPENING = re.compile(rf"^({'|'.join(OPENINGS)})\b")
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
_WORD = re.compile(r"\b(" + "|".join(WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""By file and the text of the line: why it may stay."""


def findings() -> Iterator[str]:
    """Yield each line that is not allowed, with its place and the reason."""
    used = set()
    for name in _tracked():
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        found = _in_python(text) if name.endswith(".py") else _in_prose(text)
        for number, reason in found:
            key = name, lines[number - 1].strip()
            if key in EXCEPTIONS:
                used.add(key)
            else:
                yield f"{name}:{number}: {reason}: {lines[number - 1].strip()[:120]}"
    for name, line in EXCEPTIONS.keys() - used:
        yield f"{name}: this exception is no longer needed: {line[:120]}"


def _tracked() -> Iterator[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return (name for name in listed.stdout.split("\0") if name and not name.startswith(SKIPPED))


def _in_python(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    for place, literal in _docstrings(tree):
        if opening := _OPENING.match(literal.lstrip()):
            yield place, f"a docstring does not begin with {opening[1]!r}"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from _words(token.string, token.start[0])


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find docstrings, those of constants and fields too: a string alone in a statement."""
    for node in ast.walk(tree):
        for statement in (
            getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ()
        ):
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def _in_prose(text: str) -> Iterator[tuple[int, str]]:
    yield from _words(text, 1)


def _words(text: str, first_line: int) -> Iterator[tuple[int, str]]:
    for match in _WORD.finditer(text):
        word = " ".join(match[1].lower().split())
        yield first_line + text.count("\n", 0, match.start()), f"{word!r} (write: {WORDS[word]})"


def main() -> int:
    """Print the findings and return the exit status."""
    count = 0
    for finding in findings():
        print(finding)
        count += 1
    print(f"{count} findings" if count else "plain English: no findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
