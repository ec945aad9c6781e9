"""Verb that reads the log lines of handlers: ``logs``."""

from collections.abc import Iterator
from datetime import UTC
from typing import Annotated

import typer

from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import closing, connected, run_async
from flowkit.cli._output import compact, print_json_line
from flowkit.task import LogLine

MOST_CHARS_OF_FIELDS = 400


def logs(
    task_id: options.TaskId,
    node_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]", help="Only lines of this node, or of this map's children."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print further lines until the task has ended.")
    ] = False,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Print what the handlers of a task have logged, and the errors of failed attempts.

    With --json, prints one line as an object per line.
    """

    async def main() -> None:
        async with (
            connected(config, db, bus) as client,
            closing(client.logs(task_id, node_id, follow=follow)) as found,
        ):
            async for line in found:
                if as_json:
                    print_json_line(line)
                else:
                    typer.echo("\n".join(line_texts(line)))

    run_async(main)


def line_texts(line: LogLine) -> Iterator[str]:
    """Yield the lines of text that show a log line."""
    if line.dropped:
        were = "line was" if line.dropped == 1 else "lines were"
        yield f"… {line.dropped:,} {were} dropped of {printable(line.node_id)} …"
    at = line.at.astimezone(UTC)
    where = line.node_id if line.attempt == 1 else f"{line.node_id} (attempt {line.attempt})"
    batch = f" batch {line.batch_uid}" if line.batch_uid is not None else ""
    fields = f"  {compact(line.fields, MOST_CHARS_OF_FIELDS)}" if line.fields else ""
    yield printable(
        f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}Z {line.level.upper():<7}"
        f" {where}{batch}: {line.text}{fields}"
    )
    if line.traceback is not None:
        for text in printable(line.traceback, lines=True).split("\n"):
            yield f"  {text}"
