"""The checker accepts a correct history, and each of its rules catches its violation."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from flowkit import TaskEvent, TaskView
from flowkit.task import Artifact, NodeView
from tests.chaos.checker import check, describe, late_executions
from tests.chaos.clients import outcome
from tests.chaos.evidence import Evidence, Stored
from tests.chaos.flows import make

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT = NOON.timestamp()
ID = "submission"
TASK = "task"


class History:
    """Evidence of one correct task, which tests can falsify."""

    def __init__(self, flow: str, *, by_key: bool = False) -> None:
        self.flow = make(flow, 7)
        self.workers: list[dict[str, Any]] = []
        self.artifacts: list[Artifact] = []
        self.events = [self.event(None, "queued")]
        self.nodes = {spec["node_id"]: self._finished(spec) for spec in self.flow.graph["nodes"]}
        self.add_event(None, "finished")
        self.vars = {} if self.flow.increments is None else {"count": self.flow.increments}
        self.status = "finished"
        self.clients: list[dict[str, Any]] = []
        self.client(
            "submitting", flow=flow, number=7, by_key=by_key, twice=False, verb=self.flow.verb
        )
        self.client("submitted", task=TASK, answers=[TASK])
        self.client("outcome", task=TASK, view=outcome(self.view))

    def event(
        self, node_id: str | None, status: str, seq: int = 1, data: Any = None, sec: float = 0
    ) -> TaskEvent:
        at = datetime.fromtimestamp(AT + sec, UTC)
        return TaskEvent(
            seq=seq, at=at, task_id=TASK, node_id=node_id, kind="status", status=status, data=data
        )

    def add_event(self, node_id: str | None, status: str, data: Any = None) -> None:
        self.events.append(self.event(node_id, status, len(self.events) + 1, data))

    def client(self, what: str, sec: float = 0, **fields: Any) -> None:
        self.clients.append({"at": AT + sec, "what": what, "pid": 1, "submission": ID, **fields})

    def worker(
        self, node_id: str, what: str, sec: float = 0, attempt: int = 1, **fields: Any
    ) -> None:
        ids = {
            "task": TASK,
            "node": node_id,
            "attempt": attempt,
            "execution": f"{node_id}.{attempt}",
        }
        self.workers.append({"at": AT + sec, "what": what, "pid": 2, **ids, **fields})

    def _finished(self, spec: dict[str, Any]) -> NodeView:
        node_id = spec["node_id"]
        for status in ("queued", "running", "finished"):
            self.add_event(node_id, status)
        fields: dict[str, Any] = {
            "node_id": node_id,
            "type": spec["type"],
            "status": "finished",
            "attempt": 1,
        }
        if spec["type"] == "coordinator_fn":
            return NodeView(**fields, result={"key": "count", "by": 1})
        self.worker(node_id, "began")
        metrics = {}
        if self.flow.sums:
            count, total = self.flow.sums[node_id]
            for number in range(count):
                value = total if number == 0 else 0
                self.worker(node_id, "batch", uid=str(number), value=value)
                self.artifacts.append(
                    Artifact(
                        task_id=TASK,
                        node_id=node_id,
                        uid=str(number),
                        partial=True,
                        meta={"value": value},
                        created_at=NOON,
                    )
                )
            metrics = {"batches": count, "sum": total}
        result = {"value": self._value(node_id), "execution": f"{node_id}.1"}
        self.worker(node_id, "ended", result=result)
        return NodeView(**fields, result=result, metrics=metrics)

    def _value(self, node_id: str) -> int:
        spec = next(spec for spec in self.flow.graph["nodes"] if spec["node_id"] == node_id)
        if spec["type"] not in ("work", "block"):
            return 0
        return int(spec["io"]["input_inline"]["value"]) + sum(map(self._value, spec["depends_on"]))

    def change(self, node_id: str, **fields: Any) -> None:
        self.nodes[node_id] = self.nodes[node_id].model_copy(update=fields)

    @property
    def view(self) -> TaskView:
        return TaskView(
            id=TASK,
            pipeline=None,
            status=self.status,
            params={},
            vars=self.vars,
            labels={"submission": ID},
            nodes=self.nodes,
            created_at=NOON,
        )

    def evidence(self, stored: int = 1) -> Evidence:
        return Evidence(
            [Stored(self.view, self.events, self.artifacts)] * stored, self.clients, self.workers
        )


@pytest.mark.parametrize(
    "flow", ["chain", "fan", "stream", "flaky", "counted", "repaired", "cancelled", "paused"]
)
def test_a_history_that_is_as_promised_passes(flow: str) -> None:
    assert check(History(flow).evidence()) == []


def test_a_confirmed_task_that_is_not_in_the_store_is_lost() -> None:
    assert [violation.rule for violation in check(History("chain").evidence(stored=0))] == [
        "nothing is lost"
    ]


def test_one_that_was_not_confirmed_may_be_missing() -> None:
    history = History("chain")
    del history.clients[1:]
    assert check(history.evidence(stored=0)) == []


def test_a_task_that_is_stored_twice_is_found() -> None:
    assert "nothing is stored twice" in {
        violation.rule for violation in check(History("chain").evidence(stored=2))
    }


def test_a_task_that_no_client_submitted_is_found() -> None:
    history = History("chain")
    history.clients.clear()
    assert [violation.rule for violation in check(history.evidence())] == ["no task is invented"]


def still_running(history: History) -> None:
    history.status = "running"
    history.events.clear()
    history.clients.pop()


def failed(history: History) -> None:
    history.status = "failed"
    history.events.pop()
    history.add_event(None, "failed")
    history.clients.pop()


def saw_another_status(history: History) -> None:
    history.clients[-1]["view"] = history.clients[-1]["view"] | {"status": "failed"}


def answered_with_another_id(history: History) -> None:
    history.clients[1]["answers"] = [TASK, "another"]


def finished_twice(history: History) -> None:
    history.add_event("n0", "finished")


def ran_again_after_its_end(history: History) -> None:
    history.add_event("n0", "running")


def an_event_is_missing(history: History) -> None:
    del history.events[2]


def never_executed(history: History) -> None:
    history.workers = [line for line in history.workers if line["node"] != "n1"]


def executed_with_another_result(history: History) -> None:
    history.change("n1", result=history.nodes["n1"].result | {"execution": "forged"})  # type: ignore[operator]
    history.clients.pop()


def wrong_value(history: History) -> None:
    history.change("n1", result={"value": -1, "execution": "n1.1"})
    history.worker("n1", "ended", result={"value": -1, "execution": "n1.1"})
    history.clients.pop()


def too_many_attempts(history: History) -> None:
    history.change("n1", attempt=1000)


def begun_without_having_been_issued(history: History) -> None:
    history.worker("n1", "began", attempt=2)


@pytest.mark.parametrize(("pid", "may_run"), [(2, True), (3, False)])
def test_a_cancelled_node_may_have_run_in_the_segment_of_its_parent(
    pid: int, may_run: bool
) -> None:
    history = History("chain")
    history.change("n1", status="cancelled", attempt=0)
    for line in history.workers:
        if line["node"] == "n0":
            line["pid"] = pid
    found = {(one.rule, one.node_id) for one in check(history.evidence())}
    assert (("only issued attempts run", "n1") not in found) == may_run


def raised_something_else(history: History) -> None:
    history.client("unexpected", error="KeyError")


@pytest.mark.parametrize(
    ("falsify", "rule"),
    [
        (still_running, "every task ends in an allowed status"),
        (failed, "every task ends in an allowed status"),
        (saw_another_status, "clients saw what is stored"),
        (answered_with_another_id, "clients saw what is stored"),
        (finished_twice, "each end is recorded once"),
        (ran_again_after_its_end, "each end is recorded once"),
        (an_event_is_missing, "each end is recorded once"),
        (never_executed, "finished nodes were executed"),
        (executed_with_another_result, "finished nodes were executed"),
        (wrong_value, "results follow from the graph"),
        (too_many_attempts, "attempts are bounded"),
        (begun_without_having_been_issued, "only issued attempts run"),
        (raised_something_else, "verbs raise only documented errors"),
    ],
)
def test_each_rule_catches_what_it_is_there_for(
    falsify: Callable[[History], None], rule: str
) -> None:
    history = History("chain")
    falsify(history)
    evidence = history.evidence()
    violations = check(evidence)
    assert {violation.rule for violation in violations} == {rule}
    assert ID in describe(violations[0], evidence, [])


def counted_twice(history: History) -> None:
    history.change("left", metrics={**history.nodes["left"].metrics, "sum": 1})
    history.clients.pop()


def stored_twice(history: History) -> None:
    history.artifacts.append(history.artifacts[0])


def stored_and_not_worked_on(history: History) -> None:
    history.workers = [
        line for line in history.workers if line["what"] != "batch" or line["uid"] != "0"
    ]


def a_batch_is_missing(history: History) -> None:
    history.artifacts.pop()


@pytest.mark.parametrize(
    "falsify", [counted_twice, stored_twice, stored_and_not_worked_on, a_batch_is_missing]
)
def test_batches_that_do_not_add_up_are_found(falsify: Callable[[History], None]) -> None:
    history = History("stream")
    falsify(history)
    assert {violation.rule for violation in check(history.evidence())} == {
        "each batch is stored and counted once"
    }


def test_a_function_that_took_effect_twice_is_found() -> None:
    history = History("counted")
    history.vars["count"] += 1
    history.clients.pop()
    assert {violation.rule for violation in check(history.evidence())} == {
        "functions take effect once"
    }


def test_what_was_retried_may_end_a_second_time() -> None:
    history = History("repaired")
    history.events.pop()
    history.events[-1] = history.event("last", "cancelled", seq=len(history.events))
    history.add_event(None, "failed")
    history.add_event("last", "queued", {"retry": True})
    for node_id in ("last", None):
        history.add_event(node_id, "running")
        history.add_event(node_id, "finished")
    assert check(history.evidence()) == []


def test_an_attempt_that_was_handed_back_may_have_run() -> None:
    history = History("chain")
    history.worker("n1", "began", attempt=2)
    history.events.insert(5, history.event("n1", "queued", data={"released_by": "worker-2"}))
    history.events = [
        event.model_copy(update={"seq": seq}) for seq, event in enumerate(history.events, 1)
    ]
    assert check(history.evidence()) == []


def test_executions_that_began_after_the_end_are_reported_with_their_delay() -> None:
    history = History("chain")
    history.worker("n1", "began", sec=12)
    assert late_executions(history.evidence()) == [12]
