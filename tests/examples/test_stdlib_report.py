"""The example that reports on the standard library."""

import csv
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.stdlib_report.handlers import COLUMNS, HANDLERS, Aggregate, Parse
from examples.stdlib_report.single_pass import single_pass
from flowkit.worker import Batch, BatchResult, FinalizeResult, RunContext
from flowkit_testing._cluster import Cluster

FLOW = yaml.safe_load((Path(__file__).parents[2] / "examples/stdlib_report/flow.yaml").read_text())
PACKAGES = ("asyncio", "email", "json", "logging", "multiprocessing", "unittest", "xml")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with part of the standard library, invalid files, and unrelated folders."""
    stdlib, root = Path(sysconfig.get_paths()["stdlib"]), tmp_path_factory.mktemp("library")
    for package in PACKAGES:
        shutil.copytree(stdlib / package, root / package)
    (root / "bad_syntax.py").write_text("print 'two'\n")
    (root / "bad_bytes.py").write_bytes(b"name = '\xe9'\n")
    (root / "bad_nul.py").write_bytes(b"name = 1\0\n")
    (root / "odd_escape.py").write_text("import re\nfrom . import json\nname = '\\d'\n")
    for folder in ("site-packages", "__pycache__", "xml/test"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "left_out.py").write_text("import left_out\n")
    return root


async def report(params: dict[str, Any], handlers: Any = HANDLERS, graph: Any = FLOW) -> Any:
    async with Cluster() as cluster:
        view = await cluster.run(graph, handlers=handlers, params=params)
    assert view.status == "finished", view.error
    return view


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def assert_same_totals(result: Any, expected: Any) -> None:
    assert result["totals"] == expected["totals"]
    largest, most_imported = result["tables"]
    assert [(row[0], row[1]) for row in largest["rows"]] == expected["largest"]
    assert [tuple(row) for row in most_imported["rows"]] == expected["most_imported"]


async def test_the_flow_counts_what_a_single_pass_counts(source: Path, tmp_path: Path):
    output = tmp_path / "report.csv"

    view = await report({"root": str(source), "output": str(output), "exclude": ["test"]})

    expected = single_pass(source, ["test"])
    result = view.result["aggregate"]
    assert_same_totals(result, expected)
    assert result["totals"]["skipped"] == 3
    assert view.nodes["parse"].metrics == {"modules": expected["totals"]["modules"], "skipped": 3}
    assert view.nodes["aggregate"].metrics == {
        name: expected["totals"][name] for name in ("lines", "functions", "classes")
    }
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert sum(int(row["lines"]) for row in rows) == expected["totals"]["lines"]
    assert [row["imports"] for row in rows if row["module"] == "odd_escape.py"] == ["re"]
    assert names_in(tmp_path) == [output.name]


class BreaksOff:
    """Mixin for a handler whose first attempt fails after some batches.

    One batch of that attempt fails once before.
    """

    batches = 0

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.batches += 1
        if self.batches == 2:
            raise RuntimeError("once more")
        return await super().process_batch(batch, ctx)  # type: ignore[misc, no-any-return]

    async def finalize(self, ctx: RunContext) -> FinalizeResult | None:
        if ctx.attempt == 1:
            raise RuntimeError("gone")
        return await super().finalize(ctx)  # type: ignore[misc, no-any-return]


class FlakyParse(BreaksOff, Parse):
    pass


class FlakyAggregate(BreaksOff, Aggregate):
    pass


async def test_attempts_that_follow_others_count_every_file_once(source: Path, tmp_path: Path):
    handlers = {**HANDLERS, "parse": FlakyParse, "aggregate": FlakyAggregate}

    view = await report({"root": str(source), "output": str(tmp_path / "report.csv")}, handlers)

    assert [view.nodes[node_id].attempt for node_id in ("parse", "aggregate")] == [2, 2]
    assert_same_totals(view.result["aggregate"], single_pass(source))


async def test_a_report_on_an_empty_folder_is_empty(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    output = tmp_path / "report.csv"

    view = await report({"root": str(tmp_path / "empty"), "output": str(output)})

    assert view.result["aggregate"]["totals"] == {
        "modules": 0,
        "skipped": 0,
        "lines": 0,
        "functions": 0,
        "classes": 0,
    }
    assert output.read_text().strip() == ",".join(COLUMNS)


async def test_a_report_that_cannot_be_written_leaves_the_old_one(source: Path, tmp_path: Path):
    output = tmp_path / "report.csv"
    output.mkdir()
    graph = FLOW | {"nodes": [node | {"retry_policy": {"max": 0}} for node in FLOW["nodes"]]}

    async with Cluster() as cluster:
        view = await cluster.run(
            graph, handlers=HANDLERS, params={"root": str(source / "json"), "output": str(output)}
        )

    assert view.nodes["aggregate"].status == "failed"
    assert names_in(tmp_path) == [output.name]
