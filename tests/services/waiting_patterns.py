"""The patterns that wait, in tasks whose coordinator and worker are killed meanwhile."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from examples.patterns import handlers as examples
from flowkit import Client, TaskView
from flowkit.cli._loader import LoadedFlow, load_flow
from flowkit.graph import NodeSpec
from flowkit.plugins import Plugins
from flowkit.worker import RunContext, handler
from tests.docs.pages import script
from tests.patterns.support import FOLDER
from tests.services.processes import Process, Processes
from tests.services.recording_handlers import record
from tests.services.waiting import WITHIN_SEC, waiting

SHORT_SEC = 2.0
LONG_SEC = 3600.0
FAILING = ("deliver", "ship")
CONTROL_TYPES = {"sleep", "wait_signal", "approval"}
SETTINGS = {
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 2,
    "heartbeat_hard_sec": 4,
    "lease_ttl_sec": 4,
}
ASKED = 3
"""Number of times that an order is asked about until it is ready."""


@handler("ship")
async def ship(item: Any, ctx: RunContext) -> Any:
    if ctx.node_id in FAILING:
        raise ValueError("no such street")
    return item


@handler("check")
async def check(item: Any, ctx: RunContext) -> Any:
    if ctx.node_id == "review":
        return {"score": 0.5, "advice": "shorter"}
    if "order" in ctx.params:
        record(ctx, "asked")
        ready = recorded("asked") >= ASKED
        return {"status": "ready" if ready else "running", "url": "example.org"}
    return item


@handler("write")
async def write(item: Any, ctx: RunContext) -> Any:
    """Return the input. The ``work`` that is late runs until the warning has been sent."""
    while ctx.node_id == "work" and not recorded("warned"):
        await anyio.sleep(0.05)
    return item


@handler("mail")
async def mail(item: Any, ctx: RunContext) -> Any:
    if ctx.node_id == "warn":
        record(ctx, "warned")
    return item


def recorded(what: str) -> int:
    """Return how often any process has recorded this."""
    lines = Path(os.environ["FLOWKIT_TEST_RECORD"]).read_text(encoding="utf-8").splitlines()
    return sum(line.startswith(f"{what} ") for line in lines)


def loaded(pattern: str) -> LoadedFlow:
    """Return the graph of a pattern and the handlers of its file."""
    (path,) = FOLDER.glob(f"{pattern}.*")
    return load_flow(str(path), Plugins())


@dataclass(frozen=True, slots=True)
class Answer:
    """An act from outside, made when a node waits for it."""

    node_id: str
    give: Callable[[Client, str], Awaitable[Any]]


def signal(node_id: str, name: str, payload: Any = None) -> Answer:
    return Answer(node_id, lambda client, task_id: client.signal(task_id, name, payload))


def decision(node_id: str, by: str, **values: Any) -> Answer:
    return Answer(
        node_id,
        lambda client, task_id: client.decide(
            task_id, node_id, "approve", by=by, values=values or None
        ),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A task of a pattern, and the nodes that finish."""

    pattern: str
    waits: str
    """The nodes that wait when the processes are killed."""
    finishes: str
    answers: tuple[Answer, ...] = ()
    limits: bool = False
    """Whether time limits are short, and so exceeded. Sleeps are always short."""
    params: Mapping[str, Any] = field(default_factory=dict)


def unanswered(pattern: str, waits: str, finishes: str, *answers: Answer) -> Case:
    """Return a case in which time limits are exceeded."""
    return Case(pattern, waits, finishes, answers, limits=True)


