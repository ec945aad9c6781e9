"""A log file of a web server, the same each time."""

from pathlib import Path
from random import Random

PATHS = ("/", "/about", "/api/items", "/api/orders", "/login")
STATUSES = (200, 200, 200, 200, 200, 200, 304, 404, 500)


def write_log(path: Path, lines: int) -> None:
    chances = Random(11)
    with path.open("w", encoding="ascii", newline="\n") as file:
        for number in range(lines):
            size = chances.randrange(100, 5000)
            file.write(
                f"10.0.0.{number % 250} GET {chances.choice(PATHS)} {chances.choice(STATUSES)}"
                f" {size}\n"
            )
