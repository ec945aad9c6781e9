"""Verbs on work that was given up: ``dlq ls``, ``dlq show``, ``dlq drop``."""

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flowkit.cli import _options as options
from flowkit.cli._connecting import connected, run_async
from flowkit.cli._errors import USAGE, complain
from flowkit.cli._output import compact, console, print_json, table, time_text
from flowkit.client import Client
from flowkit.protocols import DeadLetter, utc

PAGE = 500

Letters = Annotated[list[str], typer.Argument(metavar="LETTER...", help="Ids of dead letters, as `dlq ls` prints them.")]


def ls(
    task_id: Annotated[str | None, typer.Option("--task", metavar="ID", help="Only those of this task.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 100,
    after: Annotated[str, typer.Option("--after", metavar="LETTER", help="Go on behind this one.")] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List dead letters: batches, messages and tasks that were given up, and why."""

    async def main() -> Sequence[DeadLetter]:
        async with connected(config, db, bus) as client:
            return await client.store.dead_letters(task_id=task_id, after=after, limit=limit)

    letters = run_async(main)
    if as_json:
        print_json([as_dict(letter) for letter in letters])
        return
    rows = [
        (item.letter_id, item.kind, time_text(utc(item.at)), item.task_id, item.node_id, item.reason_code, compact(item.error))
        for item in letters
    ]
    out = console()
    out.print(table(None, ("letter", "kind", "at", "task", "node", "reason", "error"), rows) if rows else "no dead letters")
    if len(letters) == limit:
        out.print(f"perhaps more with --after {letters[-1].letter_id}", soft_wrap=True)


def show(
    letter_id: Annotated[str, typer.Argument(metavar="LETTER", help="The dead letter's id.")],
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a dead letter with what is needed to do its work by hand."""

    async def main() -> DeadLetter | None:
        async with connected(config, db, bus) as client:
            return await _find(client, letter_id)

    letter = run_async(main)
    if letter is None:
        complain(f"there is no dead letter {letter_id!r}")
        raise typer.Exit(USAGE)
    if as_json:
        print_json(as_dict(letter))
        return
    for name, value in as_dict(letter).items():
        if value is not None:
            typer.echo(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}")


async def _find(client: Client, letter_id: str) -> DeadLetter | None:
    after = ""
    while page := await client.store.dead_letters(after=after, limit=PAGE):
        for letter in page:
            if letter.letter_id == letter_id:
                return letter
        after = page[-1].letter_id
    return None


def drop(
    letter_ids: Letters,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Forget dead letters, and say how many there were.

    The exit status is 2 if there was none.
    """

    async def main() -> int:
        async with connected(config, db, bus) as client:
            return await client.store.drop_dead_letters(set(letter_ids))

    dropped = run_async(main)
    if as_json:
        print_json({"dropped": dropped})
    else:
        typer.echo(f"dropped {dropped} of {len(set(letter_ids))}")
    if not dropped:
        raise typer.Exit(USAGE)


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for printing: its data is JSON where it can be, else base64 under ``data_base64``."""
    shown: dict[str, Any] = {name: getattr(letter, name) for name in letter.__slots__ if name != "data"}
    shown["at"] = utc(letter.at).isoformat()
    try:
        return shown | {"data": json.loads(letter.data) if letter.data else None}
    except ValueError:
        return shown | {"data_base64": base64.b64encode(letter.data).decode()}
