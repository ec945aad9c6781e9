"""One step for the key of a cache: who computes the result, and who gets it."""

from typing import Any

from flowkit._engine.key_places import FREE, Claimant, KeyState, Value
from flowkit.coordinator._key_work import MOST_SERVED, Answer, Ask, KeyWork, Step, step
from tests.keys.test_key_steps import NOW, answers, claim, held_by, holders

VALUE = Value("result", NOW + 1)


def asked(state: KeyState, *names: str, queue: Any = (), returned: Any = (), **more: Any) -> Step:
    asks = [Ask(claim(name), waits=True) for name in names]
    values = {Claimant(name, 0, 1): VALUE for name in returned}
    return step(KeyWork(asks, set(values), values=values, **more), state, queue, NOW)


def served(done: Step) -> list[str]:
    return [one.claimant.task_id for one in done.served]


def test_the_result_of_the_one_that_computes_it_is_stored_and_given_to_all() -> None:
    state = held_by("a", contended=True)
    done = asked(state, "c", queue=[claim("b")], returned=["a"])
    assert (done.state.value, holders(done)) == (VALUE, [])
    assert (answers(done), served(done)) == ({"c": Answer.CACHED}, ["b"])


def test_the_result_of_one_that_has_no_place_is_not_stored() -> None:
    done = asked(held_by("b"), returned=["a"])
    assert (done.state.value, holders(done)) == (None, ["b"])
    assert asked(FREE, returned=["a"]).state == FREE


def test_a_result_that_was_deleted_while_it_was_computed_is_not_stored() -> None:
    state = held_by("a", contended=True).forgotten()
    done = asked(state, queue=[claim("b")], returned=["a"])
    assert (done.state.value, holders(done), done.state.stale) == (None, ["b"], False)


def test_a_deleted_result_leaves_a_free_key() -> None:
    assert KeyState(value=VALUE).forgotten() == FREE


def test_the_next_one_computes_a_result_that_has_expired() -> None:
    done = asked(KeyState(value=Value("old", NOW)), "a")
    assert (answers(done), holders(done), done.state.value) == ({"a": Answer.GRANTED}, ["a"], None)
    assert asked(KeyState(value=Value("old", NOW)), serve=True).state == FREE


def test_the_key_stays_marked_until_all_in_its_queue_have_the_result() -> None:
    state = KeyState(contended=True, value=VALUE)
    queue = [claim(f"q{number:02}", at=number) for number in range(MOST_SERVED)]
    done = asked(state, queue=queue, serve=True, reads=MOST_SERVED)
    assert (len(served(done)), done.state.contended, done.serve) == (MOST_SERVED, True, False)
    done = step(KeyWork(withdrawn=queue, reads=MOST_SERVED), state, queue, NOW)
    assert (served(done), done.state.contended, done.serve) == ([], True, True)
    assert not asked(state, serve=True).state.contended


def test_a_claim_that_gets_the_result_keeps_the_key_marked_while_it_is_in_the_queue() -> None:
    """Otherwise, a node whose answer was lost would wait without end."""
    ask = Ask(claim("a"), waits=True, queued=True)
    for contended in (False, True):
        work = KeyWork([ask])
        done = step(work, KeyState(contended=contended, value=VALUE), (), NOW)
        assert (answers(done), done.state.contended) == ({"a": Answer.CACHED}, True)
        assert (done.placed(work, ()), done.sharing()) == ([], [])
