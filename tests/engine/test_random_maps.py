"""Random events on tasks with maps: what must hold after each of them."""

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowkit._engine import (
    CancelRequested,
    ChildrenDue,
    CollectMap,
    Effect,
    Event,
    MapCollected,
    MapFailed,
    MapOpened,
    OpenMap,
    PauseRequested,
    ReadEnds,
    ResumeRequested,
    RetryRequested,
    SendCommand,
    Woke,
    advance,
    pending_effects,
)
from flowkit._records.record_parts import RecordWriter
from flowkit._records.task_records import decode_task, encode_spec, header_of
from flowkit.graph import Graph
from flowkit.graph._expanded_plan import is_undo
from flowkit.messages import NodeFailed, NodeReleased, NodeStarted, NodeStopped, NodeSucceeded
from flowkit.protocols import TaskRecord
from flowkit.task import ATTEMPTED, ENDED, IN_FLIGHT, Mark, NodeRecord
from tests.engine.drive import Play, copy_of, graph, new_task

LIMIT = 2
POLICY = {"max": 1, "backoff_sec": 5.0, "jitter": 0.0}
Word = tuple[int, int, int]


def flow(*, fails: bool, stops: bool, key: bool, undo: bool) -> Graph:
    """Return a graph with two maps, a node above and a node below. A map and the node above may be
    undone.
    """
    keyed = {"concurrency_key": "k"} if key else {}
    undone = {"undo": {"type": "undo", "retry_policy": POLICY}} if undo else {}
    on_failure = "fail" if fails else "continue"
    m = {"map": {"over": [], "max_parallel": LIMIT, "on_item_failure": on_failure}, **keyed}
    return graph(
        "a -> m",
        "m -> z",
        "m !> h",
        "b -> w",
        on_node_failure="stop" if stops else "continue",
        a=undone,
        m={**m, "retry_policy": POLICY, **undone},
        w={"map": {"over": []}, "retry_policy": POLICY, **undone},
        b=keyed,
    )


