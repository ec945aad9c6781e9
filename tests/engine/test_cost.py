"""The cost of an event, in reads of the plan, so that it does not depend on the machine."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from flowkit._engine import Transition, Woke
from flowkit.graph import Graph, Plan
from tests.engine.drive import Play, graph

SIZE = 1_000
READS_PER_EDGE = 12
READS_PER_EVENT = 60


class Counted(tuple[Any, ...]):
    """A tuple that counts the reads of it and of the tuples in it."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        Counted.reads += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            Counted.reads += 1
            yield item


def counted(plan: Plan) -> Plan:
    edges = {
        name: Counted(Counted(edges) for edges in getattr(plan, name))
        for name in ("children", "parents")
    }
    flat = {
        field.name: Counted(getattr(plan, field.name))
        for field in fields(plan)
        if isinstance(getattr(plan, field.name), tuple) and field.name not in edges
    }
    return replace(plan, **edges, **flat)


class Measured(Play):
    """A task that counts how much of the plan each event reads, per child of the node."""

    def __init__(self, flow: Graph) -> None:
        super().__init__(flow, check=False)
        self.task.spec = replace(self.task.spec, plan=counted(flow.plan))
        self.excess: list[tuple[Any, int]] = []

    def do(self, event: Any) -> Transition:
        Counted.reads = 0
        step = super().do(event)
        children = (
            len(self.task.spec.plan.children[event.index])
            if hasattr(event, "index")
            else len(self.task.marks)
        )
        allowed = READS_PER_EVENT + READS_PER_EDGE * children
        if Counted.reads > allowed:
            self.excess.append((event, Counted.reads))
        return step


NAMES = [f"n{index}" for index in range(SIZE)]
SHAPES = {
    "chain": graph(*(f"n{index} -> n{index + 1}" for index in range(SIZE - 1))),
    "independent": graph(" ".join(NAMES)),
    "fan": graph(f"first -> {' '.join(NAMES)}", f"{' '.join(NAMES)} -> last"),
    "any": graph(f"{' '.join(NAMES)} -> last", last={"fan_in": "any"}),
    "streaming fan": graph(f"{' '.join(NAMES)} => last"),
    "routes": graph(*(f"n{index} +> n{index + 1}" for index in range(SIZE - 1))),
    "keys": graph(" ".join(NAMES), **{name: {"concurrency_key": name} for name in NAMES}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_for_an_event_grows_with_the_children_of_its_node_alone(shape: str):
    play = Measured(SHAPES[shape])
    while not play.task.terminal:
        for index in [index for index, mark in enumerate(play.task.marks) if mark == ord("q")]:
            name = play.task.spec.plan.ids[index]
            play.starts(name)
            play.progresses(name, 1)
            play.stores_a_batch(name)
            play.succeeds(name)
            play.succeeds(name)
    assert play.excess == []


def test_the_work_for_a_failure_is_no_greater():
    play = Measured(
        graph(f"{' '.join(NAMES)} -> last", on_node_failure="continue", last={"fan_in": "any"})
    )
    for name in NAMES:
        play.breaks(name)
    assert play.excess == []
    assert play.task.marks.count(b"X") == SIZE


def test_looking_at_a_task_costs_what_is_under_way():
    flow = graph(*(f"n{index} -> n{index + 1}" for index in range(SIZE - 1)))
    play = Measured(flow)
    play.starts("n0")
    Counted.reads = 0
    play.later(60)
    assert Counted.reads < READS_PER_EVENT


class Read(dict[int, Any]):
    """Records that count how often they are read."""

    reads = 0

    def get(self, key: int, default: Any = None) -> Any:
        Read.reads += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[int]:
        Read.reads += len(self)
        return super().__iter__()


@pytest.mark.parametrize("known", [True, False])
def test_a_wake_up_examines_the_nodes_that_are_due(known: bool):
    sleeps = {
        name: {"type": "sleep", "io": {"for_sec": 100 + number}}
        for number, name in enumerate(NAMES)
    }
    play = Play(graph(" ".join(NAMES), **sleeps), check=False)
    if known:
        play.do(Woke())
    play.task.records = Read(play.task.records)
    Read.reads = 0
    play.now = play.task.wake_at
    play.do(Woke(due_only=True))
    assert play.task.marks.count(b"F") == 1
    assert play.task.wake_at == play.now + 1
    assert (Read.reads <= 10) == known
