"""Dead letters, as keyed records of the store.

The id of a letter is its key. It begins with the kind and the task, so that the letters of a kind
or of a task are a range of keys.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from secrets import token_hex
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flowkit._json.byte_values import Data, Text
from flowkit._json.limits import Moment
from flowkit._records.record_parts import damage_of
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion, Store
from flowkit.task import LETTER_KINDS, DeadLetter, LetterKind

KIND = "letter"
LONGEST_FAULT = 300


def letter_id(kind: LetterKind, origin: bytes, task_id: str | None = None) -> str:
    """Return the id of a letter. The same ``origin`` always gives the same id."""
    digest = sha256(origin).hexdigest()
    return f"{kind}-{digest[:40]}" if task_id is None else f"{kind}-{task_id}-{digest[:16]}"


def kind_and_task(name: str) -> tuple[LetterKind, str | None] | None:
    """Return the kind and the task of the letter with this id, or None for another text."""
    kind, _, rest = name.partition("-")
    task_id, dash, digest = rest.rpartition("-")
    if kind not in LETTER_KINDS or not digest:
        return None
    return kind, task_id if dash else None


def task_of(name: str) -> str | None:
    """Return the task of the letter with this id."""
    found = kind_and_task(name)
    return None if found is None else found[1]


async def park_letters(store: Store, letters: Sequence[DeadLetter]) -> None:
    """Store dead letters; one whose ``letter_id`` exists already is not changed."""
    await store_records(store, [letter_record(letter) for letter in letters])


async def store_records(store: Store, records: Sequence[KeyedRecord]) -> None:
    """Store records of letters; one that exists already is not changed."""
    first = {record.key: record for record in reversed(records)}
    if first:
        await store.records.change(
            [RecordChange(token_hex(8), [record]) for record in first.values()]
        )


async def read_letters(
    store: Store,
    *,
    task_id: str | None = None,
    kind: str | None = None,
    letter_ids: Collection[str] | None = None,
    after: str = "",
    limit: int = 100,
) -> list[DeadLetter]:
    """Return up to ``limit`` dead letters by ``letter_id``, above ``after``.

    If ``task_id``, ``kind`` or ``letter_ids`` are given, return only letters that match all of
    them.
    """
    wanted = Selection(task_id, kind)
    if letter_ids is None:
        records = await selected(store, wanted, after=after, limit=limit)
    else:
        names = sorted({name for name in letter_ids if name > after and wanted.has(name)})
        records = await _named(store, names, limit)
    return [letter_of(record) for record in records]


async def drop_letters(store: Store, letter_ids: Collection[str]) -> int:
    """Delete dead letters, and return how many there were."""
    if not letter_ids:
        return 0
    return sum(
        await store.records.change(
            [
                RecordChange(token_hex(8), delete=[RecordDeletion(KIND, name)])
                for name in dict.fromkeys(letter_ids)
            ]
        )
    )


# ---------------------------------------------------------------- selection


class Selection:
    """The kind and the task of the letters to read; None for any."""

    def __init__(self, task_id: str | None, kind: str | None = None) -> None:
        self._task_id = task_id
        self._kind = kind

    def has(self, name: str) -> bool:
        """Return whether the letter with this id is wanted."""
        kind, task_id = kind_and_task(name) or (None, None)
        return self._kind in (None, kind) and self._task_id in (None, task_id)

    def prefixes(self) -> Iterator[str]:
        """Yield the beginnings of the ids of the letters, in order."""
        kinds = [kind for kind in sorted(LETTER_KINDS) if self._kind in (None, kind)]
        if self._task_id is not None:
            yield from (f"{kind}-{self._task_id}-" for kind in kinds)
        elif self._kind is not None:
            yield from (f"{kind}-" for kind in kinds)
        else:
            yield ""


async def selected(
    store: Store, wanted: Selection, *, after: str = "", limit: int = 100
) -> list[KeyedRecord]:
    """Return the records of up to ``limit`` letters by their ids, above ``after``."""
    found: list[KeyedRecord] = []
    for prefix in wanted.prefixes():
        last = after
        while len(found) < limit:
            page = await store.records.scan(
                KIND, prefix=prefix, after=last, limit=limit - len(found)
            )
            if not page:
                break
            # The ids of other tasks may begin with the name of this one.
            found += [record for record in page if wanted.has(record.key)]
            last = page[-1].key
    return found


async def _named(store: Store, names: Sequence[str], limit: int) -> list[KeyedRecord]:
    found: list[KeyedRecord] = []
    while names and len(found) < limit:
        some, names = names[:limit], names[limit:]
        stored = await store.records.get(KIND, some)
        found += [stored[name] for name in some if name in stored]
    return found[:limit]


# ---------------------------------------------------------------- data


class _Letter(BaseModel):
    """Data of a letter's record. The rest is in its id."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    at: Moment
    reason_code: str
    error: Text
    node_id: Text | None = None
    uid: Text | None = None
    data: Data = b""
    size: int = 0
    generation: int = 0
    attempt: int = 0
    topic: Text | None = None
    key: Text = ""
    partition: int | None = None
    position: int | None = None
    headers: list[tuple[Text, Data]] = []
    trigger: Text | None = None
    webhook: Text | None = None

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """Return the data of a letter."""
        values = {name: getattr(letter, name) for name in cls.model_fields if name != "v"}
        return cls(**values | {"headers": list(letter.headers.items())})

    def letter(self, name: str, kind: LetterKind, task_id: str | None) -> DeadLetter:
        """Return the letter with this id."""
        values = {field: getattr(self, field) for field in type(self).model_fields if field != "v"}
        return DeadLetter(
            letter_id=name,
            kind=kind,
            task_id=task_id,
            **values | {"headers": dict(self.headers)},
        )


def letter_record(letter: DeadLetter) -> KeyedRecord:
    """Return the new record of a letter.

    Raises:
        ValueError: its id is not that of a letter of its kind and task.
    """
    if kind_and_task(letter.letter_id) != (letter.kind, letter.task_id):
        raise ValueError(
            f"{letter.letter_id!r} is not the id of a {letter.kind} letter of task"
            f" {letter.task_id!r}"
        )
    data = _Letter.of(letter).model_dump_json(exclude_defaults=True)
    return KeyedRecord(KIND, letter.letter_id, b'{"v":1,%b' % data.encode()[1:])


def letter_of(record: KeyedRecord) -> DeadLetter:
    """Return the letter of a record; one with a ``fault`` if it cannot be decoded."""
    kind, task_id = kind_and_task(record.key) or ("message", None)
    fault = record.fault
    if fault is None:
        try:
            return _Letter.model_validate_json(record.data).letter(record.key, kind, task_id)
        except ValidationError as error:
            fault = f"its data are invalid: {damage_of(error)}"
    letter = DeadLetter(record.key, 0.0, kind, "damaged", "", task_id)
    return replace(letter, fault=fault[:LONGEST_FAULT])
