"""Each invariant can fail: it catches a store or an engine that is broken on purpose."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from flowkit import Client, Graph, TaskView
from flowkit._engine.map_expansion import add_block
from flowkit.graph import Plan
from flowkit.protocols import ArtifactRecord, Commit, RecordChange, TaskRecord
from flowkit.task import ENDED, MapBlock, NodeRecord, Task, TaskSpec, TaskStatus
from flowkit_testing import InMemoryStore
from flowkit_testing._artifacts import InMemoryArtifactStore
from flowkit_testing.simulation import SimCluster, SimulationFailed, run_seed, simulate
from flowkit_testing.simulation._fan_in import broken_fan_in
from flowkit_testing.simulation._later_phases import broken_phase
from flowkit_testing.simulation._undos import broken_undo
from tests.builders import graph
from tests.hooked_store import HookedStore
from tests.simulation.scenarios import (
    HANDLERS,
    SLOW,
    STANDARD,
    call,
    chain,
    node,
    sleep,
    streaming,
    wait,
)

Change = Callable[[TaskRecord, Commit], Commit | None]


class BrokenStore(InMemoryStore):
    """A store that changes the first commit for which ``change`` returns another one."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change: Change | None = change

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        changed = []
        for commit in commits:
            record = (await self.load([commit.task_id]))[commit.task_id]
            other = self._change(record, commit) if self._change is not None else None
            if other is not None:
                self._change = None
            changed.append(other or commit)
        return await super().commit(changed)


def state_of(record: TaskRecord | Commit) -> dict[str, Any]:
    parts = record.parts if isinstance(record, TaskRecord) else record.put
    state: dict[str, Any] = from_json(parts["state"])
    return state


def with_state(commit: Commit, **fields: Any) -> Commit:
    return replace(commit, put={**commit.put, "state": to_json(state_of(commit) | fields)})


def marks_of(record: TaskRecord) -> str:
    marks: str = state_of(record)["marks"]
    return marks


def found_by(
    change: Change, scenario: Callable[[SimCluster], Awaitable[object]] = chain, *, seed: int = 1
) -> str:
    """Return the error of a simulation whose store changes a commit in this way."""

    async def broken(cluster: SimCluster) -> None:
        cluster.use_store(BrokenStore(change))
        await scenario(cluster)

    with pytest.raises(SimulationFailed) as failed:
        simulate(broken, seed=seed, faults="none", handlers=HANDLERS, converge_sec=600)
    return str(failed.value.cause)


def test_a_node_that_has_ended_does_not_change() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if marks_of(record)[0] != "F":
            return None
        return with_state(commit, marks="X" + state_of(commit)["marks"][1:])

    assert "node 'a' had ended as 'F' and is 'X'" in found_by(change)


def test_a_task_that_has_ended_does_not_go_on() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        marks = marks_of(record)
        if marks[1] != "F":
            return None
        end: dict[str, Any] = {"status": "failed", "finished_at": 1.0}
        return replace(with_state(commit, marks=f"FF{'C' * (len(marks) - 2)}", **end), **end)

    # Only a coordinator that has the next commit in progress makes the task go on.
    errors = (found_by(change, seed=seed) for seed in range(1, 61))
    assert any("the task was failed and is running" in error for error in errors)


def test_the_history_has_no_gap() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        names = [name for name in commit.put if name[0] == "e"]
        if not names:
            return None
        return replace(
            commit, put={name: data for name, data in commit.put.items() if name not in names}
        )

    assert "the history grew from 2 to" in found_by(change)


def test_attempts_stay_within_the_policy() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if "n0" not in commit.put:
            return None
        return replace(
            commit, put={**commit.put, "n0": to_json(from_json(commit.put["n0"]) | {"attempt": 62})}
        )

    assert "node 'a' is at attempt 62 since 1: 61 are allowed" in found_by(change)


