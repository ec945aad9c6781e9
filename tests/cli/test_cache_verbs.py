"""The verb ``cache rm``."""

import json

from tests.cli.conftest import Cli
from tests.cli.installations import Installation


def test_cached_results_are_deleted_by_role_flow_and_key(
    cli: Cli, installation: Installation
) -> None:
    where = ("--db", installation.address)
    assert cli("cache", "rm", "fetch", *where).stdout == "0 results are deleted\n"
    for key in ("https://example.com", '{"a": 1}', "NaN"):
        deleted = cli("cache", "rm", "--flow", "etl", "--key", key, *where, "--json")
        assert json.loads(deleted.stdout) == {"deleted": 0}


def test_exactly_one_of_role_and_flow_is_given_and_null_is_no_key(cli: Cli) -> None:
    for given, error in (
        ((), "give a role or --flow, and not both"),
        (("fetch", "--flow", "etl"), "give a role or --flow, and not both"),
        (("fetch", "--key", "null"), "null is no cache key"),
    ):
        refused = cli("cache", "rm", *given, "--db", "memory://")
        assert refused.exit_code == 2
        assert error in refused.stderr
