"""Claims of a node to compute the result for its cache key, from their questions to their ends."""

from typing import Any

from flowkit._engine import (
    AskKey,
    KeyGranted,
    KeyNamed,
    KeyQueued,
    ResultCached,
    ResultWanted,
    ReturnKey,
    pending_effects,
)
from flowkit._engine.key_places import Candidate
from flowkit._records.key_records import candidate_of
from flowkit.task import WHOLE_TASK, KeyClaim, Mark
from tests.engine.drive import NOON, STEADY, Play, graph

CACHED = {"cache": {"key": "x", "ttl_sec": 60}, "retry_policy": STEADY}
KEY = "role:work"
NAMED, GRANTED = KeyNamed(0, 1, KEY, kind="cache"), KeyGranted(0, 1, kind="cache")
QUEUED, TAKEN = KeyQueued(0, 1, "cache"), ResultCached(0, 1, KEY, NOON, "stored")
WANTED = ResultWanted(0, 1)
RATE = {"rate_limit": {"key": "r", "limit": 1, "per_sec": 1}}


def computing() -> Play:
    play = Play(graph("n", n=CACHED), keys=False)
    play.do(NAMED)
    play.do(GRANTED)
    return play


def state(play: Play) -> str:
    claim = play.record("n").cache
    assert isinstance(claim, KeyClaim)
    return claim.state


def test_a_node_that_is_being_cancelled_computes_until_that_is_known_to_have_ended() -> None:
    play = computing()
    play.starts("n")
    play.cancel()
    play.later(1_000)
    assert (play.task.marks[0], state(play)) == (Mark.CANCELLING, "held")
    play.stops("n")
    assert (play.task.marks[0], state(play)) == (Mark.CANCELLED, "over")


def test_a_node_that_is_retried_asks_again() -> None:
    play = computing()
    [returned] = [one for one in play.fails("n").effects if isinstance(one, ReturnKey)]
    assert not returned.stores
    assert AskKey(0, 2, "cache") in play.later(10).effects


def test_a_finished_node_gives_its_result_again_after_a_crash() -> None:
    play = computing()
    [returned] = [
        one for one in play.succeeds("n", result="r").effects if isinstance(one, ReturnKey)
    ]
    [again] = [one for one in pending_effects(play.task) if isinstance(one, ReturnKey)]
    for effect in (returned, again):
        assert (effect.result, effect.stores) == ("r", True)


def test_an_answer_after_the_end_of_the_claim_is_given_back() -> None:
    for answer, given_back in ((GRANTED, "held"), (TAKEN, "queued")):
        play = Play(graph("n", n=CACHED), keys=False)
        play.do(NAMED)
        play.do(QUEUED)
        play.cancel()
        step = play.do(answer)
        stale = KeyClaim(KEY, 1, given_back, NOON)
        assert (step.ignored, step.effects) == (True, [ReturnKey(0, stale, "cache")])


def test_an_answer_to_a_claim_that_is_held_changes_nothing() -> None:
    for answer in (GRANTED, TAKEN, QUEUED, NAMED):
        step = computing().do(answer)
        assert (step.ignored, step.effects) == (True, [])


def test_a_key_that_cannot_be_evaluated_fails_the_node() -> None:
    play = Play(graph("n", n=CACHED), keys=False)
    play.do(KeyNamed(0, 1, error="no such name", kind="cache"))
    record = play.record("n")
    assert play.task.marks[0] == Mark.FAILED
    assert (record.reason_code, record.error) == ("bad_expression", "no such name")


def test_a_node_evaluates_its_key_once_in_each_run() -> None:
    play = computing()
    play.fails("n")
    play.later(10)
    assert play.record("n").cache == KeyClaim(KEY, 2, "asked", play.now)
    play.cancel()
    play.retry()
    assert play.record("n").cache == KeyClaim("", 3, "unnamed", play.now)


def test_a_place_that_was_not_used_gives_the_next_run_no_key() -> None:
    play = Play(graph("n", n=CACHED), keys=False)
    play.do(NAMED)
    play.pause()
    play.do(GRANTED)
    assert state(play) == "unused"
    play.cancel()
    play.retry()
    assert play.record("n").cache == KeyClaim("", 2, "unnamed", play.now)


def test_a_node_asks_for_its_result_then_for_its_key_and_then_for_its_rate() -> None:
    play = Play(graph("n", n=CACHED | RATE | {"concurrency_key": "k"}), keys=False)
    assert play.do(NAMED).effects == [AskKey(0, 1, "cache")]
    assert play.do(GRANTED).effects == [AskKey(0, 1, "key")]
    assert play.do(KeyGranted(0, 1)).effects == [AskKey(0, 1, "rate")]


def waiting_for_its_key(**fields: Any) -> Play:
    play = Play(graph("n", n=CACHED | {"concurrency_key": "k"} | fields), keys=False)
    play.do(NAMED)
    play.do(GRANTED)
    play.do(KeyQueued(0, 1))
    return play


def test_a_node_that_waits_for_its_key_lets_the_next_one_compute_a_wanted_result() -> None:
    play = waiting_for_its_key()
    before = play.record("n")
    play.now += 5
    assert play.do(WANTED).effects == [
        ReturnKey(0, before.cache, "cache", begun=False),
        ReturnKey(0, before.key, "key", begun=False),
        AskKey(0, 2, "cache"),
    ]
    assert play.record("n").cache == KeyClaim(KEY, 2, "asked", NOON + 5)
    assert play.do(KeyGranted(0, 1)).ignored
    assert play.do(KeyGranted(0, 2, kind="cache")).effects == [AskKey(0, 2)]
    assert play.record("n").key == KeyClaim("k", 2, "asked", NOON)
    play.do(KeyGranted(0, 2))
    assert play.task.marks[0] == Mark.ISSUED


def test_a_node_that_lets_the_next_one_compute_asks_for_nothing_while_its_task_is_paused() -> None:
    play = waiting_for_its_key()
    play.pause()
    assert len(play.do(WANTED).effects) == 2
    assert play.task.marks[0] == Mark.READY
    play.resume()
    assert play.record("n").cache == KeyClaim(KEY, 2, "asked", NOON)


def test_a_node_that_runs_or_waits_for_its_rate_computes_a_wanted_result_itself() -> None:
    running, waits_for_rate, asking = (
        computing(),
        waiting_for_its_key(**RATE),
        waiting_for_its_key(),
    )
    running.starts("n")
    waits_for_rate.do(KeyGranted(0, 1))
    waits_for_rate.do(KeyQueued(0, 1, "rate"))
    asking.do(WANTED)
    for play in (running, waits_for_rate, asking):
        step = play.do(WANTED)
        assert (step.ignored, step.effects) == (True, [])


def test_nodes_that_run_in_the_place_of_a_key_compute_results_first_and_in_turn() -> None:
    def candidate(play: Play) -> Candidate:
        claim = play.record("n").cache
        assert isinstance(claim, KeyClaim)
        return candidate_of(play.task, 0, claim, "cache")

    alone = computing()
    in_place = Play(graph("n", n=CACHED | {"priority": 3}, concurrency={"key": "t"}), keys=False)
    in_place.do(KeyGranted(WHOLE_TASK, 1))
    in_place.do(NAMED)
    assert candidate(in_place) < candidate(alone)
    assert candidate(in_place)[:3] == (False, 0, NOON)
