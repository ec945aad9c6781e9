"""The handlers of the flow in ``flow.yaml``.

All params are optional: ``root`` (folder to report on, by default the installed standard library),
``exclude`` (names of more folders to leave out, such as ``["test"]``), ``output`` (CSV file to
write) and ``top`` (length of the two lists).
"""

import ast
import csv
import os
import sysconfig
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler

FILES_PER_BATCH = 20
LEFT_OUT = frozenset({"site-packages", "__pycache__"})
COLUMNS = ("module", "lines", "functions", "classes", "imports")
COUNTED = ("lines", "functions", "classes")


def root_of(params: Mapping[str, Any]) -> Path:
    return Path(params.get("root") or sysconfig.get_paths()["stdlib"])


# ---------------------------------------------------------------- list_files


@handler("list_files")
def list_files(item: Any, ctx: RunContext) -> Iterator[dict[str, Any]]:
    """Yield the names of the files in batches.

    The order is always the same, so a later attempt yields the same batches.
    """
    files: list[str] = []
    for path in _python_files(root_of(ctx.params), LEFT_OUT.union(ctx.params.get("exclude", ()))):
        files.append(path)
        if len(files) == FILES_PER_BATCH:
            yield {"files": files}
            files = []
    if files:
        yield {"files": files}


def _python_files(root: Path, left_out: frozenset[str]) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - left_out)
        for name in sorted(names):
            if name.endswith(".py"):
                yield (Path(folder) / name).relative_to(root).as_posix()


# ---------------------------------------------------------------- parse


class Parse(Handler):
    """Read and parse the files of a batch in a thread, so that other nodes of the worker go on."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        files = batch.payload["meta"]["files"]
        ctx.heartbeat(files[0])
        modules = await anyio.to_thread.run_sync(parse_files, root_of(ctx.params), files)
        return BatchResult(
            success=True,
            metrics={"modules": len(modules), "skipped": len(files) - len(modules)},
            artifacts_ref={"modules": modules, "skipped": len(files) - len(modules)},
        )


def parse_files(root: Path, files: list[str]) -> list[dict[str, Any]]:
    """Return a record of each file.

    Files that this version of Python cannot parse are left out: some test data has errors.
    """
    modules = []
    for name in files:
        source = (root / name).read_bytes()
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(source, name)
        except (SyntaxError, ValueError):
            continue
        modules.append({"module": name, "lines": len(source.splitlines()), **_contents(tree)})
    return modules


def _contents(tree: ast.Module) -> dict[str, Any]:
    functions = classes = 0
    imports: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import(names=names):
                imports.update(alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(module.partition(".")[0])
    return {"functions": functions, "classes": classes, "imports": sorted(imports)}


# ---------------------------------------------------------------- aggregate


class Aggregate(Handler):
    """Read the batches as a stream; at the end write the CSV file and return the totals.

    It keeps the records as its own artifacts, not in the object. A later attempt gets only the
    batches that are left, and reads the others from these artifacts.
    """

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        parsed = batch.payload["meta"]
        metrics = {name: sum(module[name] for module in parsed["modules"]) for name in COUNTED}
        return BatchResult(success=True, metrics=metrics, artifacts_ref=parsed)

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        modules: list[dict[str, Any]] = []
        skipped = 0
        async for parsed in ctx.artifacts.read():
            modules += parsed["modules"]
            skipped += parsed["skipped"]
        output = Path(ctx.params.get("output", "stdlib_report.csv"))
        await anyio.to_thread.run_sync(write_csv, output, modules)
        return FinalizeResult(
            result=summary(modules, skipped, ctx.params.get("top", 10)) | {"csv": str(output)}
        )


def summary(modules: list[dict[str, Any]], skipped: int, top: int) -> dict[str, Any]:
    """Return the node's result. ``flowkit run`` prints the entries of ``tables`` as tables."""
    imported = Counter(name for module in modules for name in module["imports"])
    largest = sorted(modules, key=lambda module: (-module["lines"], module["module"]))[:top]
    most_imported = sorted(imported.items(), key=lambda item: (-item[1], item[0]))[:top]
    return {
        "totals": {
            "modules": len(modules),
            "skipped": skipped,
            **{name: sum(module[name] for module in modules) for name in COUNTED},
        },
        "tables": [
            {
                "title": "The largest modules",
                "columns": ["module", *COUNTED],
                "rows": [
                    [module["module"], *(module[name] for name in COUNTED)] for module in largest
                ],
            },
            {
                "title": "The most imported modules",
                "columns": ["module", "imported by"],
                "rows": [[name, count] for name, count in most_imported],
            },
        ],
    }


def write_csv(output: Path, modules: list[dict[str, Any]]) -> None:
    """Write the file completely or not at all: write to a temporary name first, then rename it."""
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("x", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for module in sorted(modules, key=lambda module: module["module"]):
                rows.writerow(
                    [*(module[column] for column in COLUMNS[:-1]), " ".join(module["imports"])]
                )
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)


HANDLERS = {"list_files": list_files, "parse": Parse, "aggregate": Aggregate}