def test_a_result_comes_from_an_execution() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if "n1" not in commit.put or "result" not in from_json(commit.put["n1"]):
            return None
        return replace(
            commit,
            put={**commit.put, "n1": to_json(from_json(commit.put["n1"]) | {"result": "made up"})},
        )

    assert "node 'b' finished with 'made up'; its executions produced [{'node': 'b'" in found_by(
        change
    )


def test_the_record_of_a_finished_node_stays() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if marks_of(record)[0] != "F":
            return None
        return replace(
            commit,
            put={
                **commit.put,
                "n0": to_json(from_json(record.parts["n0"]) | {"result": "another"}),
            },
        )

    assert "the record of node 'a', which had finished, went from" in found_by(change)


def test_metrics_are_the_sums_of_the_batches() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if "n1" not in commit.put or "metrics" not in from_json(commit.put["n1"]):
            return None
        return replace(
            commit,
            put={
                **commit.put,
                "n1": to_json(from_json(commit.put["n1"]) | {"metrics": {"items": 81}}),
            },
        )

    assert (
        "node 'consume' finished with the metrics {'items': 81}; the sum of its stored batches is"
        in found_by(change, streaming)
    )


def test_what_leaves_the_record_is_in_the_archive() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return replace(commit, drop=["n0"]) if marks_of(record)[0] == "F" else None

    assert "['n0'] left the record and are not in the archive" in found_by(change)


def test_a_node_does_not_start_below_a_parent_that_failed() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return (
            with_state(commit, marks="X" + marks_of(commit)[1:])
            if marks_of(commit)[:2] in ("Fq", "Fu")
            else None
        )

    assert "node 'b' has started, but its parent 'a' failed" in found_by(change)


def test_a_node_does_not_start_below_a_parent_that_was_skipped_because_of_a_failure() -> None:
    async def scenario(cluster: SimCluster) -> None:
        await cluster.run(
            graph(
                node("e", "wrong"),
                node("f", after=["e"]),
                node("d"),
                node("g", after=["d", "f"]),
                on_node_failure="continue",
            )
        )

    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return (
            with_state(commit, marks=marks_of(commit)[:3] + "u")
            if marks_of(commit)[:2] == "Xx"
            else None
        )

    assert "node 'g' has started, but its parent" in found_by(change, scenario)


def test_a_node_does_not_start_with_fewer_parents_than_it_needs() -> None:
    async def scenario(cluster: SimCluster) -> None:
        await cluster.run(
            graph(node("a"), node("b"), node("c", after=["a", "b"], fan_in="count:2"))
        )

    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return (
            with_state(commit, marks=marks_of(commit)[:2] + "q")
            if "F" in marks_of(commit)[:2]
            else None
        )

    assert "node 'c' has started, but only 1 of its parents gave it data" in found_by(
        change, scenario
    )


def test_a_node_may_start_on_the_first_of_two_streams_and_not_before() -> None:
    flow = graph(
        node("a"), node("b"), node("c", after=["a", "b"], io={"start_when": "first_batch"})
    )
    plan = Graph.parse(flow).plan
    assert broken_fan_in(plan, "u.q", {}) is None
    assert (
        broken_fan_in(plan, "..q", {}) == "node 'c' has started, but its parent 'a' has not ended"
    )


def test_a_node_that_waits_for_ends_starts_after_all_of_them_and_if_a_branch_was_taken() -> None:
    plan = Graph.parse(
        graph(node("a"), node("b"), node("c", after=["a", "b"], fan_in="ended"))
    ).plan
    assert broken_fan_in(plan, "XFq", {}) is None
    assert (
        broken_fan_in(plan, "Xuq", {}) == "node 'c' has started, but its parent 'b' has not ended"
    )
    branch = {"on_failure": ["c"]}
    plan = Graph.parse(graph(node("a", routing=branch), node("c", fan_in="ended"))).plan
    assert broken_fan_in(plan, "Xq", {}) is None
    assert (
        broken_fan_in(plan, "Fq", {})
        == "node 'c' has started, but no branch that leads to it was taken"
    )


