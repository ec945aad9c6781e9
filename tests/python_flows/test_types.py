"""Type checkers accept correct flows in Python and find mistakes in them.

A line with a mistake ends with ``# error``.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CORRECT = """\
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, TypedDict

from flowkit import (
    Client,
    Graph,
    TaskView,
    approval,
    finally_,
    first,
    flow,
    loop,
    sleep,
    subflow,
    wait_signal,
)
from flowkit.coordinator.functions import FunctionContext
from flowkit.flows import Decision, NodeRef, iteration, previous, task_vars, this_task
from flowkit.flows.functions import (
    CoordinatorFunction,
    merge_generic,
    metrics_aggregate,
    noop,
    task_end,
    vars_incr,
    vars_set,
)
from flowkit.graph import RetryPolicy
from flowkit.worker import RunContext, Worker, handler


@dataclass
class Tenant:
    name: str


class Rows(TypedDict):
    total: int


@handler("extract", retry_policy={"max": 5}, timeouts={"start_to_close_sec": 600})
async def extract(tenant: Tenant) -> Rows:
    return {"total": len(tenant.name)}


@handler("fetch")
async def fetch(tenant: Tenant, ctx: RunContext) -> Rows:
    return {"total": ctx.attempt}


@handler("merge")
def merge(rows: list[Rows], day: date, mode: Literal["sum", "max"] = "sum") -> Rows:
    return rows[0]


@handler("load", retry_policy=RetryPolicy(max=3))
def load(rows: Rows, limit: int = 3) -> str:
    return "loaded"


@handler("alert")
async def alert(ctx: RunContext) -> None: ...


@handler("publish")
async def publish(place: str = "here") -> None: ...


@handler("parse")
async def parse(rows: Rows) -> AsyncIterator[dict[str, Any]]:
    yield {}


@handler("embed")
def embed(item: dict[str, Any]) -> dict[str, Any]:
    return item


@handler("index")
async def index(embedded: Any, ctx: RunContext) -> int:
    return ctx.attempt


@handler("export")
async def export(rows: Rows, place: str, ctx: RunContext) -> str:
    return place


@handler("join")
def join(left: Rows, right: Rows, how: str, ctx: RunContext) -> Rows:
    return left


@flow
def etl(tenant: Tenant, day: date = date(2026, 1, 1)) -> None:
    rows = extract(tenant)
    export(rows, place="here") >> join(rows, right=rows, how="inner")
    fetched = fetch(tenant)
    merged = merge(first(1, rows, fetched, rest="cancel"), day)
    both = merge([rows, fetched], day=day, mode="max")
    load(merged, limit=rows.total).on_success(publish).on_failure(alert, embed({}))
    load.options(node_id="second", when=merged.total > 2, priority=3)(both).options(optional=True)
    load(rows[0])
    embed.stream(parse(both)) >> [rows, fetched]
    index(embed.stream(parse.stream(merged), size=64))
    waiting: NodeRef[None] = embed.stream(parse(both), merged, size=64, max_wait_sec=0.5)
    embed.options(priority=3).stream(merged, rows).options(optional=True) >> waiting
    [rows, fetched] >> load(both)
    publish(f"{rows.total} rows on {day}")


@flow
def mapping(tenants: list[Tenant], day: date) -> None:
    rows: NodeRef[list[Rows]] = extract.map(tenants, max_parallel=8)
    fetch.map([Tenant("a"), tenants[0]], on_item_failure="continue").on_failure(alert)
    texts: NodeRef[list[str]] = load.map(rows, limit=5, max_parallel=2)
    load.options(priority=3).map(rows).options(priority=4)
    publish.map(texts)
    counts: NodeRef[list[Any]] = vars_incr.map(["a", "b"], by=2, max_parallel=1)
    vars_set.map([{"a": rows}])
    export.map(rows, place="here")
    join.map(rows, right=rows[0], how="inner")
    merge.map([rows, rows], day=day)
    vectors: NodeRef[list[dict[str, Any]]] = embed.map(parse(merge(rows, day)))
    embed.map(embed.stream(parse(merge(rows, day))), max_parallel=3) >> vectors
    extract.map(tenants).undo(refund).options(priority=2)
    load.map(rows).undo(unload).undo(lambda done, row: publish(f"{done}: {row}"))


