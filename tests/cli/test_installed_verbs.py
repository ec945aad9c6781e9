"""Packages add verbs to the command line by an entry point."""

from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flowkit.cli._app import PANELS, VERBS, make_app
from flowkit.cli._verb import installed_verbs
from flowkit.cli.verbs import Db, Verb, with_client
from flowkit.client import Client
from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation


def count(db: Db = None) -> None:
    """Count the tasks."""

    async def use(client: Client) -> int:
        return await client.count_tasks()

    typer.echo(with_client(use, config=None, db=db, bus=None))


COUNT = [Verb("Mine", "mine count", count, "Verbs of mine.")]


def entry_point(load: Any) -> SimpleNamespace:
    return SimpleNamespace(name="mine", value="mine._verbs:VERBS", load=load)


def installed(load: Any) -> list[Verb]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.metadata.entry_points", lambda *, group: [entry_point(load)])
        return installed_verbs()


def test_a_verb_of_a_package_works_on_an_installation(installation: Installation) -> None:
    installation.submit(ONE)
    app = make_app([*VERBS, *installed(lambda: COUNT)])
    result = CliRunner().invoke(app, ["mine", "count", "--db", installation.address])
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "Verbs of mine." in CliRunner().invoke(app, ["mine", "--help"]).stdout
    without = CliRunner().invoke(app, ["mine", "count"])
    assert (without.exit_code, "no store is configured" in without.stderr) == (2, True)


def test_verbs_that_cannot_be_imported_cause_a_warning_and_leave_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load() -> Any:
        raise ImportError("No module named 'else'")

    assert installed(load) == []
    assert capsys.readouterr().err == (
        "warning: the verbs of mine._verbs:VERBS cannot be imported:"
        " ImportError: No module named 'else'\n"
    )


def test_the_verb_of_a_package_that_is_missing_names_the_package() -> None:
    app = make_app([verb for verb in VERBS if verb.words.split()[0] != "web"])
    result = CliRunner().invoke(app, ["web", "--port", "1"])
    assert result.exit_code == 2
    assert "pip install flowkit-web" in result.stderr


def test_all_verbs_are_listed_by_panel(cli: Cli) -> None:
    panels = [verb.panel for verb in VERBS]
    assert sorted(panels, key=[*PANELS, *panels].index) == panels