def test_a_node_runs_without_the_data_of_a_failed_parent_only_if_that_is_optional() -> None:
    for optional in (True, False):
        nodes = node("a", optional=optional), node("b"), node("c", after=["a", "b"])
        plan = Graph.parse(graph(*nodes, on_node_failure="continue")).plan
        assert (broken_fan_in(plan, "XFq", {}) is None) == optional


def test_no_more_nodes_are_in_flight_than_max_parallel_allows() -> None:
    async def scenario(cluster: SimCluster) -> None:
        await cluster.run(graph(node("a"), node("b"), max_parallel=1))

    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_state(commit, marks="uq") if marks_of(commit)[0] == "u" else None

    assert "2 nodes are in flight, and max_parallel is 1" in found_by(change, scenario)


ENDS = Graph.parse(
    graph(
        node("a", undo={"type": "work"}),
        node("b", undo={"type": "work"}),
        **{"finally": [node("f")]},
    )
).plan
RUN = NodeRecord(attempt=1, first_issued_at=1.0)


@pytest.mark.parametrize(
    ("marks", "outcome", "fault"),
    [
        ("Fuhrh", "failed", "node 'a~undo' begins before the main phase has ended"),
        ("FXuhh", "failed", "node 'f' of finally begins before the undos have ended"),
        ("FFhuu", "failed", "the undos ['a~undo', 'b~undo'] run at the same time"),
        ("FFhur", "failed", "'a~undo' runs before 'b~undo'"),
        ("FFhrd", "failed", None),
        ("XFhur", "failed", "'a~undo' runs, and its node did not finish"),
        ("FFhFS", "finished", "'a~undo' runs in a task that finishes"),
        ("FFhFF", "failed", "the task has ended, and node 'f' has not"),
        ("FFFFS", "failed", "node 'b' had finished and was not undone"),
        ("FXFFS", "failed", None),
        ("FFFSS", "finished", None),
        ("FFCCC", "cancelled", None),
    ],
)
def test_undos_and_finally_keep_their_rules(marks: str, outcome: str, fault: str | None) -> None:
    task = in_state(ENDS, marks, outcome)
    records = {3: NodeRecord() if marks[3] in "rS" else RUN}
    assert (broken_undo(task, records, {0: 3, 1: 5}) or broken_phase(task)) == fault


def test_a_forced_cancel_while_finally_runs_undoes_nothing() -> None:
    task = in_state(ENDS, "FFFSS", "cancelled")
    assert broken_undo(task, {}, {0: 3, 1: 5}, before="FFmSS") is None
    assert broken_undo(task, {}, {0: 3, 1: 5}, before="Fmhhh") is not None


MAPPED = Graph.parse(
    graph(node("a", undo={"type": "work"}), node("m", map={"over": []}, undo={"type": "work"}))
).plan


@pytest.mark.parametrize(
    ("nodes", "children", "undos", "outcome", "fault"),
    [
        ("FXrm", "FFX", "u.S", "failed", "'m[0]~undo' runs before 'm[1]~undo'"),
        ("FXum", "FFX", "..S", "failed", "'a~undo' runs before 'm[0]~undo'"),
        ("FXrm", "FFX", "rdS", "failed", None),
        (
            "FXrm",
            "FFX",
            "uuS",
            "failed",
            "the undos ['m[0]~undo', 'm[1]~undo'] run at the same time",
        ),
        ("FXrm", "FFX", "SSu", "failed", "'m[2]~undo' runs, and its node did not finish"),
        ("FXFF", "FFX", "FSS", "failed", "node 'm[1]' had finished and was not undone"),
        ("FXFS", "FFX", "", "failed", "node 'm[0]' had finished and was not undone"),
        ("FXFF", "FFX", "FXS", "failed", None),
        ("FXFC", "FFX", "FCS", "cancelled", None),
        ("FFSF", "FFF", "FFF", "finished", "'m[0]~undo' runs in a task that finishes"),
        ("FFSS", "FFF", "", "finished", None),
    ],
)
def test_undos_of_maps_keep_their_rules(
    nodes: str, children: str, undos: str, outcome: str, fault: str | None
) -> None:
    task = in_state(MAPPED, nodes, outcome)
    for index, marks in ((1, children), (3, undos)):
        if marks:
            add_block(task, MapBlock(index, len(task.marks), len(marks), 1, ""))
            task.marks[-len(marks) :] = marks.encode()
    first = len(nodes) + len(children)
    records = {first + place: RUN for place, mark in enumerate(undos) if mark in "uFXd"}
    assert broken_undo(task, records, {0: 1, 4: 2, 5: 3, 6: 9}) == fault


