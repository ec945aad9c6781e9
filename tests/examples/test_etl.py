"""The example that loads orders into SQLite."""

import csv
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.etl.handlers import HANDLERS
from examples.etl.sample import MISSING_RATE, RATES, write_rates, write_sample
from flowkit_testing import Cluster
from tests.docs.pages import ROOT

FLOW = yaml.safe_load((ROOT / "examples/etl/flow.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def params(tmp_path: Path) -> dict[str, str]:
    write_sample(tmp_path)
    return {"source": str(tmp_path), "database": str(tmp_path / "orders.db")}


def in_database(params: dict[str, str]) -> dict[str, float]:
    with closing(sqlite3.connect(params["database"])) as connection:
        return dict(connection.execute("SELECT id, euros FROM orders").fetchall())


def in_files(params: dict[str, str], rates: dict[str, float]) -> dict[str, float]:
    """Return the orders that a plain loop can convert with these rates."""
    euros = {}
    for path in Path(params["source"]).glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["amount"].isdecimal() and row["currency"] in rates:
                    euros[row["order"]] = round(int(row["amount"]) * rates[row["currency"]], 2)
    return euros


async def test_failed_batches_are_loaded_after_the_missing_rate_was_added(params: dict[str, str]):
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(FLOW, params=params)

        assert (view.status, view.nodes["transform"].skipped_batches) == ("finished", 6)
        assert view.nodes["transform"].metrics["rejected"] == 3
        convertible, loaded = in_files(params, RATES), in_database(params)
        assert loaded.items() < convertible.items()
        letters = (await cluster.client.dead_letters(task_id=view.id)).items
        assert {letter.reason_code for letter in letters} == {"rate_missing"}

        write_rates(Path(params["source"]), RATES | MISSING_RATE)
        redriven = await cluster.client.retry_dead_letters([letter.letter_id for letter in letters])
        view = await cluster.client.wait(view.id)

        assert all(letter.done for letter in redriven)
        assert (view.status, view.nodes["transform"].skipped_batches) == ("finished", 0)
        assert in_database(params) == in_files(params, RATES | MISSING_RATE)
        assert view.result["report"]["orders"] == len(in_database(params))
        assert (await cluster.client.dead_letters(task_id=view.id)).items == []


async def test_loading_the_same_files_again_changes_nothing(params: dict[str, str]):
    write_rates(Path(params["source"]), RATES | MISSING_RATE)
    async with Cluster(handlers=HANDLERS) as cluster:
        first: Any = await cluster.run(FLOW, params=params)
        second: Any = await cluster.run(FLOW, params=params)

    assert first.result == second.result
    assert in_database(params) == in_files(params, RATES | MISSING_RATE)
