"""Each sentence of a protocol's docstrings is a promise with a test."""

from typing import Protocol

import pytest

from tests.conformance.promises import DEFINITION, PromiseTable, faults_of, sentences_of, tables


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.protocol.__name__)
def test_each_sentence_of_a_protocol_names_the_tests_that_check_it(table: PromiseTable):
    faults = faults_of(table)
    assert not faults, "\n".join(faults)


class Door(Protocol):
    """A door. It has one key."""

    width_cm: int
    """The width. It is positive."""

    def open(self, key: str) -> bool:
        """Open the door with ``key`` and
        say whether it moved.

        Nothing happens twice. It takes
        one second, e.g. more.

        Raises:
            KeyError: the key is another
                door's. Nothing moved.
            OSError: the hinge is broken.
        """

    def close(self) -> None: ...


class Suite:
    def test_it_opens(self) -> None: ...


COMPLETE = {
    "": {"A door.": DEFINITION, "It has one key.": ["test_it_opens"]},
    "width_cm": {"The width.": DEFINITION, "It is positive.": ["test_it_opens"]},
    "open": {
        "Open the door with ``key`` and say whether it moved.": ["test_it_opens"],
        "Nothing happens twice.": [
            "tests/conformance/test_promises.py::test_the_sentences_of_a_class_are_found_in_its_docstrings",
            "test_it_opens",
        ],
        "It takes one second, e.g. more.": ["test_it_opens"],
        "Raises KeyError: the key is another door's. Nothing moved.": ["test_it_opens"],
        "Raises OSError: the hinge is broken.": ["test_it_opens"],
    },
}


def faults(**changed: dict[str, object]) -> list[str]:
    table = {name: {**items, **changed.get(name, {})} for name, items in COMPLETE.items()}
    kept = {
        name: {sentence: tests for sentence, tests in items.items() if tests is not None}
        for name, items in table.items()
    }
    return faults_of(PromiseTable(Door, (Suite,), kept))  # type: ignore[arg-type]


def test_the_sentences_of_a_class_are_found_in_its_docstrings():
    assert sentences_of(Door) == {name: list(items) for name, items in COMPLETE.items()}
    assert faults() == []


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        (None, "no test is named for the sentence 'Nothing happens twice.'"),
        (["test_it_closes"], "there is no test 'test_it_closes'"),
        (
            ["tests/conformance/test_promises.py::test_it_closes"],
            "there is no test 'tests/conformance/test_promises.py::test_it_closes'",
        ),
        (
            ["tests/no_such_file.py::test_it_opens"],
            "there is no test 'tests/no_such_file.py::test_it_opens'",
        ),
        ([], "[] is not a list of tests"),
        ("test_it_opens", "'test_it_opens' is not a list of tests"),
    ],
)
def test_a_sentence_without_a_test_is_a_fault(tests: object, fault: str):
    assert faults(open={"Nothing happens twice.": tests}) == [f"Door.open: {fault}"]


def test_an_entry_without_a_sentence_is_a_fault():
    assert faults(open={"It creaks.": ["test_it_opens"]}) == [
        "Door.open: the docstring has no sentence 'It creaks.'"
    ]