def in_state(plan: Plan, marks: str, outcome: str) -> Task:
    """Return a task in a state. It has ended if its nodes have."""
    spec = TaskSpec("t", plan, created_at=0.0, secret=b"")
    ended = all(ord(mark) in ENDED for mark in marks.replace("h", "F"))
    status = TaskStatus(outcome) if ended else TaskStatus.CANCELLING
    return Task(spec, bytearray(marks.encode()), status=status, outcome=TaskStatus(outcome))


def test_a_task_has_the_tags_of_its_nodes() -> None:
    def no_tags(record: TaskRecord, commit: Commit) -> Commit | None:
        return replace(commit, tags={"root"}) if len(commit.tags) > 1 else None

    def old_tags(record: TaskRecord, commit: Commit) -> Commit | None:
        kept = commit.tags | record.header.tags
        return None if kept == commit.tags else replace(commit, tags=kept)

    nodes_have = "and its nodes have"
    assert f"['root'], {nodes_have} ['root', 'waiting:worker']" in found_by(no_tags)
    assert f"['root', 'waiting:worker'], {nodes_have} ['root']" in found_by(old_tags)


# ---------------------------------------------------------------- waits


async def kept_signals(cluster: SimCluster) -> None:
    """Send two signals before two nodes wait for them."""
    task_id = await cluster.client.create_task(
        graph=graph(node("a", "slow"), wait("w", "go", ["a"]), wait("v", "go", ["a"]))
    )
    for payload in ("x", "y"):
        await cluster.client.signal(task_id, "go", payload)
    await cluster.client.wait(task_id)


async def one_decision(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph({"node_id": "ask", "type": "approval", "io": {"prompt": "Go?"}})
    )
    await cluster.client.decide(task_id, "ask", "approve", by="ann")


async def one_sleep(cluster: SimCluster) -> None:
    await cluster.run(graph(sleep("nap", for_sec=40)))


def with_part(commit: Commit, name: str, value: Any) -> Commit:
    return replace(commit, put={**commit.put, name: to_json(value)})


def with_signals(commit: Commit, **fields: Any) -> Commit:
    return with_part(commit, "signals", from_json(commit.put["signals"]) | fields)


def with_record(commit: Commit, index: int, **fields: Any) -> Commit:
    return with_part(commit, f"n{index}", from_json(commit.put[f"n{index}"]) | fields)


def test_a_kept_signal_is_not_lost() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_signals(commit, kept=[]) if "signals" in commit.put else None

    assert "the signals [1] of 1 were lost" in found_by(change, kept_signals)


def test_a_signal_is_not_kept_after_a_node_took_it() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if "signals" not in commit.put or marks_of(commit)[0] != "F":
            return None
        return with_part(commit, "signals", from_json(record.parts["signals"]))

    assert "the signals [1, 2] were taken, and are still kept" in found_by(change, kept_signals)


def test_a_signal_is_not_taken_twice() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        for name, data in commit.put.items():
            for entry in (entries := from_json(data)) if name[0] == "e" else ():
                if entry[3] == "finished" and (entry[4] or {}).get("number") == 2:
                    entry[4]["number"] = 1
                    return with_part(commit, name, entries)
        return None

    assert "signal 1 was taken twice" in found_by(change, kept_signals)


