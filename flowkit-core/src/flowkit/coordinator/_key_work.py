"""One step of the work on a key, a rate or the key of a cache: which claims have a place, are in
the queue, are refused, or get the value that is stored.

Each step changes the record of the key alone, and is valid if that record is stored in place of the
one that was read. A claim comes into the queue before the step that answers it, and a key with
claims in its queue is marked as ``contended``. So a step that gives a place back either reads the
queue, or conflicts with the step that marks the key. The mark is removed with the record, when the
key has neither holders nor claims: then each new claim gets a place itself, which conflicts.
"""

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum, auto

from flowkit._engine.key_places import (
    FREE,
    Candidate,
    Claimant,
    Holder,
    KeyState,
    Value,
    admit,
    none_begun,
)

FEW_READ = 3
"""Claims that are read from the queue for a step at first. Most steps give one place."""
MOST_SERVED = 20
"""Claims that are read for a step that gives all of them the value of the key of a cache."""
MOST_READ = 100
"""Claims that are read for a step at most, after steps in which all that were read got places."""


class Answer(Enum):
    """Answer to a claim."""

    GRANTED = auto()
    SHARED = auto()
    QUEUED = auto()
    BUSY = auto()
    CACHED = auto()


@dataclass(eq=False, slots=True)
class Ask:
    """Claim that asks for a place."""

    candidate: Candidate
    waits: bool
    """Whether it waits for a place if none is free."""
    ancestors: Collection[tuple[str, int]] = ()
    """The task of a node, the nodes that run that task, and the tasks above it."""
    enters: bool = False
    """It is to get a record in the queue."""
    queued: bool = False
    """It has a record in the queue."""

    def shares(self, state: KeyState) -> bool:
        """Return whether the task of a node, a node that runs it, or a task above it has a place.
        Then the claim takes none of its own.
        """
        holders = state.holders
        return bool(holders) and any(one.claimant[:2] in self.ancestors for one in holders)


@dataclass(slots=True)
class KeyWork:
    """Work to be done for a key."""

    asks: list[Ask] = field(default_factory=list)
    returned: set[Claimant] = field(default_factory=set)
    begun: set[Claimant] = field(default_factory=set)
    """Those of them whose attempts may have begun."""
    values: dict[Claimant, Value] = field(default_factory=dict)
    """Results for the key of a cache, of claims that are returned."""
    withdrawn: list[Candidate] = field(default_factory=list)
    """Claims that are to be taken out of their batches in the queue."""
    maybe_queued: list[Candidate] = field(default_factory=list)
    """Claims that are to be taken out, too, if the key is contended."""
    leaves: bool = False
    """Claims are withdrawn that wait in the queue."""
    serve: bool = False
    """Look whether a claim in the queue may have a place."""
    reads: int = FEW_READ
    """Claims that are to be read from the queue."""
    unsure: set[Candidate] = field(default_factory=set)
    """Claims that got places in a step, until it is known whether that is stored."""
    due_at: float | None = None
    """Time for the next check of the holders, if that is to be stored."""

    @property
    def needs_step(self) -> bool:
        """Whether there is more to do than to take claims out of their batches."""
        return bool(
            self.asks or self.returned or self.serve or self.leaves or self.due_at is not None
        )

    @property
    def changes_queue(self) -> bool:
        """Whether claims have come into the queue, or are withdrawn from it."""
        return self.leaves or any(ask.queued for ask in self.asks)

    def reads_queue(self, state: KeyState) -> bool:
        """Return whether the queue matters: the key is contended, and a claim may have a place or
        leaves the queue, or the first one without a place may have a holder cancelled.
        """
        held = len(state.holders)
        return state.contended and bool(
            self.returned
            or self.serve
            or self.leaves
            or any(
                not one.candidate.is_patient or one.candidate.fits(held, begun=0)
                for one in self.asks
            )
        )

    def add(self, other: "KeyWork") -> None:
        """Add work that came later."""
        self.asks += other.asks
        self.returned |= other.returned
        self.begun |= other.begun
        self.values |= other.values
        self.withdrawn += other.withdrawn
        self.maybe_queued += other.maybe_queued
        self.leaves = self.leaves or other.leaves
        self.serve = self.serve or other.serve
        self.reads = max(self.reads, other.reads)
        self.unsure |= other.unsure
        self.due_at = self.due_at if other.due_at is None else other.due_at


