"""Verbs of the command line: ``flowkit web`` and ``flowkit token``.

The command line imports this module whenever it starts, so what takes long is imported inside of
the functions.
"""

from typing import Annotated

import typer

from flowkit import Client, CoordinatorConfig
from flowkit.cli.verbs import (
    Bus,
    Config,
    Db,
    Json,
    Level,
    LogJson,
    LogLevel,
    MetricsPort,
    Set,
    Verb,
    print_json,
    print_table,
    run_service,
    with_client,
)
from flowkit_web._tokens import Role, Token, add_token, list_tokens, remove_token

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]


def web(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, metavar="NUMBER", help="Port to listen on.")
    ] = 8400,
    db: Db = None,
    bus: Bus = None,
    config: Config = None,
    set_fields: Set = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Serve the web API until SIGTERM or SIGINT.

    Without tokens, only this machine may use it. Reading needs the store alone.
    """
    from flowkit_web._server import serve

    async def main(cfg: CoordinatorConfig) -> None:
        await serve(cfg, host=host, port=port)

    run_service(
        "web",
        main,
        config=config,
        db=db,
        bus=bus,
        set_fields=set_fields,
        log_level=log_level,
        log_json=log_json,
    )


def webhooks(
    db: Db = None,
    bus: Bus = None,
    config: Config = None,
    set_fields: Set = None,
    metrics_port: MetricsPort = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Post the changes of tasks to the configured webhooks until SIGTERM or SIGINT.

    Coordinators publish them with `publish_changes`. Several processes share the work.
    """
    from flowkit_web._webhook_service import send_webhooks

    run_service(
        "webhooks",
        send_webhooks,
        config=config,
        db=db,
        bus=bus,
        set_fields=set_fields,
        metrics_port=metrics_port,
        log_level=log_level,
        log_json=log_json,
    )


def add(
    name: TokenName,
    role: Annotated[
        Role,
        typer.Option(
            "--role",
            help=(
                "Rights of the token: an operator may also change tasks, approvals and dead"
                " letters, and an admin flows, schedules and triggers."
            ),
        ),
    ] = Role.VIEWER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add an access token, and print it.

    The store keeps only its hash, so it cannot be printed again.
    """

    async def use(client: Client) -> str:
        return await add_token(client.store.records, name, role, client.clock)

    secret = with_client(use, config=config, db=db, bus=None)
    if as_json:
        print_json({"name": name, "role": role, "token": secret})
    else:
        typer.echo(secret)


def ls(db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """List the access tokens, without their secrets."""

    async def use(client: Client) -> list[Token]:
        return list(await list_tokens(client.store.records))

    tokens = with_client(use, config=config, db=db, bus=None)
    if as_json:
        print_json(
            [{"name": one.name, "role": one.role, "created_at": one.created_at} for one in tokens]
        )
        return
    rows = [(one.name, one.role.value, one.created_at.isoformat()) for one in tokens]
    print_table(("token", "role", "created"), rows, empty="no tokens")


def rm(
    name: TokenName,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Remove an access token.

    Servers refuse it after five seconds at most, or after five minutes if the store does not answer
    them.
    """

    async def use(client: Client) -> None:
        await remove_token(client.store.records, name)

    with_client(use, config=config, db=db, bus=None)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        typer.echo("removed")


TOKENS = "Add, list and remove access tokens of the web API."
VERBS = [
    Verb("Processes", "web", web),
    Verb("Processes", "webhooks", webhooks),
    Verb("Installation", "token add", add, TOKENS),
    Verb("Installation", "token ls", ls, TOKENS),
    Verb("Installation", "token rm", rm, TOKENS),
]