def test_the_payload_of_a_signal_is_the_result_of_the_node_that_took_it() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        taken = marks_of(commit)[1] == "F" and "n1" in commit.put
        return with_record(commit, 1, result="z") if taken else None

    assert "signal 1 was 'x' and became 'z'" in found_by(change, kept_signals)


def test_a_signal_that_was_confirmed_is_stored() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_signals(commit, ids=[]) if "signals" in commit.put else None

    assert "has lost the signal" in found_by(change, kept_signals)


def test_a_sleep_does_not_end_too_early() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        ended = marks_of(commit)[0] == "F"
        return with_record(commit, 0, finished_at=1.0) if ended else None

    assert "it slept until 1.0 and should have slept until" in found_by(change, one_sleep)


def test_a_sleep_has_no_result() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_record(commit, 0, result=1) if marks_of(commit)[0] == "F" else None

    assert "a sleep has the result 1" in found_by(change, one_sleep)


def test_an_approval_does_not_finish_without_a_decision() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_record(commit, 0, result="yes") if marks_of(commit)[0] == "F" else None

    assert "node 'ask' has finished, but it has no decision" in found_by(change, one_decision)


def test_a_decision_that_was_confirmed_is_stored() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if marks_of(commit)[0] != "F":
            return None
        made = from_json(commit.put["n0"])["result"]
        return with_record(commit, 0, result=made | {"by": "bob"})

    assert "'ann' decided 'approve' about node 'ask' of" in found_by(change, one_decision)


def test_a_node_does_not_stay_finished_while_its_parent_runs_again() -> None:
    async def scenario(cluster: SimCluster) -> None:
        task_id = await cluster.client.create_task(
            graph=graph(node("a"), node("b", after=["a"]), node("c", "wrong", ["b"]))
        )
        await cluster.client.wait(task_id)
        await cluster.client.retry(task_id, from_nodes=["a"])

    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        again = marks_of(record) == "FFX" and marks_of(commit)[0] == "q"
        return with_state(commit, marks=marks_of(commit)[0] + "F.") if again else None

    assert "node 'b' has finished, but its parent 'a' has not ended" in found_by(change, scenario)


def test_nothing_begins_in_a_task_that_is_to_end() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return with_state(commit, outcome="cancelled") if marks_of(record)[0] == "F" else None

    assert "begins, although the task will end as cancelled" in found_by(change)


def test_nodes_that_run_again_without_a_request_are_found() -> None:
    async def unasked(cluster: SimCluster) -> None:
        view = await cluster.run(graph(node("a", "wrong")))
        await Client.retry(cluster.client, view.id)

    with pytest.raises(SimulationFailed, match="nodes run again without a retry request"):
        simulate(unasked, seed=1, faults="none", handlers=HANDLERS)


def test_the_output_of_a_finished_task_is_the_value_of_its_expressions() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        if commit.status != "finished":
            return None
        return with_state(commit, output={"since": None, "value": 2})

    async def scenario(cluster: SimCluster) -> None:
        await cluster.run(graph(node("a"), output="${1}"))

    assert "the task has finished with the output 2 instead of 1" in found_by(change, scenario)


def test_the_output_of_a_task_that_fails_has_no_value() -> None:
    def change(record: TaskRecord, commit: Commit) -> Commit | None:
        return None if commit.status != "failed" else with_state(commit, output={"value": 2})

    async def scenario(cluster: SimCluster) -> None:
        await cluster.run(graph(node("a", "wrong"), output="${1}"))

    assert "the task is failed and has the output 2" in found_by(change, scenario)


def test_an_output_that_is_evaluated_again_without_a_request_is_found() -> None:
    async def unasked(cluster: SimCluster) -> None:
        view = await cluster.run(graph(node("a"), output=f"${{{SLOW[2:-1]} + vars.missing}}"))
        await Client.retry(cluster.client, view.id)

    with pytest.raises(SimulationFailed, match="the task was failed and is running"):
        simulate(unasked, seed=1, faults="none", handlers=HANDLERS)


