"""Run the flow on sample files, repair what failed, and run the failed batches again."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from examples.etl.handlers import HANDLERS
from examples.etl.sample import MISSING_RATE, RATES, write_rates, write_sample
from flowkit import Coordinator, TaskView
from flowkit.worker import Worker

FLOW = Path(__file__).with_name("flow.yaml").read_text(encoding="utf-8")
ADDRESS = "memory://etl"


async def main(folder: Path) -> None:
    database = folder / "orders.db"
    database.unlink(missing_ok=True)
    write_sample(folder)
    params = {"source": str(folder), "database": str(database)}
    async with Coordinator(db=ADDRESS) as coordinator, Worker(db=ADDRESS, handlers=HANDLERS):
        task_id = await coordinator.create_task(graph=FLOW, params=params)
        show(await coordinator.wait(task_id))

        letters = (await coordinator.dead_letters(task_id=task_id)).items
        for error in sorted(letter.error for letter in letters):
            print(f"dead letter: {error}")

        print("add the missing rate, and try the dead letters again")
        write_rates(folder, RATES | MISSING_RATE)
        await coordinator.retry_dead_letters([letter.letter_id for letter in letters])
        show(await coordinator.wait(task_id))


def show(view: TaskView) -> None:
    transform = view.nodes["transform"]
    counts = f"{transform.metrics['orders']} orders, {transform.metrics['rejected']} rejected"
    print(f"{view.status}: {counts}, {transform.skipped_batches} batches skipped")
    result: Any = view.result
    for country, orders, euros in result["report"]["tables"][0]["rows"]:
        print(f"  {country} {orders:4} orders {euros:10.2f} euros")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "etl_data")))
