"""Verbs for dead letters: ``dlq ls``, ``dlq show``, ``dlq retry``, ``dlq drop``."""

import json
from typing import Annotated, Any

import typer

from flowkit._dead_letters.redrive import Redriven
from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._errors import USAGE, print_error
from flowkit.cli._output import compact, console, print_json, print_page, time_text
from flowkit.client import Client
from flowkit.protocols import DamagedRecord, utc
from flowkit.task import LETTER_KINDS, LETTER_KINDS_TEXT, DeadLetter, Page

PAGE = 500
MOST_OF_AN_ERROR = 200
"""Characters of an error in the list."""

Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER...", help="Ids of dead letters, as printed by `dlq ls`."),
]
OfTask = Annotated[
    str | None, typer.Option("--task", metavar="ID", help="Only dead letters of this task.")
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help=f"Only dead letters of this kind: {LETTER_KINDS_TEXT}.",
    ),
]


def ls(
    task_id: OfTask = None,
    kind: Kind = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Maximum number of dead letters.")
    ] = 100,
    after: Annotated[
        str, typer.Option("--after", metavar="LETTER", help="Continue after this dead letter.")
    ] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List dead letters: batches, nodes, messages, tasks, events of triggers and changes for
    webhooks that failed permanently.

    Each is listed with its error. Records that cannot be decoded follow (kind ``record``),
    unless --task, --kind or --after is given.
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
        print_json([*(letter.to_dict() for letter in page.items), *map(_record_as_dict, damaged)])
        return
    rows: list[tuple[str | None, ...]] = [
        (
            item.letter_id,
            item.kind,
            time_text(None if item.fault is not None else utc(item.at)),
            item.task_id,
            item.trigger or item.webhook or item.node_id or item.topic,
            item.reason_code,
            compact(item.fault or item.error, MOST_OF_AN_ERROR),
        )
        for item in page.items
    ]
    rows += [
        (
            _record_id(item),
            "record",
            None,
            item.task_id,
            None,
            "damaged",
            compact(item.fault, MOST_OF_AN_ERROR),
        )
        for item in damaged
    ]
    headings = (
        "letter",
        "kind",
        "at",
        "task",
        "node, topic, trigger or webhook",
        "reason",
        "error",
    )
    print_page(console(), headings, rows, empty="no dead letters", after=page.next)


def show(
    letter_id: Annotated[str, typer.Argument(metavar="LETTER", help="The dead letter's id.")],
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a dead letter with all data that its work needs."""

    async def main() -> list[DeadLetter]:
        async with connected(config, db, bus) as client:
            return (await client.dead_letters(letter_ids=[letter_id])).items

    letters = run_async(main)
    if not letters:
        print_error(f"dead letter {letter_id!r} does not exist")
        raise typer.Exit(USAGE)
    if as_json:
        print_json(letters[0].to_dict())
        return
    for name, value in letters[0].to_dict().items():
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
    """Retry dead letters: those named, or all of a task or kind.

    A message is sent again. The node of a letter or a batch runs again with all nodes downstream of
    it. A quarantined task is processed again. A change is published for its webhook again; its
    letter stays until the receiver accepts it. If the configuration has webhooks, the letter of
    another one is refused. Prints the outcome of each, and how many were retried. The exit status
    is 2 if a letter could not be retried, or if there were none.
    """

    async def main() -> list[Redriven]:
        async with connected(config, db, bus) as client:
            return await client.retry_dead_letters(await _chosen(client, letter_ids, task_id, kind))

    outcomes = run_async(main)
    retried = sum(one.done for one in outcomes)
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
                printable(f"{one.letter_id}: {'' if one.done else 'not retried: '}{one.detail}")
            )
        typer.echo(f"retried {retried} of {len(outcomes)}")
    if not outcomes or retried < len(outcomes):
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
    """Drop dead letters: those named, or all of a task or kind.

    Prints how many were dropped. The exit status is 2 if there were none.
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
            f"expected {LETTER_KINDS_TEXT}, not {kind!r}",
            param_hint="--kind",
        )
    return kind


async def _chosen(
    client: Client, letter_ids: list[str] | None, task_id: str | None, kind: str | None
) -> list[str]:
    """Return the ids of the named letters, or of all letters of a task or kind."""
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


def _record_id(record: DamagedRecord) -> str:
    return f"{record.place}/{record.record_id}"


def _record_as_dict(record: DamagedRecord) -> dict[str, Any]:
    """Return a damaged record with the keys of a dead letter."""
    known = {
        "letter_id": _record_id(record),
        "kind": "record",
        "task_id": record.task_id,
        "reason_code": "damaged",
        "fault": record.fault,
    }
    return dict.fromkeys((*DeadLetter.__slots__, "data")) | known