class DoublingArtifacts(InMemoryArtifactStore):
    """An artifact store that reports the first artifact as new each time."""

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        await super().put(records)
        return [True] * len(records)


def test_an_artifact_is_stored_once() -> None:
    async def broken(cluster: SimCluster) -> None:
        store = InMemoryStore()
        store.artifacts = DoublingArtifacts()
        cluster.use_store(store)
        await streaming(cluster)

    with pytest.raises(SimulationFailed, match=r"artifact .* was stored twice"):
        simulate(broken, seeds=30, faults=["crashes", "store"], handlers=HANDLERS)


def test_a_failed_node_leaves_a_dead_letter() -> None:
    class WithoutLetters(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            change.put = [record for record in change.put if record.kind != "letter"]

    async def broken(cluster: SimCluster) -> None:
        cluster.use_store(WithoutLetters())
        await cluster.run(graph(node("a", "wrong")))

    with pytest.raises(
        SimulationFailed, match="node 'a' failed in attempt 1 and left no dead letter"
    ):
        simulate(broken, seed=1, faults="none", handlers=HANDLERS)


def test_a_node_is_executed_once_for_each_attempt_that_was_issued() -> None:
    async def twice(cluster: SimCluster) -> None:
        view = await cluster.run(graph(node("a")))
        cluster.world.runs[view.id, "a"].append(object())

    with pytest.raises(
        SimulationFailed, match="node 'a' of .* was executed 2 times; 1 attempts were issued"
    ):
        simulate(twice, seed=1, faults="none", handlers=HANDLERS)


class ForgetfulStore(InMemoryStore):
    """A store that confirms a task and does not store it."""

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        return [record.header.task_id for record in records]


def test_a_task_that_was_confirmed_is_there() -> None:
    async def broken(cluster: SimCluster) -> None:
        cluster.use_store(ForgetfulStore())
        await cluster.client.create_task(graph=graph(node("a")))

    with pytest.raises(
        SimulationFailed, match="is lost: its submission was confirmed to the client"
    ):
        simulate(broken, seed=1, faults="none", handlers=HANDLERS)


def test_a_report_to_a_client_that_is_not_as_stored_is_found() -> None:
    async def lied_to(cluster: SimCluster) -> None:
        view = await cluster.run(graph(node("a")))
        cluster.client.told[view.id] = view.model_copy(update={"error": "another"})

    with pytest.raises(SimulationFailed, match="was reported to a client as"):
        simulate(lied_to, seed=1, faults="none", handlers=HANDLERS)


def test_users_add_invariants_of_their_own() -> None:
    seen: list[tuple[str | None, str]] = []

    def never_two_at_once(before: TaskView | None, after: TaskView) -> None:
        seen.append((before and before.status.value, after.status.value))
        running = [node.node_id for node in after.nodes.values() if node.status == "running"]
        assert len(running) < 2, f"these run at once: {running}"

    simulate(chain, seed=1, faults="none", handlers=HANDLERS, invariants=[never_two_at_once])
    assert seen[0] == (None, "queued")
    assert seen[-1] == ("running", "finished")
    with pytest.raises(SimulationFailed, match="these run at once"):
        simulate(
            STANDARD["fan_out_and_in"].scenario,
            seed=1,
            faults="none",
            handlers=HANDLERS,
            invariants=[never_two_at_once],
        )


def test_an_open_task_that_a_client_paused_may_stay_open() -> None:
    async def paused(cluster: SimCluster) -> None:
        task_id = await cluster.client.create_task(
            graph=graph(node("a"), node("b", after=["a"]), call("c", "noop"))
        )
        await cluster.client.pause(task_id)

    outcome = run_seed(replace(STANDARD["chain"].setup("none"), scenario=paused), 1)
    assert outcome.error is None
