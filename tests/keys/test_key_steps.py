"""One step for a key: who gets a place, who comes into the queue, who is refused."""

from typing import Any

import pytest

from flowkit._engine.key_places import FREE, Candidate, Claimant, Holder, KeyState
from flowkit.coordinator._key_work import FEW_READ, Answer, Ask, KeyWork, Step, step

NOW = 100.0


def claim(name: str, *, at: float = 0.0, priority: int = 0, limit: int = 1) -> Candidate:
    return Candidate(True, -priority, at, Claimant(name, 0, 1), limit)


def held_by(*names: str, contended: bool = False) -> KeyState:
    return KeyState(tuple(Holder(Claimant(name, 0, 1), 0.0) for name in names), contended)


def holders(done: Step) -> list[str]:
    return [holder.claimant.task_id for holder in done.state.holders]


def asked(state: KeyState, *asks: Ask, queue: Any = (), returned: Any = ()) -> Step:
    work = KeyWork(list(asks), {Claimant(name, 0, 1) for name in returned})
    return step(work, state, queue, NOW)


def answers(done: Step) -> dict[str, Answer]:
    return {ask.candidate.claimant.task_id: answer for ask, answer in done.answers}


def test_the_first_claims_by_priority_and_then_by_time_get_the_places() -> None:
    names = {"a": (2.0, 0), "b": (1.0, 0), "c": (9.0, 5)}
    asks = [
        Ask(claim(name, at=at, priority=priority, limit=2), waits=True)
        for name, (at, priority) in names.items()
    ]
    done = asked(FREE, *asks)
    assert answers(done) == {"b": Answer.GRANTED, "c": Answer.GRANTED}
    assert [ask.candidate.claimant.task_id for ask in done.unanswered] == ["a"]


def test_the_limit_of_the_claim_decides_and_no_later_claim_passes_it() -> None:
    first, second = claim("b", at=1.0, limit=1), claim("c", at=2.0, limit=5)
    done = asked(held_by("a", contended=True), queue=[first, second])
    assert holders(done) == ["a"]
    done = asked(held_by("a", contended=True), queue=[first, second], returned=["a"])
    assert holders(done) == ["b", "c"]


def test_a_claim_has_its_answer_only_when_it_is_in_the_queue() -> None:
    ask = Ask(claim("b"), waits=True)
    assert answers(asked(held_by("a"), ask)) == {}
    ask.queued = True
    done = asked(held_by("a"), ask)
    assert (answers(done), done.state.contended) == ({"b": Answer.QUEUED}, True)


def test_a_claim_that_does_not_wait_passes_none_that_waits() -> None:
    impatient = Ask(claim("x", priority=9), waits=False)
    assert answers(asked(FREE, impatient)) == {"x": Answer.GRANTED}
    assert answers(asked(held_by("a"), impatient)) == {"x": Answer.BUSY}
    full = held_by("a", contended=True)
    done = asked(full, impatient, queue=[claim("b"), claim("c")], returned=["a"])
    assert (holders(done), answers(done)) == (["b"], {"x": Answer.BUSY})


def test_a_claim_that_has_the_holder_cancelled_comes_before_all_that_wait() -> None:
    waiting = [claim(f"q{number}", at=number, priority=9) for number in range(FEW_READ)]
    cancels = claim("x", at=50.0)._replace(is_patient=False)
    full = held_by("a", contended=True)
    done = asked(full, Ask(cancels, waits=True, queued=True), queue=[*waiting])
    assert done.in_the_way == full.holders[0]
    after = asked(full, queue=[cancels, *waiting][:FEW_READ], returned=["a"])
    assert (holders(after), after.in_the_way) == (["x"], None)


def test_the_queue_of_a_key_without_free_places_is_not_read_for_new_claims() -> None:
    full = held_by("a", contended=True)

    def reads(*asks: Ask, **more: Any) -> bool:
        return KeyWork(list(asks), **more).reads_queue(full)

    assert not reads(Ask(claim("b"), waits=True), Ask(claim("c"), waits=False))
    assert reads(Ask(claim("b", limit=2), waits=True))
    assert reads(Ask(claim("b")._replace(is_patient=False), waits=True))
    assert reads(returned={Claimant("a", 0, 1)})
    assert reads(serve=True)


def test_the_queue_is_read_again_after_a_place_became_free() -> None:
    done = asked(held_by("a", contended=True), returned=["a"])
    assert (holders(done), done.state.contended, done.serve) == ([], True, True)
    done = asked(done.state)
    assert (done.state, done.serve) == (FREE, False)


def test_the_key_stays_marked_while_others_hold_it() -> None:
    done = asked(held_by("a", contended=True))
    assert done.state.contended


def test_a_claim_passes_none_that_was_not_read_from_the_queue() -> None:
    queue = [claim(f"q{number:02}", at=number, limit=99) for number in range(FEW_READ)]
    late = Ask(claim("z", at=1_000.0, limit=99), waits=True, queued=True)
    done = asked(KeyState((), contended=True), late, queue=queue)
    assert answers(done) == {"z": Answer.QUEUED}
    assert done.serve


def test_a_repeated_claim_keeps_its_place() -> None:
    done = asked(held_by("a"), Ask(claim("a"), waits=True))
    assert (answers(done), holders(done)) == ({"a": Answer.GRANTED}, ["a"])


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("waits", [True, False])
def test_a_claim_shares_the_place_of_an_ancestor(limit: int, waits: bool) -> None:
    ask = Ask(claim("child", limit=limit), waits=waits, ancestors=[("a", 0)])
    done = asked(held_by("a"), ask)
    assert (answers(done), holders(done)) == ({"child": Answer.SHARED}, ["a"])


def test_the_queue_is_read_when_a_claim_leaves_it() -> None:
    """Otherwise, the key could become free although others wait."""
    work = KeyWork(withdrawn=[claim("a")], leaves=True)
    assert work.reads_queue(KeyState(contended=True))
    assert not work.reads_queue(KeyState())
