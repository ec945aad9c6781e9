"""Approvals, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit import Approval
from flowkit.errors import AlreadyDecided, NotAssigned, TaskNotFound, TaskRefused
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import graph, node

FORM = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


def approval(node_id: str, *after: str, prompt: str = "Ship?", **io: Any) -> dict[str, Any]:
    return node(node_id, "approval", *after, io={"prompt": prompt, **io})


@handler("work")
async def work(item: Any, ctx: Any) -> Any:
    return ctx.results


async def test_what_waits_for_a_human_is_listed_until_it_is_decided() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        ok = approval("ok", prompt="Ship ${params.n}?", form=FORM, assignees=["ann", "bob"])
        task_id = await client.create_task(
            graph=graph(ok, node("ship", "work", "ok")), params={"n": 7}
        )
        await cluster.clock.sleep(1)
        (waiting,) = (await client.approvals()).items
        view = await client.get_task(task_id)
        assert waiting == Approval(
            task_id=task_id,
            node_id="ok",
            prompt="Ship 7?",
            choices=["approve", "reject"],
            form=FORM,
            assignees=["ann", "bob"],
            since=view.nodes["ok"].started_at,
        )
        assert view.nodes["ok"].waiting == "approval"
        assert await client.explain(task_id, "ok") == (
            "'ok' waits for a decision of 'ann', 'bob' since 2026-01-01T00:00:00+00:00."
            f" `flowkit decide {task_id} ok CHOICE` makes it: 'approve', 'reject'."
        )
        await client.decide(task_id, "ok", "approve", by="ann", values={"amount": 5}, comment="!")
        assert (await client.approvals()).items == []
        result = (await client.wait(task_id)).result or {}
    made = result["ship"]["ok"]
    assert {**made, "at": None} == {
        "choice": "approve",
        "by": "ann",
        "at": None,
        "values": {"amount": 5},
        "comment": "!",
    }


async def test_a_later_decision_is_refused_and_says_who_decided() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(approval("ok", on_reject="continue"), approval("no", "ok"))
        task_id = await client.create_task(graph=flow)
        await client.decide(task_id, "ok", "reject", by="ann")
        said = f"node 'ok' of task '{task_id}' was decided before: 'reject' by 'ann' at "
        with pytest.raises(AlreadyDecided, match=said):
            await client.decide(task_id, "ok", "approve", by="bob")
        await client.decide(task_id, "no", "reject", by="bob", comment="too dear")
        view = await client.wait(task_id)
        assert view.error == "node 'no' failed: rejected: bob rejected it: too dear"
        with pytest.raises(AlreadyDecided, match="was decided before: 'reject' by 'bob'"):
            await client.decide(task_id, "no", "approve", by="ann")


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown choice": (
        {"choice": "yes"},
        "'yes' is no choice of node 'ok'; its choices are 'approve', 'reject'",
    ),
    "another person": (
        {"by": "eve"},
        "'eve' may not decide about node 'ok'; its assignees are 'ann'",
    ),
    "no name": ({"by": ""}, "by must have 1 to 200 printable characters"),
    "values that do not match": (
        {"values": {"amount": "5"}},
        "the values do not match the form of node 'ok': values.amount: \"5\" is not of type",
    ),
    "no values": ({}, "the values do not match the form of node 'ok': values: \"amount\" is a"),
    "values that are no object": ({"values": [1]}, "values must be an object, not a list"),
    "values that are no JSON": ({"values": {"x": {1}}}, "values is not JSON: "),
    "a comment that is no text": ({"comment": 3}, "a comment is a text of at most 10,000"),
    "another node": ({"node_id": "nap"}, "node 'nap' of task 't' is of type 'sleep', and takes no"),
    "a node that does not wait yet": (
        {"node_id": "later"},
        "node 'later' of task 't' does not wait for a decision",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_decision_that_cannot_be_made_is_refused(name: str) -> None:
    changed, error = REFUSALS[name]
    call = {"node_id": "ok", "choice": "approve", "by": "ann", **changed}
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        nap = node("nap", "sleep", io={"for_sec": 9})
        flow = graph(nap, approval("ok", form=FORM, assignees=["ann"]), approval("later", "ok"))
        await client.create_task(graph=flow, task_id="t")
        with pytest.raises(TaskRefused) as refused:
            await client.decide("t", **call)
        assert str(refused.value).startswith(error)
        with pytest.raises(TaskNotFound):
            await client.decide("t", "nix", "approve", by="ann")
        await client.decide("t", "ok", "reject", by="ann")  # a rejection needs no values


async def test_the_list_has_stable_pages_and_can_be_filtered_by_assignee() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        for number in range(210):
            assignees = {"assignees": ["ann"]} if number % 2 else {}
            flow = graph(approval("a", **assignees), approval("b", **assignees))
            await client.create_task(graph=flow, task_id=f"t{number:03}")
        for assignee, expected in ((None, 420), ("ann", 420), ("bob", 210)):
            found: list[tuple[str, str]] = []
            after = None
            while True:
                page = await client.approvals(assignee=assignee, limit=33, after=after)
                found += [(one.task_id, one.node_id) for one in page.items]
                after = page.next
                if after is None:
                    break
            assert len(found) == len(set(found)) == expected
        with pytest.raises(ValueError, match="limit is at least 1"):
            await client.approvals(limit=0)
        with pytest.raises(ValueError, match="invalid page cursor 'x'"):
            await client.approvals(after="x")


async def test_a_page_goes_on_after_a_node_that_was_decided_meanwhile() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        for number in range(5):
            await client.create_task(graph=graph(approval("a")), task_id=f"t{number}")
            await cluster.clock.sleep(1)
        first = await client.approvals(limit=2)
        assert [one.task_id for one in first.items] == ["t4", "t3"]
        await client.decide("t3", "a", "approve", by="ann")
        rest = await client.approvals(limit=2, after=first.next)
        assert [one.task_id for one in rest.items] == ["t2", "t1"]


async def test_a_person_who_is_no_assignee_is_refused_by_an_error_of_its_own() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.create_task(
            graph=graph(approval("ok", assignees=["ann"])), task_id="t"
        )
        with pytest.raises(NotAssigned, match="'eve' may not decide about node 'ok'"):
            await cluster.client.decide("t", "ok", "approve", by="eve")
