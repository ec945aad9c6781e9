"""Generated parts of the pages are current, and reference pages name every part of the code."""

from pathlib import Path
from typing import Annotated, get_args

import pytest
from pydantic import BaseModel, Field

from flowkit import hookspecs
from flowkit._engine import NODE_MOVES, TASK_MOVES
from flowkit._schedules._state import SkipReason
from flowkit.graph import EdgeSpec, GraphDocument, NodeIO, NodeSpec, RetryPolicy, Routing, Timeouts
from flowkit.task import Mark, NodeStatus, TaskStatus
from tests.docs.pages import ROOT, script

DOCS = ROOT / "docs"
generate = script("_generate.py")
WITH_REGIONS = [
    page for page in generate.pages() if generate.REGION.search(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", WITH_REGIONS, ids=lambda page: page.stem)
def test_what_is_generated_is_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.generated(text) == text, (
        f"run: python docs/_generate.py ({page.relative_to(ROOT)} is not current)"
    )


def test_the_description_of_the_api_is_current() -> None:
    current = generate.API_DESCRIPTION.read_text(encoding="utf-8")
    assert generate.api_description() == current, "run: python docs/_generate.py"


def test_the_chart_of_performance_is_current() -> None:
    current = generate.PERFORMANCE_CHART.read_text(encoding="utf-8")
    assert generate.performance_chart() == current, "run: python docs/_generate.py"


def test_everything_that_is_generated_is_somewhere() -> None:
    used = [
        found["name"]
        for page in WITH_REGIONS
        for found in generate.REGION.finditer(page.read_text(encoding="utf-8"))
    ]
    assert sorted(used) == sorted(generate.GENERATORS)


def test_the_charts_have_every_state_and_every_move() -> None:
    nodes, tasks = generate.node_chart(), generate.task_chart()
    assert nodes.count("-->") == 1 + sum(len(after) or 1 for after in NODE_MOVES.values())
    assert tasks.count(": retry") == sum(
        len(TASK_MOVES[status]) for status in TaskStatus if status.terminal
    )
    assert set(generate.MARKS) == set(NODE_MOVES)
    assert f"{generate.MARKS[Mark.ISSUED]} --> {generate.MARKS[Mark.RUNNING]}\n" in nodes
    assert set(TASK_MOVES) == set(TaskStatus)


def test_generating_keeps_what_stands_between_two_places() -> None:
    page = (
        "<!-- generated: node-states -->\n<!-- end -->\n\nkept\n\n<!-- generated: functions"
        " -->\n<!-- end -->\n"
    )
    once = generate.generated(page)
    assert "\nkept\n" in once
    assert generate.generated(once) == once


@pytest.mark.parametrize(
    "model", [GraphDocument, NodeSpec, NodeIO, EdgeSpec], ids=lambda model: model.__name__
)
def test_every_field_of_a_graph_is_described(model: type[BaseModel]) -> None:
    text = (DOCS / "topics" / "graphs.md").read_text(encoding="utf-8")
    assert [
        name for name, field in model.model_fields.items() if f"{field.alias or name}" not in text
    ] == []


@pytest.mark.parametrize(
    "model", [RetryPolicy, Timeouts, Routing], ids=lambda model: model.__name__
)
def test_every_setting_of_failures_is_described(model: type[BaseModel]) -> None:
    text = (DOCS / "topics" / "failures.md").read_text(encoding="utf-8") + (
        DOCS / "topics" / "graphs.md"
    ).read_text(encoding="utf-8")
    assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def test_every_hook_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert [
        name for name in vars(hookspecs) if name.startswith("flowkit_") and f"`{name}`" not in text
    ] == []


def test_every_status_of_a_node_is_in_the_chart() -> None:
    chart = generate.node_chart() + generate.node_states()
    assert [
        status for status in NodeStatus if status != NodeStatus.PAUSED and str(status) not in chart
    ] == []


def test_every_reason_of_skipped_times_is_described() -> None:
    text = (DOCS / "topics" / "schedules.md").read_text(encoding="utf-8")
    assert [reason for reason in get_args(SkipReason) if f"| `{reason}` |" not in text] == []


def test_the_type_of_a_field_is_written_without_its_limits() -> None:
    class Names(BaseModel):
        by_name: dict[Annotated[str, Field(max_length=40)], tuple[int, ...]] | None

    assert "| `dict[str, tuple[int, ...]] or none` |" in generate.settings(Names)
