"""Answers to many claims at a time, and what they cost."""

from flowkit._engine import KeyGranted, KeyQueued, KeysAnswered
from flowkit._engine.key_places import FREE, Candidate, Claimant
from flowkit._records.key_records import key_change
from flowkit.coordinator._key_store import KeyStore, Known
from flowkit.coordinator._key_work import Ask, KeyWork, step
from flowkit.task import TaskStatus
from flowkit_testing import Cluster, InMemoryStore
from tests.engine.drive import NOON, STEADY, Play, effects, graph
from tests.hooked_store import HookedStore
from tests.keys.test_nodes_with_keys import Ledger, keyed

KEYED = {"concurrency_key": "k", "retry_policy": STEADY}
BOTH = KeysAnswered([KeyGranted(0, 1), KeyQueued(1, 1)])


def asking() -> Play:
    """Return a task of which two nodes have asked for places of their keys."""
    return Play(graph("a", "b", a=KEYED, b=KEYED), keys=False)


def test_answers_to_several_claims_have_the_same_effect_as_one_after_the_other() -> None:
    together, apart = asking(), asking()
    found = effects(together.do(BOTH))
    assert found == [line for one in BOTH.answers for line in effects(apart.do(one))]
    assert found == ["run a"]
    assert (together.status("a"), together.status("b")) == ("queued", "deferred")
    assert together.task == apart.task


def test_answers_are_ignored_if_all_of_them_come_too_late() -> None:
    play = asking()
    play.do(BOTH.answers[0])
    assert not play.do(BOTH).ignored
    assert play.status("b") == "deferred"
    assert play.do(BOTH).ignored


def test_a_place_that_comes_too_late_among_others_is_given_back() -> None:
    play = asking()
    play.resolve("a", "skipped")
    late = play.do(KeysAnswered([KeyGranted(0, 1), KeyGranted(1, 1)]))
    assert effects(late) == ["return the key of a", "run b"]


class Reads(HookedStore):
    """A store that notes what kinds of records are read."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []

    async def before_read(self, kind: str) -> None:
        self.kinds.append(kind)


async def test_a_key_without_a_holder_is_taken_and_given_back_without_a_read() -> None:
    store = Reads()
    async with Cluster(store=store, handlers=[Ledger(0).handlers["work"]]) as cluster:
        await cluster.clock.sleep(1)
        store.kinds.clear()
        view = await cluster.run(keyed("a"))
        assert view.status is TaskStatus.FINISHED
    assert not {"key", "key_queue"} & {*store.kinds}
    assert not await store.records.scan("key")


async def test_a_place_that_another_coordinator_has_given_is_refused_and_the_key_read() -> None:
    async with InMemoryStore() as store:
        first, second = KeyStore("key", store), KeyStore("key", store)
        assert await refused(first, Claimant("t1", 0, 1)) == set()
        assert await refused(second, Claimant("t2", 0, 1)) == {"k"}
        assert second.states(["k"]) == {}
        known = await second.read(["k"])
    assert [holder.claimant.task_id for holder in known["k"].state.holders] == ["t1"]


async def refused(keys: KeyStore, claimant: Claimant) -> set[str]:
    """Ask for a place of a key that seems to be free, and return the keys that are refused."""
    known = keys.states(["k"])["k"]
    assert known == Known(FREE, "")
    ask = Ask(Candidate(True, 0, NOON, claimant, 1), waits=True)
    done = step(KeyWork([ask]), known.state, (), NOON)
    change = key_change("k", done.state, known.revision, op_id=keys.new_id(), due_at=NOON)
    return await keys.change({"k": change}, {"k": done}, [])
