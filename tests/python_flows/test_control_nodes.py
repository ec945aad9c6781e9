"""Nodes that wait are calls in a flow in Python."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from flowkit import GraphError, NodeStatus, approval, flow, sleep, wait_signal
from flowkit.flows import Decision
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.python_flows.documents import document, document_of
from tests.python_flows.handlers import alert, extract, note, square
from tests.python_flows.mistakes import Mistakes, check_mistake


class Account(BaseModel):
    iban: str
    bank: str | None = None


class Payment(BaseModel):
    amount: float = Field(gt=0)
    account: Account | None = None


@dataclass
class Parcel:
    number: int


faulty = Mistakes()


def test_sleeps_are_nodes() -> None:
    @flow
    def sleeping(seconds: float, due: datetime) -> None:
        square(2) >> sleep(60).options(node_id="pause", when="params.seconds > 1.0") >> square(3)
        sleep(seconds)
        sleep(until=due)
        sleep(until=datetime(2026, 12, 24, 18, tzinfo=UTC))
        sleep(until=f"{extract({'name': 'x'}).day}T09:00:00+01:00")

    assert document_of(sleeping) == document("""
        nodes:
          - {node_id: square, type: square, io: {input_inline: 2}}
          - node_id: pause
            type: sleep
            depends_on: [square]
            when: "params.seconds > 1.0"
            io: {for_sec: 60}
          - {node_id: square_2, type: square, depends_on: [pause], io: {input_inline: 3}}
          - {node_id: sleep, type: sleep, io: {for_sec: "${params.seconds}"}}
          - {node_id: sleep_2, type: sleep, io: {until: "${params.due}"}}
          - {node_id: sleep_3, type: sleep, io: {until: "2026-12-24T18:00:00+00:00"}}
          - node_id: extract
            type: extract
            retry_policy: {max: 5}
            io: {input_inline: {name: x}}
          - node_id: sleep_4
            type: sleep
            depends_on: [extract]
            io: {until: "${results.extract.day}T09:00:00+01:00"}
    """)


def test_signals_and_approvals_are_nodes() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}

    @flow
    def asking(order: str, owner: str, limit: float) -> None:
        paid = wait_signal(
            f"paid-{order}", timeout_sec=limit, on_timeout="skip", schema=schema
        ).on_failure(alert)
        ok = approval(
            f"Ship {paid.n}?",
            choices=["yes", "reject"],
            assignees=[owner, "ann"],
            timeout_sec=60,
            on_timeout="skip",
            on_reject="continue",
            form=schema,
        )
        note.options(when=ok.choice == "yes")(ok.comment)
        approval("Sure?")
        wait_signal("done", schema={})

    form = "{type: object, properties: {n: {type: integer}}}"
    assert document_of(asking) == document(f"""
        nodes:
          - node_id: wait_signal
            type: wait_signal
            io:
              signal: "paid-${{params.order}}"
              timeout_sec: "${{params.limit}}"
              on_timeout: skip
              schema: {form}
            routing: {{on_failure: [alert]}}
          - {{node_id: alert, type: alert}}
          - node_id: approval
            type: approval
            depends_on: [wait_signal]
            io:
              prompt: "Ship ${{results.wait_signal.n}}?"
              choices: ["yes", reject]
              assignees: ["${{params.owner}}", ann]
              timeout_sec: 60
              on_timeout: skip
              on_reject: continue
              form: {form}
          - node_id: note
            type: note
            depends_on: [approval]
            when: results.approval.choice == "yes"
            io: {{input_inline: "${{results.approval.comment}}"}}
          - {{node_id: approval_2, type: approval, io: {{prompt: "Sure?"}}}}
          - {{node_id: wait_signal_2, type: wait_signal, io: {{signal: done, schema: {{}}}}}}
    """)


def test_a_type_is_its_json_schema() -> None:
    @flow
    def typed() -> None:
        wait_signal("a", schema=Parcel)
        wait_signal("b", schema=list[int])
        approval("c", form=Payment)

    first, second, third = (node["io"] for node in document_of(typed)["nodes"])
    assert first["schema"] == {
        "properties": {"number": {"title": "Number", "type": "integer"}},
        "required": ["number"],
        "title": "Parcel",
        "type": "object",
    }
    assert second["schema"] == {"type": "array", "items": {"type": "integer"}}
    assert third["form"]["properties"]["amount"]["exclusiveMinimum"] == 0
    assert "Account" in third["form"]["$defs"]


async def test_a_flow_waits_for_times_signals_and_people(flowkit_cluster: Cluster) -> None:
    @handler("pay")
    async def pay(payment: Payment, decision: Decision[Account]) -> str:
        assert decision.values is not None
        return f"{payment.amount} to {decision.values.iban} by {decision.by}"

    @flow
    def paying(day: datetime) -> Any:
        invoice = wait_signal("invoice", schema=Payment)
        ok = approval(f"Pay {invoice.amount}?", form=Account, assignees=["ann"])
        sleep(until=day) >> pay(invoice, ok)
        return {"iban": ok.values.iban, "paid": pay(invoice, ok)}

    client = flowkit_cluster.client
    await flowkit_cluster.add_worker([pay])
    task_id = await client.create_task(graph=paying, params={"day": "2026-01-02T18:00:00Z"})
    await client.signal(task_id, "invoice", {"amount": 12.5})
    await flowkit_cluster.clock.sleep(1)
    (waiting,) = (await client.approvals()).items
    assert (waiting.prompt, waiting.assignees) == ("Pay 12.5?", ["ann"])
    await client.decide(task_id, waiting.node_id, "approve", by="ann", values={"iban": "DE1"})
    view = await client.wait(task_id)
    assert view.result == {"iban": "DE1", "paid": "12.5 to DE1 by ann"}
    assert view.nodes["pay"].started_at == view.nodes["sleep"].finished_at
    assert view.nodes["sleep"].finished_at == datetime(2026, 1, 2, 18, tzinfo=UTC)


async def test_a_rejection_takes_the_branch_of_failures(flowkit_cluster: Cluster) -> None:
    @flow
    def asking() -> None:
        approval("Ship?").on_success(note).on_failure(alert)

    client = flowkit_cluster.client
    await flowkit_cluster.add_worker([note, alert])
    task_id = await client.create_task(graph=asking)
    await flowkit_cluster.clock.sleep(1)
    await client.decide(task_id, "approval", "reject", by="ann")
    view = await client.wait(task_id)
    assert view.nodes["alert"].result == {"approval": "rejected"}
    assert view.nodes["note"].status == NodeStatus.SKIPPED


# ---------------------------------------------------------------- mistakes


@faulty("io needs exactly one of for_sec and until for a node of type 'sleep'")
def a_sleep_without_a_time() -> None:
    sleep()  # type: ignore[call-overload]  # here


@faulty("io needs exactly one of for_sec and until for a node of type 'sleep'")
def a_sleep_with_two_times() -> None:
    sleep(3, until="2026-12-24T18:00:00Z")  # type: ignore[call-overload]  # here


@faulty("io.for_sec must be at least 0, not -1")
def a_negative_sleep() -> None:
    sleep(-1)  # here


@faulty("the argument 'for_sec' of sleep is a number of seconds; give 3600")
def a_duration_as_a_number() -> None:
    sleep(timedelta(hours=1))  # type: ignore[call-overload]  # here


@faulty("the argument 'timeout_sec' of wait_signal is a number of seconds; give 0.5")
def a_duration_as_a_time_limit() -> None:
    wait_signal("a", timeout_sec=timedelta(seconds=0.5))  # type: ignore[call-overload]  # here


@faulty("is not an ISO time with a zone")
def a_time_without_a_zone() -> None:
    sleep(until=datetime(2026, 12, 24))  # here


@faulty("results.wait_signal is known only while the task runs, so it cannot be a condition")
def a_branch_on_a_signal() -> None:
    if wait_signal("paid"):  # here
        square(2)


@faulty('results.approval.choice == "approve" is known only while the task runs')
def a_branch_on_a_decision() -> None:
    ok = approval("Ship?")
    if ok.choice == "approve":  # here
        square(2)


@faulty("results.wait_signal is known only while the task runs, so it cannot be iterated")
def a_loop_over_a_payload() -> None:
    for row in wait_signal("rows", schema=list[int]):  # here
        square(row)


@faulty("cannot be converted to a number or bytes")
def a_sleep_of_a_computed_time(n: int) -> None:
    sleep(float(n))  # here


@faulty("Decision[Account], the type of results.approval, has no field 'chioce'")
def a_misspelt_field_of_a_decision() -> None:
    ok = approval("Ship?", form=Account)
    note(ok.chioce)  # here


@faulty("Account, the type of results.approval.values, has no field 'ibn'; did you mean 'iban'?")
def a_misspelt_field_of_a_form() -> None:
    ok = approval("Ship?", form=Account)
    note(ok.values.ibn)  # here


@faulty("Account, the type of results.wait_signal.account, has no field 'ibn'")
def a_misspelt_field_inside_of_a_payload() -> None:
    paid = wait_signal("paid", schema=Payment)
    note(paid.account.ibn)  # here


@faulty("schema is fixed when the flow is built; give it a plain value")
def a_schema_with_a_value(n: int) -> None:
    wait_signal("paid", schema={"type": "integer", "minimum": n})  # here


@faulty("schema is fixed when the flow is built; give it a plain value")
def a_schema_that_is_a_value(schema: dict[str, Any]) -> None:
    wait_signal("paid", schema=schema)  # here


@faulty("on_timeout is fixed when the flow is built; give it a plain value")
def an_outcome_that_is_a_value(outcome: Any) -> None:
    wait_signal("paid", timeout_sec=3, on_timeout=outcome)  # here


@faulty("io.on_timeout has no effect without io.timeout_sec")
def an_outcome_of_a_timeout_that_cannot_come() -> None:
    wait_signal("paid", on_timeout="skip")  # here


@faulty("io.on_reject must be 'fail' or 'continue', not 'stop'")
def an_unknown_outcome() -> None:
    approval("Ship?", on_reject="stop")  # type: ignore[call-overload]  # here


@faulty("io.form: the type of the schema must be 'object', not 'integer'")
def a_form_that_is_no_object() -> None:
    approval("Ship?", form=int)  # here


@faulty("pydantic cannot validate the annotation 3 of schema")
def a_schema_that_is_no_type() -> None:
    wait_signal("paid", schema=3)  # type: ignore[call-overload]  # here


@faulty("schema must be a type or a JSON Schema, not 'Payment'")
def a_type_in_quotes() -> None:
    wait_signal("paid", schema="Payment")  # type: ignore[call-overload]  # here


@faulty("a node is expected, the value of a call, not function")
def an_arrow_to_a_function() -> None:
    note() >> sleep  # type: ignore[operator]  # here


@faulty("schema: the type has no JSON Schema")
def a_type_without_a_json_schema() -> None:
    wait_signal("paid", schema=Callable)  # type: ignore[type-abstract]  # here


@faulty("io.schema: 'typ' is not a keyword of JSON Schema; did you mean 'type'?")
def a_misspelt_schema() -> None:
    wait_signal("paid", schema={"typ": "object"})  # here


@faulty("the argument 'prompt' of approval is not JSON")
def a_prompt_that_is_not_json() -> None:
    approval({1})  # type: ignore[call-overload]  # here


@faulty("io.choices is empty; name at least one, or remove it")
def no_choices() -> None:
    approval("Ship?", choices=[])  # here


@faulty("priority: a node of type 'sleep' starts as soon as it may; remove it")
def an_option_without_effect() -> None:
    sleep(3).options(priority=3)  # here


@faulty("is on a cycle")
def nodes_that_wait_for_each_other() -> None:
    pause = sleep(3)  # here
    pause >> note() >> pause


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: sleep(3), "sleep makes a node"),
        (lambda: wait_signal("a"), "wait_signal makes a node"),
        (lambda: approval("a"), "approval makes a node"),
    ],
)
def test_a_node_that_waits_is_called_in_a_flow(call: Callable[[], Any], error: str) -> None:
    with pytest.raises(GraphError, match=f"{error}, so it is called in a @flow that") as caught:
        call()
    assert __file__ in str(caught.value)


def test_a_flow_that_takes_a_graph_adds_nodes_that_wait_to_it() -> None:
    @flow
    def older(g: Any) -> None:
        sleep(3)

    with pytest.raises(GraphError, match="in a @flow that has no parameter g"):
        older.build_graph()
