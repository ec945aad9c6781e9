"""Verbs on work that was given up: ``dlq ls``, ``dlq show``, ``dlq retry``, ``dlq drop``."""

import base64
import json
from typing import Annotated, Any

import typer

from flowkit._dead_letters.redrive import Redriven
from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._errors import USAGE, print_error
from flowkit.cli._output import compact, console, print_json, table, time_text
from flowkit.client import Client
from flowkit.protocols import LETTER_KINDS, DamagedRecord, DeadLetter, utc
from flowkit.task import Page

PAGE = 500

Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER...", help="Ids of dead letters, as `dlq ls` prints them."),
]
OfTask = Annotated[
    str | None, typer.Option("--task", metavar="ID", help="Only those of this task.")
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only those of this kind: batch, node, message or task."
    ),
]


def ls(
    task_id: OfTask = None,
    kind: Kind = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 100,
    after: Annotated[
        str, typer.Option("--after", metavar="LETTER", help="Go on behind this one.")
    ] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List dead letters: batches, nodes, messages and tasks that failed for the last time, and why.

    After them come records that the store cannot decode (kind ``record``), if neither --task nor
    --kind nor --after is given.
    """

    async def main() -> tuple[Page[DeadLetter], list[DamagedRecord]]:
        async with connected(config, db, bus) as client:
            letters = await client.dead_letters(
                task_id=task_id, kind=_kind(kind), after=after, limit=limit
            )
            return letters, [] if task_id or kind or after else await client.damaged_records(
                limit=limit
            )

    page, damaged = run_async(main)
    if as_json:
        print_json([*(as_dict(letter) for letter in page.items), *map(_record_as_dict, damaged)])
        return
    rows: list[tuple[str | None, ...]] = [
        (
            item.letter_id,
            item.kind,
            time_text(utc(item.at)),
            item.task_id,
            item.node_id or item.topic,
            item.reason_code,
            compact(item.fault or item.error),
        )
        for item in page.items
    ]
    rows += [
        (_record_id(item), "record", None, item.task_id, None, "damaged", compact(item.fault))
        for item in damaged
    ]
    out = console()
    headings = ("letter", "kind", "at", "task", "node or topic", "reason", "error")
    out.print(table(None, headings, rows) if rows else "no dead letters")
    if page.next:
        out.print(f"more with --after {page.next}", soft_wrap=True)


def show(
    letter_id: Annotated[str, typer.Argument(metavar="LETTER", help="The dead letter's id.")],
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a dead letter with what is needed to do its work by hand."""

    async def main() -> list[DeadLetter]:
        async with connected(config, db, bus) as client:
            return (await client.dead_letters(letter_ids=[letter_id])).items

    letters = run_async(main)
    if not letters:
        print_error(f"there is no dead letter {letter_id!r}")
        raise typer.Exit(USAGE)
    if as_json:
        print_json(as_dict(letters[0]))
        return
    for name, value in as_dict(letters[0]).items():
        if value not in (None, "", {}):
            text = (
                value
                if isinstance(value, str)
                else json.dumps(value, ensure_ascii=False, default=str)
            )
            typer.echo(printable(f"{name}: {text}", lines=True))


def retry(
    letter_ids: Letters = None,
    task_id: OfTask = None,
    kind: Kind = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Try again what was given up: the letters named, or all of a task or kind.

    A message is sent again; the node of a letter, or of a batch, and all nodes below it run again;
    a quarantined task is looked at again. The exit status is 2 if a letter was left as it was.
    """

    async def main() -> list[Redriven]:
        async with connected(config, db, bus) as client:
            return await client.retry_dead_letters(await _chosen(client, letter_ids, task_id, kind))

    outcomes = run_async(main)
    if as_json:
        print_json(
            [
                {"letter_id": one.letter_id, "retried": one.done, "detail": one.detail}
                for one in outcomes
            ]
        )
    else:
        for one in outcomes:
            typer.echo(
                printable(f"{one.letter_id}: {'' if one.done else 'not tried again: '}{one.detail}")
            )
    if not all(one.done for one in outcomes):
        raise typer.Exit(USAGE)


def drop(
    letter_ids: Letters = None,
    task_id: OfTask = None,
    kind: Kind = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Forget dead letters, those named or all of a task or kind, and say how many there were.

    The exit status is 2 if there was none.
    """

    async def main() -> tuple[int, int]:
        async with connected(config, db, bus) as client:
            chosen = await _chosen(client, letter_ids, task_id, kind)
            return await client.drop_dead_letters(chosen), len(chosen)

    dropped, chosen = run_async(main)
    if as_json:
        print_json({"dropped": dropped})
    else:
        typer.echo(f"dropped {dropped} of {chosen}")
    if not dropped:
        raise typer.Exit(USAGE)


def _kind(kind: str | None) -> str | None:
    if kind not in (None, *LETTER_KINDS):
        raise typer.BadParameter(
            f"expected batch, node, message or task, not {kind!r}", param_hint="--kind"
        )
    return kind


async def _chosen(
    client: Client, letter_ids: list[str] | None, task_id: str | None, kind: str | None
) -> list[str]:
    """The letters that are named, or all of a task or kind."""
    if bool(letter_ids) == bool(task_id or kind):
        raise typer.BadParameter(
            "give the ids of letters, or --task or --kind", param_hint="LETTER"
        )
    if letter_ids:
        return list(dict.fromkeys(letter_ids))
    found: list[str] = []
    after = ""
    while True:
        page = await client.dead_letters(task_id=task_id, kind=_kind(kind), after=after, limit=PAGE)
        found += [letter.letter_id for letter in page.items]
        if page.next is None:
            return found
        after = page.next


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for printing: its data is JSON where it can be, else base64 under
    ``data_base64``.
    """
    shown: dict[str, Any] = {
        name: getattr(letter, name) for name in letter.__slots__ if name != "data"
    }
    shown["at"] = utc(letter.at).isoformat()
    shown["key"] = _unicode(letter.key)
    shown["headers"] = {
        _unicode(name): value.decode("utf-8", "backslashreplace")
        for name, value in letter.headers.items()
    }
    try:
        return shown | {"data": json.loads(letter.data) if letter.data else None}
    except ValueError:
        return shown | {"data_base64": base64.b64encode(letter.data).decode()}


def _record_id(record: DamagedRecord) -> str:
    return f"{record.place}/{record.record_id}"


def _record_as_dict(record: DamagedRecord) -> dict[str, Any]:
    """A damaged record with the keys of a letter."""
    known = {
        "letter_id": _record_id(record),
        "kind": "record",
        "task_id": record.task_id,
        "reason_code": "damaged",
        "fault": record.fault,
    }
    return dict.fromkeys((*DeadLetter.__slots__, "data")) | known


def _unicode(text: str) -> str:
    """What others gave a message as its key need not be Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
