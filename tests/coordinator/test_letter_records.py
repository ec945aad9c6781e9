"""Dead letters as keyed records: their ids, their order and what is read of damaged ones."""

import dataclasses

import pytest

from flowkit._records.letter_records import (
    drop_letters,
    kind_and_task,
    letter_id,
    park_letters,
    read_letters,
)
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import LETTER_KINDS, DeadLetter, LetterKind
from flowkit_testing import InMemoryStore
from tests.store_records import LETTER, NOON

pytestmark = pytest.mark.anyio
TASKS = ["a", "a-b", "a-b-0", "-", "ü/[0]", "a%"]


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


def letter(kind: LetterKind, number: int, task_id: str | None = None) -> DeadLetter:
    name = letter_id(kind, b"%d" % number, task_id)
    return DeadLetter(name, NOON, kind, "code", f"error {number}", task_id)


async def names(store: InMemoryStore, **wanted: object) -> list[str]:
    return [found.letter_id for found in await read_letters(store, **wanted)]


@pytest.mark.parametrize("task_id", [None, *TASKS])
@pytest.mark.parametrize("kind", LETTER_KINDS)
def test_an_id_names_the_kind_and_the_task(kind: LetterKind, task_id: str | None) -> None:
    name = letter_id(kind, b"x", task_id)
    assert kind_and_task(name) == (kind, task_id)
    assert letter_id(kind, b"x", task_id) == name
    assert letter_id(kind, b"y", task_id) != name


@pytest.mark.parametrize("name", ["", "batch", "batch-", "other-1", "node-t-"])
def test_another_text_is_no_id(name: str) -> None:
    assert kind_and_task(name) is None


async def test_a_letter_comes_back_with_all_its_fields(store: InMemoryStore) -> None:
    odd = dataclasses.replace(
        LETTER, error="odd \udcff", key="\udcfe", data=b"\xfe", headers={"\udcfd": b"\x00"}
    )
    await park_letters(store, [odd])
    assert await read_letters(store) == [odd]


async def test_a_letter_whose_id_does_not_fit_is_refused(store: InMemoryStore) -> None:
    with pytest.raises(ValueError, match=r"is not the id of a node letter of task 't'"):
        await park_letters(store, [dataclasses.replace(LETTER, kind="node")])


async def test_the_first_of_several_letters_with_one_id_stays(store: InMemoryStore) -> None:
    again = dataclasses.replace(LETTER, error="again")
    await park_letters(store, [LETTER, again])
    await park_letters(store, [again])
    assert await read_letters(store) == [LETTER]


async def test_letters_are_read_by_kind_task_and_id_in_pages(store: InMemoryStore) -> None:
    letters = [
        *(
            letter(kind, number, task)
            for kind in ("batch", "node")
            for number in (1, 2)
            for task in TASKS
        ),
        *(letter("task", 1, task) for task in TASKS),
        letter("message", 1),
        letter("message", 2),
    ]
    await park_letters(store, letters)
    every = sorted(item.letter_id for item in letters)
    for kind in (None, *LETTER_KINDS):
        for task_id in (None, *TASKS, "none"):
            for ids in (None, every[::2]):
                expected = sorted(
                    item.letter_id
                    for item in letters
                    if kind in (None, item.kind)
                    and task_id in (None, item.task_id)
                    and (ids is None or item.letter_id in ids)
                )
                wanted = {"kind": kind, "task_id": task_id, "letter_ids": ids}
                assert await names(store, **wanted) == expected
                paged: list[str] = []
                while page := await names(
                    store, **wanted, after=paged[-1] if paged else "", limit=2
                ):
                    assert len(page) <= 2
                    paged += page
                assert paged == expected


async def test_of_no_letters_none_is_read(store: InMemoryStore) -> None:
    await park_letters(store, [LETTER])
    for ids in ([], [LETTER.letter_id]):
        assert await names(store, letter_ids=ids, limit=0) == []
    assert await names(store, limit=0) == []


async def test_dropping_counts_the_letters_that_there_were(store: InMemoryStore) -> None:
    await park_letters(store, [letter("message", 1), letter("message", 2)])
    one = letter_id("message", b"1")
    assert await drop_letters(store, [one, one, "message-none"]) == 1
    assert await drop_letters(store, []) == 0
    assert await names(store) == [letter_id("message", b"2")]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xff", "its data are invalid: Invalid JSON: "),
        (b"{}", "its data are invalid: at: Field required"),
        (b'{"v":2,"at":1}', "its data are invalid: v: Input should be 1"),
        (b'{"at":9e12,"reason_code":"","error":""}', "its data are invalid: at: Input should be"),
    ],
)
async def test_a_damaged_letter_has_a_fault_and_what_its_id_says(
    store: InMemoryStore, data: bytes, fault: str
) -> None:
    for name in ("batch-t-1", "nonsense"):
        record = KeyedRecord("letter", name, data)
        await store.records.change([RecordChange(f"op {name}", [record])])
    found, other = await read_letters(store)
    assert (found.letter_id, found.kind, found.task_id, found.data) == (
        "batch-t-1",
        "batch",
        "t",
        b"",
    )
    assert (found.reason_code, other.letter_id) == ("damaged", "nonsense")
    assert found.fault is not None
    assert found.fault.startswith(fault)
    assert found.to_dict()["at"] is None
    assert await drop_letters(store, ["batch-t-1", "nonsense"]) == 2
