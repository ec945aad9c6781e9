"""Dead letters."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from flowkit.protocols import DeadLetter
from flowkit_sqlite._column_forms import NAMES, fault, fitting
from flowkit_sqlite._context import LONGEST_FAULT, Context, shown
from flowkit_sqlite._jobs import is_brief

INSERT = f"""
    INSERT INTO dead_letters (namespace, {NAMES["dead_letters"]})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
SELECT = f"SELECT {NAMES['dead_letters']} FROM dead_letters WHERE namespace = ?"
IN_ORDER = "AND letter_id > ? ORDER BY letter_id LIMIT ?"
DELETE = "DELETE FROM dead_letters WHERE namespace = ? AND letter_id = ?"
DEFAULTS: Mapping[str, Any] = {
    "at": 0.0,
    "kind": "message",
    "reason_code": "damaged",
    "error": "",
    **dict.fromkeys(("task_id", "node_id", "uid", "topic", "partition", "position")),
    **dict.fromkeys(("size", "generation", "attempt"), 0),
    "key": b"",
    "headers": "{}",
}
"""Values of the damaged columns of a letter."""


class DeadLetters:
    """The dead letters of a namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        """Store letters; those that are stored already are left unchanged."""
        rows = [(self._context.namespace, *_values(letter)) for letter in letters]
        if rows:
            await self._context.write(
                lambda connection: connection.executemany(INSERT, rows).rowcount,
                brief=is_brief(len(rows), sum(len(letter.data) for letter in letters)),
            )

    async def read(
        self,
        *,
        task_id: str | None,
        kind: str | None,
        letter_ids: Collection[str] | None,
        after: str,
        limit: int,
    ) -> list[DeadLetter]:
        """Return the matching letters in the order of their ids."""
        asked = {"task_id": task_id, "kind": kind}
        wanted = {column: value for column, value in asked.items() if value is not None}
        text = " ".join([SELECT, *(f"AND {column} = ?" for column in wanted)])
        values = (self._context.namespace, *wanted.values())

        def job(connection: sqlite3.Connection) -> list[Sequence[Any]]:
            if letter_ids is None:
                return connection.execute(f"{text} {IN_ORDER}", (*values, after, limit)).fetchall()
            named = (
                connection.execute(f"{text} AND letter_id = ?", (*values, letter_id)).fetchone()
                for letter_id in sorted({item for item in letter_ids if item > after})
            )
            return list(islice((row for row in named if row is not None), limit))

        return [_letter(row) for row in await self._context.read(job)]

    async def drop(self, letter_ids: Collection[str]) -> int:
        """Delete letters and return their number."""
        rows = [(self._context.namespace, letter_id) for letter_id in letter_ids]
        if not rows:
            return 0
        return await self._context.write(
            lambda connection: connection.executemany(DELETE, rows).rowcount
        )


def _values(letter: DeadLetter) -> tuple[Any, ...]:
    headers = {name: value.decode("latin-1") for name, value in letter.headers.items()}
    return (
        letter.letter_id,
        letter.at,
        letter.kind,
        letter.reason_code,
        letter.error,
        letter.task_id,
        letter.node_id,
        letter.uid,
        letter.data,
        letter.size,
        letter.generation,
        letter.attempt,
        letter.topic,
        # The key of a message from another program may be text that is not Unicode.
        letter.key.encode("utf-8", "surrogatepass"),
        letter.partition,
        letter.position,
        json.dumps(headers),
    )


def _letter(row: Sequence[Any]) -> DeadLetter:
    """Return the letter of a row; one with a ``fault`` and its undamaged fields if it is
    damaged.
    """
    found = fault("dead_letters", row)
    columns = fitting("dead_letters", row)
    if found is not None:
        columns = {**DEFAULTS, "letter_id": shown(str(row[0])), **columns, "data": b""}
    headers = json.loads(columns.pop("headers"))
    key = columns.pop("key").decode("utf-8", "surrogatepass")
    return DeadLetter(
        **columns,
        key=key,
        headers={name: value.encode("latin-1") for name, value in headers.items()},
        fault=None if found is None else found[:LONGEST_FAULT],
    )