class Maps(Play):
    """A task with maps, of which everything is checked after each event."""

    def __init__(self, flow: Graph, sizes: list[int], **settings: Any) -> None:
        self._spec = encode_spec(new_task(flow).spec, flow.to_json())
        self._sizes = sizes
        super().__init__(flow, **settings)

    def do(self, event: Event) -> Any:
        before = bytes(self.task.marks)
        step = super().do(event)
        if not step.ignored and not isinstance(event, RetryRequested):
            after = self.task.marks
            assert all(after[at] == mark for at, mark in enumerate(before) if mark in ENDED)
            self._assert_repeated(event)
        self._assert_limits()
        self._assert_due()
        self._assert_restored(step.effects)
        for effect in step.effects:
            if isinstance(effect, OpenMap) and effect.index in self.task.maps:
                # This belongs to the same commit.
                self.do(ChildrenDue(effect.index, effect.attempt))
        return step

    def _assert_repeated(self, event: Event) -> None:
        """Assert that an event that comes twice moves nothing."""
        again = copy_of(self.task)
        assert not advance(again, event, now=self.now, settings=self.settings).marks or isinstance(
            event, Woke | ChildrenDue
        )

    def _assert_due(self) -> None:
        """Assert that what time alone changes is due."""
        every, due = (
            advance(self.task, Woke(due_only=due_only), now=self.now, settings=self.settings)
            for due_only in (False, True)
        )
        assert due.marks == every.marks
        assert every.wake_at is None or due.wake_at is not None
        assert every.wake_at is None or due.wake_at <= every.wake_at

    def _assert_limits(self) -> None:
        task = self.task
        for index, state in task.maps.items():
            marks = bytes(task.marks[child] for child in state.children())
            started = sum(mark in ATTEMPTED for mark in marks)
            limit = task.spec.plan.nodes[index].map.max_parallel
            assert limit is None or started <= limit
            is_open = any(mark not in ENDED for mark in marks)
            if task.marks[index] in ENDED:
                assert not is_open, "a map ends after its children"
            if is_undo(task.spec.plan, index):
                assert is_open == (task.marks[index] not in ENDED)
            elif task.marks[index] == Mark.MAPPING and not is_open:
                assert CollectMap(index, task.records[index].attempt) in pending_effects(task)
        undos = [
            at
            for at, mark in enumerate(task.marks)
            if mark in IN_FLIGHT | {Mark.DEFERRED} and is_undo(task.spec.plan, at)
        ]
        assert len(undos) <= 1
        keyed = [
            at
            for at, mark in enumerate(task.marks)
            if mark in ATTEMPTED and task.spec.plan.nodes[at].concurrency_key
        ]
        assert len(keyed) <= 1

    def _assert_restored(self, effects: list[Effect]) -> None:
        """Assert that the stored task is the same, and knows what is left to do."""
        pending = pending_effects(self.task)
        assert all(effect in pending for effect in effects if self._matters(effect))
        writer = RecordWriter(self.task, {})
        writer.changed.update(self.task.records)
        writer.changed_marks.update(range(1) if self.task.blocks else ())
        put = writer.commit(self.task, "").put
        stored = decode_task(TaskRecord(header_of(self.task), self._spec, put))
        assert (stored.marks, stored.records) == (self.task.marks, self.task.records)
        assert (stored.blocks, list(stored.maps)) == (self.task.blocks, list(self.task.maps))

    def _matters(self, effect: Effect) -> bool:
        if isinstance(effect, SendCommand):
            return self.task.marks[effect.index] == Mark.ISSUED
        if isinstance(effect, ReadEnds):
            return self.task.marks[effect.index] == Mark.MAPPING
        return isinstance(effect, OpenMap | CollectMap) and (
            self.task.marks[effect.index] == Mark.MAPPING and effect.index not in self.task.maps
        )

    # ------------------------------------------------------------ events

    def hear(self, word: Word) -> None:
        kind, place, choice = word
        if kind < 4:
            self.now += (1.0, 5.0, 10.0)[choice % 3]
            self.do(Woke(due_only=place % 2 == 0))
        elif kind < 5:
            self.do(CancelRequested(force=choice % 4 == 0))
        elif kind < 8:
            self.do(PauseRequested())
        elif kind < 12:
            self.do(ResumeRequested())
        elif kind < 15:
            chosen = None if choice % 2 else (place % len(self.task.marks),)
            self._retry(chosen, fill=choice % 5 == 0)
        else:
            self._answer(place, choice)

    def _retry(self, chosen: tuple[int, ...] | None, *, fill: bool) -> None:
        """Retry the task, unless a child of an earlier run of a map was chosen."""
        plan = self.task.spec.plan
        ids = [plan.ids[index] for index in chosen or ()]
        if all(
            plan.index.get(node_id) == index
            for node_id, index in zip(ids, chosen or (), strict=True)
        ):
            self.do(RetryRequested(chosen, fill=fill))

    def _answer(self, place: int, choice: int) -> None:
        """Answer one of the effects that are open."""
        open_nodes = [
            index
            for index, mark in enumerate(self.task.marks)
            if mark in IN_FLIGHT or mark == Mark.MAPPING
        ]
        if open_nodes:
            self._settle(open_nodes[place % len(open_nodes)], choice)

    def _settle(self, index: int, choice: int) -> None:
        record = self.task.records.get(index, NodeRecord())
        if self.task.marks[index] == Mark.MAPPING:
            self._settle_map(index, record.attempt, choice)
            return
        token = self.task.spec.token(index, record.attempt, record.handovers)
        said: dict[str, Any] = {
            "task_id": "t",
            "index": index,
            "attempt": record.attempt,
            "token": token,
            "worker_id": "w",
            "at": self.now,
        }
        kind = choice % 10
        if kind < 2:
            self.do(NodeStarted(**said))
        elif kind < 7:
            self.do(NodeSucceeded(**said, started_at=self.now, result=index))
        elif kind < 8:
            self.do(
                NodeFailed(
                    **said, started_at=self.now, reason_code="x", error="e", permanent=choice > 50
                )
            )
        elif kind < 9:
            self.do(NodeReleased(**said))
        else:
            self.do(NodeStopped(**said))

    def _settle_map(self, index: int, attempt: int, choice: int) -> None:
        state = self.task.maps.get(index)
        if is_undo(self.task.spec.plan, index):
            if any(isinstance(effect, ReadEnds) for effect in pending_effects(self.task)):
                self.reads_ends(self.task.spec.plan.ids[index], most=1 + choice % 2)
        elif choice == 99:
            self.do(MapFailed(index, attempt, "bad_map", "no list"))
        elif state is None:
            self.do(MapOpened(index, attempt, self._sizes[choice % len(self._sizes)]))
        elif not state.open:
            children = list(state.children())
            finished = [self.task.marks[child] == Mark.FINISHED for child in children]
            spec = self.task.spec.plan.nodes[index].map
            assert all(finished) or spec.on_item_failure == "continue"
            self.do(MapCollected(index, attempt, finished))

    def answer_everything(self) -> None:
        """Answer every open effect until the task ends."""
        self.do(ResumeRequested())
        for _ in range(200):
            if self.task.terminal:
                return
            for index, mark in enumerate(bytes(self.task.marks)):
                is_open = mark in IN_FLIGHT or mark == Mark.MAPPING
                if is_open and self.task.marks[index] == mark:
                    self._settle(index, 2)
            if not self.task.terminal and self.task.wake_at is not None:
                self.now = max(self.now, self.task.wake_at)
                self.do(Woke(due_only=True))
        raise AssertionError(f"not at its end: {self.task.marks!r} {self.task.status}")


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
)
@given(
    st.fixed_dictionaries({name: st.booleans() for name in ("fails", "stops", "key", "undo")}),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.sampled_from([1, 3, 512]),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 99), st.integers(0, 99)), max_size=50),
)
def test_a_task_with_maps_keeps_its_promises_and_ends(
    shape: dict[str, bool], sizes: list[int], max_in_flight: int, script: list[Word]
) -> None:
    task = Maps(flow(**shape), sizes, max_in_flight=max_in_flight)
    for word in script:
        task.hear(word)
    task.answer_everything()