@flow(on_node_failure="continue", deadline_sec=60)
def nested(tenants: list[Tenant], anything: Any) -> None:
    load(anything)


@handler("unload")
async def unload(done: str) -> None: ...


@handler("refund")
def refund(rows: Rows, ctx: RunContext) -> None: ...


@handler("record")
def record(decision: Decision[Tenant]) -> None:
    print(decision.choice, decision.values and decision.values.name)


@handler("approve")
def approve(decision: Decision) -> None:
    print(decision.by, decision.values and decision.values.anything)


async def publish_record(ctx: FunctionContext, /, topic: str, value: Any = None) -> int:
    return 1


publish_value = CoordinatorFunction("kafka.publish", publish_record)


@flow
def waiting(tenant: Tenant, due: datetime, seconds: float, names: list[str]) -> None:
    pause: NodeRef[None] = sleep(seconds)
    sleep(for_sec=3) >> sleep(until=due) >> sleep(until="2026-12-24T18:00:00Z").options(priority=0)
    named: NodeRef[Tenant] = wait_signal("tenant", schema=Tenant, timeout_sec=seconds)
    counted: NodeRef[list[int]] = wait_signal("counts", schema=list[int], on_timeout="skip")
    signal: NodeRef[Any] = wait_signal(f"paid-{tenant.name}", schema={"type": "object"})
    ok = approval("Ship?", form=Tenant, assignees=names, choices=["yes", "no"])
    typed: NodeRef[Decision[Tenant]] = ok
    approval(f"{signal.n}?", on_reject="continue").on_failure(alert).undo(alert)
    extract(named)
    record(ok)
    approve(approval("Ship?")).options(when=(ok.choice == "yes") & (tenant.name != "a"))
    load(first(1, signal, wait_signal("b"))[0])
    embed({"pause": pause, "counted": counted})
    publish.options(when=typed.choice == "yes")(typed.comment)


@flow
def total(rows: list[Rows], day: date = date(2026, 1, 1)) -> NodeRef[Rows]:
    return merge(rows, day)


@flow
def loaded(tenant: Tenant) -> str:
    return load(extract(tenant))


@flow
def untyped(tenant):  # type: ignore[no-untyped-def]
    return extract(tenant)


@flow
def nesting(tenant: Tenant, day: date) -> None:
    rows = extract(tenant)
    merged: NodeRef[Rows] = subflow(total, [rows], day=day)
    publish(subflow(loaded, tenant)).on_success(publish)
    subflow(total, rows=[merged, rows]).options(priority=3).undo(refund).on_failure(alert) >> rows
    again: NodeRef[str] = loop(
        loaded, tenant, until=lambda done: done.startswith("l"), max_iterations=3, delay_sec=3
    )
    last: NodeRef[Rows] = loop(total, [merged], until=lambda rows: rows["total"] > 3, day=day)
    loop(total, rows=[last], while_=iteration < 3).options(node_id="third").undo(refund) >> rows
    loop({"nodes": []}, while_="iteration < 3", n=previous.x).on_success(publish) >> again
    loop(older, until=previous.done | (iteration > 3))
    anything: NodeRef[Any] = subflow({"nodes": []}, n=3, rows=rows)
    subflow(Graph(), n=3) >> [subflow(older), subflow(untyped, anything.x)]
    sums: NodeRef[list[Rows]] = total.map([[rows], [merged, rows]], day=day, max_parallel=2)
    texts: NodeRef[list[str]] = loaded.map([tenant], on_item_failure="continue").on_failure(alert)
    publish.map(texts) >> merge(sums, day)


