"""Sample files: orders with faults, and exchange rates of which one is missing."""

import csv
import json
from pathlib import Path
from random import Random

COLUMNS = ("order", "country", "currency", "amount")
CURRENCIES = {"DE": "EUR", "FR": "EUR", "GB": "GBP", "US": "USD"}
RATES = {"EUR": 1.0, "GBP": 1.2, "USD": 0.9}
MISSING_RATE = {"SEK": 0.1}
ROWS_PER_FILE = 120
SWEDISH_ROWS = (37, 95)
ILLEGIBLE_ROW = 60


def write_sample(folder: Path) -> None:
    """Write three CSV files and ``rates.json`` to the folder, the same each time.

    One row in each file has an amount that is not a number, and two have a currency without a rate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chances = Random(7)
    for month in (1, 2, 3):
        rows = [_order(month, number, chances) for number in range(ROWS_PER_FILE)]
        with (folder / f"orders_{month}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    write_rates(folder, RATES)


def write_rates(folder: Path, rates: dict[str, float]) -> None:
    (folder / "rates.json").write_text(json.dumps(rates), encoding="utf-8")


def _order(month: int, number: int, chances: Random) -> dict[str, str]:
    country = "SE" if number in SWEDISH_ROWS else chances.choice(list(CURRENCIES))
    amount = "12,5o" if number == ILLEGIBLE_ROW else str(chances.randrange(5, 500))
    return {
        "order": f"{month}-{number:03}",
        "country": country,
        "currency": CURRENCIES.get(country, "SEK"),
        "amount": amount,
    }
