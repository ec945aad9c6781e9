"""The place that a mutant changes, found by syntax tree.

A mutant names a function, a class or a constant, and a piece of code inside it. The module is
searched for, so a mutant survives a move to another module. Formatting, comments and line breaks
do not matter.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "flowkit-core" / "src", ROOT / "flowkit-testing" / "src")
FOUND = 10
"""Exit status of a search that found a mutant. Python itself ends with 1, for example when a mutant
breaks the import of a module.
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A small change of the protocol that makes it wrong.

    ``place`` is the qualified name of a definition, such as ``TaskTable.commit``, or the value of
    a key in a table, such as ``NODE_REPORTS[NodeSucceeded]``. In it, the code ``before`` becomes
    ``after``: one expression another expression, or consecutive statements other statements. An
    empty ``after`` removes the statements.

    A ``suite``, which is a test module or one test in it, catches the mutant, or else the
    simulation of these ``scenarios``. If none is named, all scenarios run.
    """

    name: str
    place: str
    before: str
    after: str
    scenarios: tuple[str, ...] = ()
    suite: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A module's changed source text, and whether only a function in it is changed."""

    module: str
    text: str
    in_function: bool


@dataclass(frozen=True, slots=True)
class Code:
    """An expression or consecutive statements."""

    nodes: Sequence[ast.expr] | Sequence[ast.stmt]

    @property
    def shape(self) -> list[str]:
        """The syntax trees as text, without positions."""
        return [ast.dump(node) for node in self.nodes]

    @property
    def begin(self) -> tuple[int, int]:
        return self.nodes[0].lineno, self.nodes[0].col_offset

    @property
    def end(self) -> tuple[int, int]:
        return self.nodes[-1].end_lineno or 0, self.nodes[-1].end_col_offset or 0

    def text(self, column: int) -> str:
        """The source text, to be inserted at this column."""
        if isinstance(self.nodes[0], ast.expr):
            return f"({ast.unparse(self.nodes[0])})"
        return indent("\n".join(map(ast.unparse, self.nodes)), " " * column).lstrip()


def mutated(mutant: Mutant) -> Change:
    """Return the mutant's module with its changed source.

    Raises:
        AssertionError: no place matches, or several do.
    """
    before, after = parse(mutant)
    found = [
        (source, path, definition, code)
        for source in SOURCES
        for path in sorted(source.rglob("*.py"))
        for definition in definitions(path, mutant.place)
        for code in occurrences(definition, before)
    ]
    where = ", ".join(f"{path.name}:{code.begin[0]}" for _, path, _, code in found) or "nowhere"
    assert len(found) == 1, (
        f"mutant {mutant.name!r}: the code {mutant.before!r} must occur once in"
        f" {mutant.place!r}, found {where}"
    )
    source, path, definition, code = found[0]
    return Change(
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"),
        _spliced(_read(path), code, after),
        isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef),
    )


def parse(mutant: Mutant) -> tuple[Code, Code]:
    """Parse the two codes of a mutant: as expressions if both are one, else as statements."""
    before, after = ast.parse(mutant.before).body, ast.parse(mutant.after).body
    match before, after:
        case [ast.Expr(old)], [ast.Expr(new)]:
            return Code([old]), Code([new])
    return Code(before), Code(after or [ast.Pass()])


def definitions(path: Path, place: str) -> list[ast.AST]:
    """Return the definitions of this qualified name in a module."""
    name = place.partition("[")[0].rpartition(".")[2]
    return list(_defined(_tree(path), place)) if name in _read(path) else []


def _defined(parent: ast.AST, place: str) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(parent):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                if place == name:
                    yield node
                elif place.startswith(f"{name}."):
                    yield from _defined(node, place.removeprefix(f"{name}."))
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value) if (
                value is not None
            ):
                if place == name:
                    yield ast.Expr(value)
                elif isinstance(value, ast.Dict):
                    for key, item in zip(value.keys, value.values, strict=True):
                        if key is not None and place == f"{name}[{ast.unparse(key)}]":
                            yield ast.Expr(item)


def occurrences(definition: ast.AST, wanted: Code) -> Iterator[Code]:
    """Yield each occurrence of some code in a definition."""
    length, kind, shape = len(wanted.nodes), type(wanted.nodes[0]), wanted.shape
    for parent in ast.walk(definition):
        for _, value in ast.iter_fields(parent):
            children = value if isinstance(value, list) else [value]
            for start, child in enumerate(children[: len(children) - length + 1]):
                if isinstance(child, kind):
                    code = Code(children[start : start + length])
                    if code.shape == shape:
                        yield code


def _spliced(text: str, code: Code, after: Code) -> str:
    """Replace code in a source text. Columns of syntax trees count bytes."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    begin, end = (
        sum(map(len, lines[: line - 1])) + column for line, column in (code.begin, code.end)
    )
    whole = b"".join(lines)
    return (whole[:begin] + after.text(code.begin[1]).encode() + whole[end:]).decode()


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(_read(path))
