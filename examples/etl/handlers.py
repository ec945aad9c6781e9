"""The handlers of the flow in ``flow.yaml``.

Params: ``source``, a folder with CSV files and ``rates.json``, and ``database``, the SQLite file to
    write.
"""

import csv
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio.to_thread

from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler

ROWS_PER_BATCH = 50
CREATE = (
    "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, country TEXT NOT NULL, euros REAL NOT"
    " NULL)"
)
UPSERT = "INSERT OR REPLACE INTO orders VALUES (:id, :country, :euros)"
BY_COUNTRY = "SELECT country, COUNT(*), SUM(euros) FROM orders GROUP BY country ORDER BY country"


@handler("extract")
def extract(item: Any, ctx: RunContext) -> Iterator[dict[str, Any]]:
    """Yield the rows of all files in batches.

    The order is always the same, so a later attempt yields the same batches.
    """
    for path in sorted(Path(ctx.params["source"]).glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, str]] = []
            for row in csv.DictReader(file):
                rows.append(row)
                if len(rows) == ROWS_PER_BATCH:
                    yield {"rows": rows}
                    rows = []
            if rows:
                yield {"rows": rows}


class Transform(Handler):
    """Convert amounts to euros.

    A row whose amount is not a number is rejected and counted. A currency without a rate fails the
    whole batch: the rate can be added later, and then the batch can be tried again.
    """

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        rates = json.loads((Path(ctx.params["source"]) / "rates.json").read_text(encoding="utf-8"))
        orders, rejected = [], []
        for row in batch.payload["items"]:
            if row["amount"].isdecimal():
                euros = int(row["amount"]) * _rate(rates, row)
                orders.append(
                    {"id": row["order"], "country": row["country"], "euros": round(euros, 2)}
                )
            else:
                rejected.append(row["order"])
        metrics = {"orders": len(orders), "rejected": len(rejected)}
        return BatchResult(
            success=True, metrics=metrics, artifacts_ref={"orders": orders, "rejected": rejected}
        )


def _rate(rates: Mapping[str, float], row: Mapping[str, str]) -> float:
    if row["currency"] not in rates:
        message = f"order {row['order']}: there is no rate for {row['currency']}"
        raise NodeFailure(message, reason_code="rate_missing", permanent=True)
    return rates[row["currency"]]


class Load(Handler):
    """Write orders to the database.

    Writing an order twice changes nothing, so a batch may be processed twice.
    """

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        orders = batch.payload["meta"]["orders"]
        await anyio.to_thread.run_sync(write_orders, ctx.params["database"], orders)
        return BatchResult(success=True, metrics={"loaded": len(orders)})


def write_orders(database: str, orders: list[dict[str, Any]]) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(CREATE)
        connection.executemany(UPSERT, orders)


@handler("report")
def report(item: Any, ctx: RunContext) -> dict[str, Any]:
    """Return the number and sum of orders by country, as a table that ``flowkit run`` prints."""
    with closing(sqlite3.connect(ctx.params["database"])) as connection:
        connection.execute(CREATE)
        rows = [list(row) for row in connection.execute(BY_COUNTRY)]
    return {
        "orders": sum(row[1] for row in rows),
        "tables": [
            {"title": "Orders by country", "columns": ["country", "orders", "euros"], "rows": rows}
        ],
    }


HANDLERS = {"extract": extract, "transform": Transform, "load": Load, "report": report}