CASES = [
    Case("delay", "three_days", "welcome three_days tips"),
    Case("start_at_a_time", "until", "until publish", params={"at": "2026-01-01T00:00:00Z"}),
    Case("poll_until_ready", "ready", "order ready fetch"),
    Case("poll_in_python", "status", "order_export status download"),
    Case("warning_when_late", "hour", "work done hour warn"),
    Case("night_window", "night", "prepare night migrate", params={"day": "2026-01-01"}),
    Case("canary", "bake", "canary bake errors roll_out"),
    Case("gradual_rollout", "bake", "tenth bake check half bake_again check_again all"),
    Case("second_try_after_a_day", "next_day", "next_day deliver_again"),
    Case(
        "callback",
        "reply",
        "request reply fetch",
        (signal("reply", "reply", {"url": "https://example.org"}),),
    ),
    unanswered("timeout_with_fallback", "offer", "standard book"),
    Case(
        "timeout_with_fallback",
        "offer",
        "offer take book",
        (signal("offer", "offer", {"price": 80}),),
    ),
    unanswered("cancel_window", "stop", "send"),
    Case("cancel_window", "stop", "stop keep", (signal("stop", "stop"),)),
    unanswered("dead_man_switch", "alive", "alarm"),
    Case("dead_man_switch", "alive", "alive", (signal("alive", "alive"),)),
    Case(
        "collected_signals",
        "one two three",
        "one two three assemble",
        tuple(signal(node_id, "part", node_id) for node_id in ("one", "two", "three")),
    ),
    unanswered("events_within_a_time", "one two", "ask sum"),
    unanswered("expiring_reservation", "paid", "reserve reserve~undo"),
    Case("expiring_reservation", "paid", "reserve paid ticket", (signal("paid", "paid"),)),
    Case(
        "human_approval",
        "ok",
        "ok pay",
        (decision("ok", "ann", account="7"),),
        params={"amount": 1},
    ),
    unanswered(
        "reminder_and_escalation",
        "ask",
        "remind escalate ask_bob publish",
        decision("ask_bob", "bob"),
    ),
    Case("reminder_and_escalation", "ask", "ask publish", (decision("ask", "ann"),)),
    Case(
        "two_person_rule",
        "ann bob",
        "ann bob open",
        (decision("bob", "bob"), decision("ann", "ann")),
    ),
    Case("vote", "ann bob eve", "ann eve merge", (decision("ann", "ann"), decision("eve", "eve"))),
    Case(
        "human_repair",
        "repair",
        "repair ship_again",
        (decision("repair", "ann", address="Oslo 2"),),
        params={"address": "Oslo 1"},
    ),
    Case("refine_until_good", "human", "human", (decision("human", "ann"),)),
    Case(
        "release_train",
        "go",
        "build test staging go production announce",
        (decision("go", "ann"),),
    ),
]
HANDLERS = {
    **examples.HANDLERS,
    **{role: one for case in CASES for role, one in loaded(case.pattern).handlers.items()},
    "ship": ship,
    "check": check,
    "write": write,
    "mail": mail,
}


def shortened(case: Case) -> dict[str, Any]:
    """Return the graph of a case with sleeps, pauses and time limits for tests."""
    document = loaded(case.pattern).graph.to_dict()
    for node in document["nodes"]:
        io = node.get("io", {})
        if node["type"] == "sleep" and "until" in io:
            io["until"] = (datetime.now(UTC) + timedelta(seconds=SHORT_SEC)).isoformat()
        elif node["type"] == "sleep":
            io["for_sec"] = SHORT_SEC
        elif "delay_sec" in io:
            io["delay_sec"] = SHORT_SEC
        elif "timeout_sec" in io:
            io["timeout_sec"] = SHORT_SEC if case.limits else LONG_SEC
    return document


def patterns_that_wait() -> set[str]:
    """Return the names of all patterns with a node that waits."""
    return {
        path.stem
        for path in script("_generate.py").PATTERNS
        if any(_waits(node) for node in loaded(path.stem).graph.plan.nodes)
    }


def _waits(node: NodeSpec) -> bool:
    return node.type in CONTROL_TYPES or "delay_sec" in (node.io.model_extra or {})


async def started(processes: Processes) -> list[Process]:
    handlers = ("--handlers", f"{__name__}:HANDLERS")
    members = [
        processes.coordinator(**SETTINGS),
        processes.start("worker", *handlers, hb_interval_sec=0.3),
    ]
    await members[0].until("coordinator_ready")
    return members


async def finished_through_kills(processes: Processes, client: Client) -> list[str]:
    """Kill all processes while the tasks of all cases wait, and answer while none runs.

    Returns:
        The nodes that have finished, for each case.
    """
    members = await started(processes)
    tasks = [
        (case, await client.create_task(graph=shortened(case), params=case.params))
        for case in CASES
    ]
    for case, task_id in tasks:
        await waiting(client, task_id, *case.waits.split())
    for process in members:
        process.kill()
    for case, task_id in tasks:
        await answer(client, task_id, case, early=True)
    members = await started(processes)
    views: dict[str, TaskView] = {}
    with anyio.fail_after(WITHIN_SEC):
        for case, task_id in tasks:
            await answer(client, task_id, case, early=False)
            views[task_id] = await client.wait(task_id)
    for process in members:
        process.kill()
    return [finished(views[task_id]) for _, task_id in tasks]


async def answer(client: Client, task_id: str, case: Case, *, early: bool) -> None:
    """Give the answers for which the task already waits, or the later ones."""
    for one in case.answers:
        if (one.node_id in case.waits.split()) == early:
            await waiting(client, task_id, one.node_id)
            await one.give(client, task_id)


def finished(view: TaskView) -> str:
    return " ".join(node_id for node_id, one in view.nodes.items() if one.status == "finished")
