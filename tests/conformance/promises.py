"""Tables from each sentence of a protocol's docstrings to the tests that check it.

A module ``*_promises.py`` in this directory defines ``TABLES``. ``test_promises`` compares the
tables with the docstrings. It fails for a sentence without an entry, an entry without a sentence,
and an entry whose test does not exist. So a developer who changes a sentence must check its tests.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

DEFINITION = ("definition",)
"""Entry of a sentence that defines a word or a purpose, which no implementation can break."""

END_OF_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z:`])")
RAISED = re.compile(r"^(?=\w+: )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PromiseTable:
    """The sentences of one class and their tests.

    ``sentences`` maps the name of a method or attribute (or ``""`` for the class itself) to its
    sentences, and each sentence to tests. A plain name is a method of one of the ``suites``,
    anything else is ``path/of/test_file.py::test_name`` from the repository's root.
    """

    protocol: type
    suites: Sequence[type]
    sentences: Mapping[str, Mapping[str, Sequence[str]]]


def tables() -> list[PromiseTable]:
    """Return the tables of all ``*_promises`` modules, joined into one for each protocol."""
    names = [
        path.stem
        for path in sorted(HERE.glob("*_promises.py"))
        if not path.stem.startswith("test_")
    ]
    merged: dict[type, PromiseTable] = {}
    for table in (
        table
        for name in names
        for table in importlib.import_module(f"tests.conformance.{name}").TABLES
    ):
        merged[table.protocol] = (
            _merged(merged[table.protocol], table) if table.protocol in merged else table
        )
    return list(merged.values())


def _merged(one: PromiseTable, other: PromiseTable) -> PromiseTable:
    names = [*one.sentences, *(name for name in other.sentences if name not in one.sentences)]
    sentences = {
        name: {**one.sentences.get(name, {}), **other.sentences.get(name, {})} for name in names
    }
    return PromiseTable(one.protocol, [*one.suites, *other.suites], sentences)


def sentences_of(protocol: type) -> dict[str, list[str]]:
    """Return the sentences in the docstrings of a class, by method or attribute.

    Each item of ``Raises`` is a sentence that starts with ``Raises``.
    """
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(protocol))).body
    assert isinstance(body, ast.ClassDef)
    found = {name: sentences(inspect.cleandoc(text)) for name, text in _docstrings(body)}
    return {name: items for name, items in found.items() if items}


def _docstrings(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    yield "", ast.get_docstring(body) or ""
    for number, item in enumerate(body.body):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            yield item.name, ast.get_docstring(item) or ""
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            following = body.body[number + 1] if number + 1 < len(body.body) else None
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield item.target.id, text


def sentences(docstring: str) -> list[str]:
    """Split a docstring into sentences, each on one line."""
    text, _, raises = docstring.partition("\nRaises:\n")
    found = [
        sentence
        for paragraph in text.split("\n\n")
        for sentence in END_OF_SENTENCE.split(_one_line(paragraph))
    ]
    found += [f"Raises {_one_line(item)}" for item in RAISED.split(textwrap.dedent(raises))]
    return [sentence for sentence in found if sentence not in ("", "Raises ")]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def faults_of(table: PromiseTable) -> list[str]:
    """Return the faults of a table, one line each."""
    wanted = {
        (name, sentence)
        for name, items in sentences_of(table.protocol).items()
        for sentence in items
    }
    present = {(name, sentence) for name, items in table.sentences.items() for sentence in items}
    where = table.protocol.__name__
    return [
        *(
            f"{where}.{name}: no test is named for the sentence {sentence!r}"
            for name, sentence in sorted(wanted - present)
        ),
        *(
            f"{where}.{name}: the docstring has no sentence {sentence!r}"
            for name, sentence in sorted(present - wanted)
        ),
        *(
            f"{where}.{name}: {fault}"
            for name, items in table.sentences.items()
            for tests in items.values()
            for fault in _missing(table, tests)
        ),
    ]


def _missing(table: PromiseTable, tests: Sequence[str]) -> list[str]:
    if tests == DEFINITION:
        return []
    if isinstance(tests, str) or not tests:
        return [f"{tests!r} is not a list of tests"]
    return [f"there is no test {test!r}" for test in tests if not _exists(table, test)]


def _exists(table: PromiseTable, test: str) -> bool:
    path, _, name = test.rpartition("::")
    if path:
        return (ROOT / path).is_file() and re.search(
            rf"def {re.escape(name)}\(", (ROOT / path).read_text()
        ) is not None
    return name.startswith("test_") and any(
        callable(getattr(suite, name, None)) for suite in table.suites
    )
