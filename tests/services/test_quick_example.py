"""The Quick Example runs as written: as a file, against real servers."""

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.services

README = Path(__file__).parents[2] / "README.md"

HANDLERS = """
from flowkit.worker import Batch, BatchResult, Handler, RunContext


class MyHandler(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        seen = batch.payload["input_inline"]["data"]
        return BatchResult(success=True, artifacts_ref={"seen": seen})
"""

MOTOR = (
    "from motor.motor_asyncio import AsyncIOMotorClient\nyour_mongo_db ="
    " AsyncIOMotorClient({mongo!r})[{name!r}]\n"
)
PYMONGO = (
    "from pymongo import AsyncMongoClient\nyour_mongo_db = AsyncMongoClient({mongo!r})[{name!r}]\n"
)
ADDRESS = "your_mongo_db = {address!r}\n"

WAIT = """
    view = await coordinator.wait(task_id, timeout=60)
    print(f"It is {view.status}")
    print([artifact.meta async for artifact in coordinator.artifacts(task_id)])
"""


def quick_example() -> str:
    found = re.search(
        r"```python[^\n]*\n(import asyncio\nfrom flowkit import Coordinator.*?)```",
        README.read_text(),
        re.DOTALL,
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize("database", [MOTOR, PYMONGO, ADDRESS], ids=["motor", "pymongo", "address"])
def test_the_quick_example_prints_the_id_and_its_task_finishes(
    database: str, mongo_address: str, kafka_address: str, tmp_path: Path
) -> None:
    name = f"quick_{uuid.uuid4().hex[:8]}"
    address = (
        mongo_address.replace("/?", f"/{name}?")
        if "/?" in mongo_address
        else f"{mongo_address.rstrip('/')}/{name}"
    )
    opening = database.format(mongo=mongo_address, name=name, address=address)
    marker = 'print(f"Created task: {task_id}")'
    code = quick_example()
    for before, after in (
        # Opened inside the event loop, as drivers require.
        (
            "async def main():\n",
            "async def main():\n" + "".join(f"    {line}\n" for line in opening.splitlines()),
        ),
        # The test waits for the task, so that it can check its end.
        (marker, marker + WAIT),
        # These servers are not at the default addresses.
        ("CoordinatorConfig()", "CoordinatorConfig.load()"),
        (
            'WorkerConfig(roles=["processor"])',
            'WorkerConfig.load(overrides={"roles": ["processor"]})',
        ),
    ):
        assert before in code
        code = code.replace(before, after)
    (tmp_path / "your_handlers.py").write_text(HANDLERS)
    (tmp_path / "quick.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "quick.py"],
        cwd=tmp_path,
        env={
            "KAFKA_BOOTSTRAP_SERVERS": kafka_address,
            "PATH": "/usr/bin:/bin",
            "FLOWKIT_NAMESPACE": name,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"Created task: \w+\nIt is finished\n\[{'seen': 'hello world'}\]", done.stdout
    ), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