@flow
def ending(tenant: Tenant) -> None:
    rows = extract(tenant).undo(refund)
    load(rows).undo(unload).undo(alert).undo(lambda done: publish(f"{done} is undone"))
    load(rows).undo(load(rows, limit=3)).undo(lambda: noop())
    vars_set({"a": rows}, block_sensitive=True) >> vars_incr("n", by=rows.total)
    merge_generic([rows, rows], "all") >> metrics_aggregate(rows, mode="mean")
    load(rows).on_success(noop).on_failure(task_end("failed", error=f"{rows}"))
    publish_value("rows", value=rows.total) >> CoordinatorFunction("x")(anything=3)
    publish(f"{this_task.id} {task_vars.a.b}")
    with finally_() as task:
        publish.options(when=task.status != "finished")(f"{task.error} {rows.total}")
        publish(task.id) >> load(rows)


@flow
def older(g: Any, size: int = 3) -> None:
    g.node("a", "load")


@flow(params={"type": "object"})
def described(g, size):  # type: ignore[no-untyped-def]
    g.node("a", "load")


async def uses(client: Client) -> None:
    rows = await extract(Tenant("a"))
    print(rows["total"] + 1)
    text: str = load({"total": 3})
    task_id: str = await etl.submit(client, Tenant(text), day=date(2026, 1, 2))
    view: TaskView = etl.run(tenant=Tenant(task_id))
    nested.run([Tenant(view.id)], anything=3)
    await fetch.function(Tenant("b"), None)
    await client.create_task(graph=etl, params={"tenant": {"name": "a"}})
    older(size=4).to_dict()
    described(3).to_dict()
    Worker(db="memory://", handlers=[extract, fetch, merge])
"""

FAULTY = """\
from datetime import date
from typing import Any

from flowkit import Client, approval, finally_, first, flow, loop, sleep, subflow, wait_signal
from flowkit.flows import this_task
from flowkit.flows.functions import noop, task_end, vars_incr, vars_set
from flowkit.worker import RunContext, handler

from correct import (
    Rows,
    Tenant,
    alert,
    embed,
    extract,
    fetch,
    load,
    loaded,
    merge,
    publish,
    publish_value,
    refund,
    total,
    unload,
)


@flow
def etl(tenant: Tenant, day: date = date(2026, 1, 1)) -> None:
    rows = extract(tennant=tenant)  # error
    extract(5)  # error
    extract(day)  # error
    extract(tenant, 3)  # error
    extract()  # error
    fetch("x")  # error
    alert(3)  # error
    merge([rows], day, mode="min")  # error
    merge([rows], [day])  # error
    merge(first(1, rows), day, mod="sum")  # error
    merge(first(1, rows, rest="kill"), day)  # error
    merge(first("x", rows), day)  # error
    load(rows).on_success(load)  # error
    load(rows).on_failure("alert")  # error
    load.options(nod_id="x")(rows)  # error
    load.options(priority="high")(rows)  # error
    load.options(on_satisfied="kill")(rows)  # error
    load(rows).options(wen="true")  # error
    load.options(node_id="x")(rows, limt=3)  # error
    embed.stream(3)  # error
    embed.stream()  # error
    embed.stream(embed)  # error
    embed.stream([rows])  # error
    embed.stream(rows, sise=3)  # error
    embed.stream(rows, size="3")  # error
    embed.stream(rows, max_wait_sec=3)  # error
    vars_incr.stream(rows)  # error
    loaded.stream(rows)  # error
    publish(3)  # error
    tenant.nam  # error


@flow
def mapping(tenants: list[Tenant], rows: list[Rows]) -> None:
    extract.map(tenants, max_paralel=8)  # error
    extract.map(tenants, max_parallel="8")  # error
    extract.map(tenants, on_item_failure="stop")  # error
    extract.map(["a"])  # error
    extract.map(3)  # error
    extract.map()  # error
    fetch.map(rows)  # error
    alert.map(tenants)  # error
    load.map(tenants, limit=3)  # error
    vars_incr.map([3], by=2)  # error
    vars_incr.map(["a"], max_parallel="2")  # error
    noop.map(["a"])  # error


@flow
def waiting(tenant: Tenant) -> None:
    sleep()  # error
    sleep("3")  # error
    sleep(3, until="2026-12-24T18:00:00Z")  # error
    sleep(until=3)  # error
    wait_signal()  # error
    wait_signal("a", timeout=3)  # error
    wait_signal("a", on_timeout="stop")  # error
    wait_signal("a", schema=3)  # error
    approval()  # error
    approval("a", on_reject="stop")  # error
    approval("a", choices=3)  # error
    approval("a", forms=Tenant)  # error
    approval("a").options(nod_id="x")  # error


