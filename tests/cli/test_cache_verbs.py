"""The verb ``cache rm``."""

import json
from typing import Any

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


def test_a_node_that_took_a_stored_result_is_marked(cli: Cli, installation: Installation) -> None:
    cache = {"key": "k", "ttl_sec": 60}
    graph: dict[str, Any] = {
        "nodes": [{"node_id": name, "type": "work", "cache": cache} for name in ("one", "two")]
    }
    graph["nodes"][1]["depends_on"] = ["one"]
    installation.finish(graph, task_id="t1")
    at = ("--db", installation.address)
    for verb in ("show", "nodes", "watch"):
        said = cli(verb, "t1", *at).stdout.splitlines()
        [line] = [line for line in said if "took a stored result" in line]
        assert {"one", "two"}.intersection(line.split()) == {"two"}
    assert cli("explain", "t1", "two", *at).stdout == "'two' has finished with a stored result.\n"
