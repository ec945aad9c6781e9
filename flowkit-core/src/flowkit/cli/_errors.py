"""Error messages and exit statuses of the command line."""

from collections.abc import Iterator, Sequence
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from flowkit._text.redaction import printable, redacted
from flowkit._text.validation_errors import plain_message_of
from flowkit.errors import FlowKitError, GraphError

TASK_FAILED = 1
USAGE = 2
PACKAGES_OF_VERBS = {"token": "flowkit-web", "web": "flowkit-web"}
"""Verbs that are not in the core, and the packages that have them."""


class Verbs(TyperGroup):
    """Command group that prints FlowKit's own errors to stderr and exits with status 2."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command. The error about one of a missing package names the package."""
        package = PACKAGES_OF_VERBS.get(args[0])
        if package is not None and args[0] not in self.commands:
            ctx.fail(f"{args[0]!r} is a command of {package}; run: pip install {package}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = plain_message_of(error.__cause__.errors(include_url=False)[0])
            raise
        except (FlowKitError, ExceptionGroup) as error:
            raised = list(_leaves(error))
            if not all(isinstance(one, FlowKitError) for one in raised):
                raise
            for one in raised:
                print_error(*lines_of(one))
            raise typer.Exit(USAGE) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def lines_of(error: BaseException) -> Sequence[str]:
    """Return the lines of an error message. The first note of an error names its source."""
    where = next(iter(getattr(error, "__notes__", ())), None)
    if isinstance(error, GraphError):
        count = len(error.faults)
        return [
            f"{where or 'the submission'} has {count} fault{'' if count == 1 else 's'}",
            *(f"  {fault}" for fault in error.faults),
        ]
    return [f"{where}: {error}" if where else str(error)]


def print_error(first: str, *more: str) -> None:
    """Print an error message to stderr."""
    typer.secho(printable(redacted(f"error: {first}"), lines=True), fg=typer.colors.RED, err=True)
    for line in more:
        typer.echo(printable(redacted(line), lines=True), err=True)


def task_exit(status: str) -> None:
    """Exit with status 1 unless the task finished."""
    if status != "finished":
        raise typer.Exit(TASK_FAILED)