@flow
def nesting(tenant: Tenant, day: date, rows: list[Rows]) -> None:
    subflow(total, rows, dy=day)  # error
    subflow(total, tenant)  # error
    subflow(total)  # error
    subflow(total, rows, day, 3)  # error
    subflow(total, rows, day="today")  # error
    subflow(extract, tenant)  # error
    subflow()  # error
    subflow(3, rows=rows)  # error
    subflow({"nodes": []}, rows)  # error
    subflow(total, rows).options(wen="true")  # error
    subflow(loaded, tenant).undo(refund)  # error
    loaded.map(["a"])  # error
    loaded.map([tenant], max_parallel="2")  # error
    loaded.map([tenant], on_item_failure="stop")  # error
    loaded.map()  # error
    wrong: NodeRef[list[int]] = loaded.map([tenant])  # error
    loop(loaded, tenant)  # error
    loop(loaded, tenant, until=3)  # error
    loop(loaded, tenant, until=lambda done: done.startwith("l"))  # error
    loop(total, rows, until=lambda rows: rows["totl"] > 3)  # error
    loop(loaded, tenant, until="true", max_iterations="3")  # error
    loop(extract, tenant, until="true")  # error
    loop(loaded, tenant, until="true").undo(refund)  # error


@flow
def ending(tenant: Tenant) -> None:
    rows = extract(tenant)
    rows.undo(unload)  # error
    rows.undo(3)  # error
    rows.undo(merge)  # error
    extract.map([tenant]).undo(unload)  # error
    rows.undo(alert, 3)  # error
    rows.undo(alert, when="true")  # error
    rows.undo(lambda done: publish(pace=done))  # error
    with finally_() as task:
        publish(task.state)  # error
        publish(task.status, 3)  # error
    with finally_("a"):  # error
        publish(this_task.status)  # error
    task_end("finishd")  # error
    task_end("failed", eror="x")  # error
    vars_set("a")  # error
    vars_incr("a", by="x")  # error
    publish_value(topc="a")  # error


@handler("x", retry_polcy={})  # error
def work() -> None: ...


@handler(3)  # error
def numbered() -> None: ...


@flow(deadline=3)  # error
def late() -> None: ...


async def uses(client: Client) -> None:
    etl.run(tenent=Tenant("x"))  # error
    etl.run(tenant="x")  # error
    etl.run(Tenant("x"), date(2026, 1, 1), 3)  # error
    await etl.submit(client, Tenant("y"), dy=3)  # error
    await etl.submit(Tenant("y"))  # error
    text: str = etl.run(Tenant("x"))  # error
"""


MYPY = ["mypy", "--strict", "--config-file=", "--output=json", "--follow-imports=silent"]
PYRIGHT = ["pyright", "--outputjson", "--pythonpath", sys.executable]


def checked(folder: Path, *command: str) -> str:
    """Return what a type checker prints about the two files."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "correct.py", "faulty.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def by_mypy(folder: Path) -> set[tuple[str, int]]:
    """Return the files and lines in which mypy finds errors."""
    found = [json.loads(line) for line in checked(folder, *MYPY).splitlines()]
    return {(one["file"], one["line"]) for one in found if one["severity"] == "error"}


def by_pyright(folder: Path) -> set[tuple[str, int]]:
    """Return the files and lines in which pyright finds errors."""
    found = json.loads(checked(folder, *PYRIGHT))["generalDiagnostics"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in found
        if one["severity"] == "error"
    }


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_a_type_checker_finds_the_mistakes_and_nothing_else(
    check: Callable[[Path], set[tuple[str, int]]], tmp_path: Path
) -> None:
    (tmp_path / "correct.py").write_text(CORRECT, encoding="utf-8")
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    marked = {
        ("faulty.py", number)
        for number, line in enumerate(FAULTY.splitlines(), start=1)
        if line.endswith("# error")
    }
    assert check(tmp_path) == marked
