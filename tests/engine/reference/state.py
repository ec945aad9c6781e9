"""State of the reference: the nodes of a task, and what has happened to each of them."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from flowkit._engine import EngineSettings, SentCommand, SignalReceived
from flowkit.graph import NodeSpec, Plan
from flowkit.task import NodeStatus, Resolution, TaskStatus

UNBEGUN = ("waiting", "checking", "ready")
IN_FLIGHT = ("issued", "running", "cancelling")
ENDED = ("finished", "failed", "cancelled", "skipped")
SHOWN = {
    **dict.fromkeys((*UNBEGUN, "issued", "held"), "queued"),
    "mapping": "running",
    "closing": "cancelling",
}
"""Status of each state that has another name."""


@dataclass(eq=False)
class Node:
    """The events of a node since it was submitted or last retried."""

    index: int
    """Place in the graph; that of its map for a child."""
    item: int | None = None
    """Number of its item, for a child of a map."""
    state: str = "waiting"
    """A map is ``mapping`` from its start on, and ``closing`` when it is stopped."""
    tokens: list[str] = field(default_factory=list)
    """The tokens of every attempt of this run."""
    present: str | None = None
    number: tuple[int, int] = (0, 0)
    """Attempt number and handovers of the current attempt."""
    sent: bool = False
    place: tuple[int, int] | None = None
    made: int = 0
    has_batch: bool = False
    first_issued_at: float | None = None
    issued_at: float = 0.0
    began_at: float = 0.0
    heard_at: float | None = None
    retry_at: float = 0.0
    attempt: int = 0
    """Attempt of a control node, over all runs."""
    cancel_by: float = 0.0
    worker: str | None = None
    result: Any = None
    reason: str | None = None
    """Reason code of its failure."""
    starved: bool = False
    """It was skipped because its data will never come: a node above it failed."""
    resolution: Resolution | None = None
    """Outcome that an operator has chosen for it."""
    owed_nothing: bool = False
    """It was stopped because its parents ended without data, so it counts as skipped."""
    pulled: bool = False
    """It finished, and its batches came from its parents."""
    required: bool = False
    """It was chosen for a retry, or had a result when a retry reset it. So it is not stopped as
    unneeded.
    """
    until: float | None = None
    """It waits until then, or has begun and its arguments are not known (None)."""
    signal: str | None = None
    """Name of the signal that it waits for."""
    excused: bool = False
    """It failed in an earlier run and was not chosen for this one: it stops no other node."""
    children: list["Node"] | None = None
    """Children of a map; None while its items are not known."""
    failing: str | None = None
    """Reason why a map fails when its children have ended."""
    read: int = 0
    """Artifacts that a map over artifacts has read."""
    read_all: bool = False
    """Its parent had ended when it read the last one."""
    life: int = 0
    """Number of the last time that the node started from nothing. It is never the same for two
    nodes, so each child task belongs to one life.
    """
    created: bool = False
    """Its child task is stored."""
    overdue: bool = False
    """Its child task is stopped because the attempt took too long."""
    round: int = 0
    """Current round of a loop."""
    round_begun: bool = False
    """The round has a child task, and its condition is not checked any more."""
    previous: Any = None
    """Result of the round before."""

    def is_issued(self, command: SentCommand) -> bool:
        number = command.attempt, command.handovers
        return self.state == "issued" and self.number == number

    def end(self, how: str) -> None:
        """End the node, and with a map all children that have not ended: none of them runs."""
        self.state = how
        for child in self.children or ():
            if child.state not in ENDED:
                child.state = "cancelled"


class State:
    """A task. The fields below ``now`` are about the current event."""

    def __init__(self, plan: Plan, *, settings: EngineSettings, deadline_sec: float | None) -> None:
        self.plan = plan
        self.settings = settings
        self.deadline_sec = deadline_sec
        self._lives = count(1)
        self.nodes = [Node(index, life=self.new_life()) for index in range(len(plan.nodes))]
        self.opened: list[int] = []
        """Maps, in the order in which they got their first children."""
        self.later: dict[str, list[int]] = {"undo": [], "finally": []}
        if plan.ends is not None:
            self.later = {"undo": [*plan.ends.undos], "finally": [*plan.ends.final]}
        self.phase = "main"
        for index in self.later_nodes():
            self.nodes[index].state = "held"
        self.ended_by: int | None = None
        """The node with which task.end ended the task."""
        self.kept: list[SignalReceived] = []
        """The signals that no node has taken, the oldest first."""
        self.signal_ids: set[str | None] = set()
        self.finishes: list[int] = []
        """The finished nodes of the main phase, in the order of their ends."""
        self.status = TaskStatus.QUEUED
        self.outcome: TaskStatus | None = None
        self.paused = False
        self.delayed_at: float | None = None
        """Time at which the evaluation of the output was delayed."""
        self.begun = False
        self.submitted = False
        self.deadline_at: float | None = None
        self.now = 0.0
        self.deadline_passed = False
        self.unnamed: list[Node] = []
        """Nodes with an issued attempt whose token is not known yet."""
        self.after: list[tuple[str, Node]] = []
        """Expected effects for nodes without reports and for lost commands."""
        self.just_begun: set[Node] = set()
        """Maps that began with the current event."""
        self.followed: set[Node] = set()
        """Nodes whose child tasks must be brought in line with them."""

    def new_life(self) -> int:
        return next(self._lives)

    # ------------------------------------------------------------ nodes

    def children(self) -> list[Node]:
        """Return the children of all maps."""
        return [child for index in self.opened for child in self.nodes[index].children or ()]

    def everyone(self) -> list[Node]:
        """Return the nodes of the graph, then the children of its maps."""
        return self.nodes + self.children()

    def spec(self, node: Node) -> NodeSpec:
        return self.plan.nodes[node.index]

    def is_map(self, node: Node) -> bool:
        return node.item is None and self.spec(node).map is not None

    def runs_child_task(self, node: Node) -> bool:
        """Return whether a node is a sub-flow or a loop. Of a mapped sub-flow, each child is."""
        return self.spec(node).type in ("subflow", "loop") and not self.is_map(node)

    def is_control(self, node: Node) -> bool:
        return node.index in self.plan.controls

    def io(self, node: Node) -> dict[str, Any]:
        """Return the arguments of a control node."""
        return self.spec(node).io.model_extra or {}

    def later_nodes(self) -> list[int]:
        return [*self.later["undo"], *self.later["finally"]]

    def undone(self) -> dict[int, int]:
        """Return the node of each undo."""
        ids = {node.node_id: index for index, node in enumerate(self.plan.nodes)}
        return {
            index: ids[self.plan.nodes[index].node_id.removesuffix("~undo")]
            for index in self.later["undo"]
        }

    def stopping(self) -> bool:
        """Return whether the main phase is being stopped."""
        return self.outcome is not None and self.phase == "main"

    def status_of(self, node: Node) -> NodeStatus:
        return NodeStatus(SHOWN.get(node.state, node.state))