@dataclass(slots=True)
class Step:
    """Outcome of one step."""

    state: KeyState
    admitted: Sequence[Candidate] = ()
    """Claims that have a place."""
    served: Sequence[Candidate] = ()
    """Claims in the queue that get the value, without those that ask. All of them leave the queue
    when they know it.
    """
    answers: list[tuple[Ask, Answer]] = field(default_factory=list)
    waiting: Candidate | None = None
    """The next claim that waits for a place, if it was read."""
    unanswered: list[Ask] = field(default_factory=list)
    """Claims that must come into the queue first."""
    serve: bool = False
    """The queue is to be read again: there may be claims that this step has not seen."""
    reads: int = FEW_READ
    """Claims that are to be read then."""
    in_the_way: Holder | None = None
    """The oldest holder, if the first claim without a place does not wait patiently."""
    needs_proof: bool = False
    """The step counts only if the state that was read is known to be the last one."""

    def placed(self, work: KeyWork, queue: Sequence[Candidate]) -> list[Candidate]:
        """Return the claims in the queue that have a place, of which the first ones were read."""
        found = {
            ask.candidate for ask, given in self.answers if ask.queued and given is Answer.GRANTED
        }
        if queue and self.admitted:
            found.update({*self.admitted}.intersection(queue))
        found.update(one for one in work.unsure if self.state.holds(one.claimant))
        return sorted(found)

    def sharing(self) -> list[Candidate]:
        """Return the claims in the queue that need no place of their own."""
        return [
            ask.candidate for ask, answer in self.answers if ask.queued and answer is Answer.SHARED
        ]


def step(
    work: KeyWork,
    state: KeyState,
    queue: Sequence[Candidate],
    now: float,
    begun: Callable[[float], int] = none_begun,
) -> Step:
    """Return what follows from the work on a key with this state. ``queue`` are the first claims in
    its queue; empty if the key is not contended. ``begun`` counts the attempts that began in the
    last seconds.
    """
    whole = len(queue) < work.reads
    present: Set[Candidate] = _present(work, queue) if queue else set()
    kept = state.after(work.returned, work.values, now)
    if kept.value is not None:
        return _served(work, kept, present, whole=whole)
    asking = {ask.candidate for ask in work.asks if ask.waits and not ask.shares(kept)}
    if asking and not whole:
        asking = {one for one in asking if one <= queue[-1]}
    after, admitted, left = admit(kept, present | asking if present else asking, now, begun)
    done = Step(after, admitted, waiting=left[0] if left else None)
    has_others = bool(left) or not whole
    for ask in work.asks:
        _answer(done, ask, has_others, now)
    if left and not left[0].is_patient:
        done.in_the_way = min(after.holders, key=lambda holder: holder.since)
    done.needs_proof = bool(done.answers or work.returned or work.serve or done.in_the_way)
    fewer = len(done.state.holders) < len(state.holders)
    done.serve = state.contended and (fewer or not (whole or left))
    if done.serve and not (whole or left):
        done.reads = min(2 * work.reads, MOST_READ)
    used = bool(state.holders or done.state.holders or done.state.begun)
    idle = whole and not (used or present or done.unanswered)
    if idle or done.state.is_unused:
        done.state = FREE
    return done


def _present(work: KeyWork, queue: Sequence[Candidate]) -> Set[Candidate]:
    """Return the claims that are still in the queue."""
    gone = {one.claimant for one in work.withdrawn} | work.returned
    return {one for one in queue if one.claimant not in gone}


def _served(work: KeyWork, state: KeyState, present: Set[Candidate], *, whole: bool) -> Step:
    """Answer all claims with the value that is stored. Those in the queue stay there until they
    know it: the answers may be lost, and a node that has waited does not ask again.
    """
    done = Step(state, answers=[(ask, Answer.CACHED) for ask in work.asks], needs_proof=True)
    done.served = sorted(present - {ask.candidate for ask in work.asks})
    contended = not whole or bool(present) or any(ask.queued for ask in work.asks)
    done.state = state._replace(contended=contended, left=state.left if contended else ())
    if not whole and (not present or work.reads < MOST_SERVED):
        done.serve, done.reads = True, MOST_SERVED
    return done


def _answer(done: Step, ask: Ask, has_others: bool, now: float) -> None:
    """Answer a claim. One that does not wait passes none that does."""
    if done.state.holds(ask.candidate.claimant):
        done.answers.append((ask, Answer.GRANTED))
    elif ask.shares(done.state):
        done.answers.append((ask, Answer.SHARED))
    elif not ask.waits:
        admitted: Sequence[Candidate] = ()
        if not has_others:
            done.state, admitted, _ = admit(done.state, [ask.candidate], now)
            done.admitted = [*done.admitted, *admitted]
        done.answers.append((ask, Answer.GRANTED if admitted else Answer.BUSY))
    elif ask.queued:
        done.state = done.state._replace(contended=True)
        done.answers.append((ask, Answer.QUEUED))
    else:
        done.unanswered.append(ask)
