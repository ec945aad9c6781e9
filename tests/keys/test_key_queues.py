"""Queues of keys: batches of claims, which coordinators keep in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from zlib import crc32

import pytest

from flowkit._engine.key_places import Candidate, Claimant, Holder, KeyState
from flowkit._records.key_queues import MOST_OTHERS, KeyQueue, read_queue
from flowkit._records.key_records import (
    Batch,
    key_change,
    key_state,
    new_batches,
    queue_batch,
    queue_record,
)
from flowkit.coordinator._key_store import KeyStore
from flowkit.coordinator._key_work import KeyWork
from flowkit.errors import StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import TaskStatus
from flowkit_testing import Cluster, InMemoryStore
from tests.hooked_store import HookedStore
from tests.keys.test_nodes_with_keys import Ledger, finish, keyed


def claims(*indexes: int, task: str = "t", priority: int = 0) -> list[Candidate]:
    return [Candidate(True, -priority, 100.0, Claimant(task, index, 1), 1) for index in indexes]


def batch(*indexes: int, task: str = "t", priority: int = 0, name: str = "first") -> Batch:
    """Return a batch, which another one with the same first claim and the same name is."""
    (found,) = new_batches("k", claims(*indexes, task=task, priority=priority), lambda: name)
    number = claims(*sorted(indexes))[0].claimant.node
    return found._replace(name=f"{found.name}{number}")


def queue_of(*batches: Batch, left: tuple[tuple[str, int], ...] = ()) -> KeyQueue:
    queue = KeyQueue()
    queue.add(batches, left)
    return queue


def front(queue: KeyQueue) -> list[int]:
    return [one.claimant.node for one in queue.front(100)]


def test_claims_of_several_batches_are_in_the_order_of_places() -> None:
    queue = queue_of(batch(3, 1, 4))
    queue.add([batch(2, 5), batch(9, priority=1)])
    assert front(queue) == [9, 1, 2, 3, 4, 5]


def test_a_record_has_what_its_batch_has() -> None:
    stored = batch(*range(5))._replace(gone=frozenset({1, 3}))
    assert queue_batch(queue_record("key", "k", stored)) == stored


def test_claims_that_the_record_of_the_key_counts_have_left_their_batch() -> None:
    stored = batch(*range(5))
    queue = queue_of(stored._replace(gone=[3]), left=((stored.batch_id, 2),))
    assert front(queue) == [2, 4]
    queue.remove(claims(2))
    assert queue.left(()) == ((stored.batch_id, 4),)
    assert queue.is_counted(claims(2)[0])
    queue.remove(claims(4))
    assert [one.batch.name for one in queue.empty_batches()] == [stored.name]


def test_a_claim_that_leaves_before_others_of_its_batch_is_not_counted() -> None:
    queue = queue_of(batch(1, 2))
    queue.remove(claims(2))
    assert not queue.is_counted(claims(2)[0])
    assert (front(queue), queue.left(())) == ([1], ())


def test_a_claim_that_is_in_two_batches_leaves_both() -> None:
    queue = queue_of(batch(1, 2), batch(1, name="second"))
    assert (front(queue), queue.empty_batches()) == ([1, 2], [])
    queue.remove(claims(1))
    assert [one.batch for one in queue.empty_batches()] == [batch(1, name="second")]
    assert queue.left(()) == (("first1", 1), ("second1", 1))


def test_a_claim_that_comes_into_the_queue_again_counts_again() -> None:
    queue = queue_of(batch(1))
    queue.remove(claims(1))
    queue.add([batch(1, 2, name="second")])
    assert front(queue) == [1, 2]
    (begun,) = queue.empty_batches()
    queue.forget(begun)
    queue.remove(claims(1))
    assert queue.is_counted(claims(1)[0])


def test_the_counts_of_batches_that_may_follow_are_kept_but_not_without_limit() -> None:
    others = tuple((f"{number}", 1) for number in range(MOST_OTHERS + 5))
    queue = queue_of(batch(1, 2), batch(8, 9))
    queue.remove(claims(1))
    known = (batch(1, 2).batch_id, 1)
    assert queue.left(others) == (known,)
    queue.cut(claims(8)[0])
    queue.add([batch(2, 20)])
    assert front(queue) == [2], "others may be missing after the claims that were read"
    assert queue.left((*others, known)) == (*others[5:], known)
    (begun,) = queue.batches_of(claims(1)[0])
    queue.forget(begun)
    assert queue.left((known,)) == ()


async def test_as_many_claims_are_read_as_are_asked_for_and_only_those_that_are_certain() -> None:
    async with InMemoryStore() as store:
        batches = [batch(1, 50), batch(2, 3), *(batch(number) for number in range(10, 40))]
        await store.records.change(
            [
                RecordChange(f"{number}", [queue_record("key", "k", one)])
                for number, one in enumerate(batches)
            ]
        )
        queue = await read_queue(store.records, "key", "k", (), most=3)
        assert (front(queue), queue.has(3), queue.has(9)) == ([1, 2, 3, 10], True, False)
        left = tuple((one.batch_id, 1) for one in batches[2:22])
        queue = await read_queue(store.records, "key", "k", left, most=9)
        assert front(queue)[:5] == [1, 2, 3, 30, 31]
        whole = await read_queue(store.records, "key", "k", (), most=100)
    assert (len(whole.claims), whole.has(200)) == (34, True)


@pytest.mark.parametrize("why", ["others changed the key", "it is short", "it is empty"])
async def test_a_queue_in_memory_is_read_again(why: str) -> None:
    async with InMemoryStore() as store:
        keys, queue = KeyStore("key", store), queue_of(batch(2, 3))
        state = KeyState((Holder(Claimant("t", 0, 1), 0.0),), contended=True)
        stored = [queue_record("key", "k", batch(*indexes)) for indexes in ((1, 5), (2, 3))]
        revision = await changed(store, state, stored)
        known = await keys.read(["k"])
        work = KeyWork(serve=True)
        if why == "it is short":
            queue.cut(claims(3)[0])
        elif why == "it is empty":
            work.withdrawn = claims(2, 3)
        keys.keep("k", queue)
        if why == "others changed the key":
            await changed(store, state._replace(holders=()), [], revision)
            known = await keys.read(["k"])
        found = await keys.queues(known, {"k": work}, {})
    assert front(found["k"]) == ([1, 5] if work.withdrawn else [1, 2, 3, 5])


async def test_a_batch_is_changed_once_for_all_claims_that_leave_it() -> None:
    """The claim of a node that ended as it got its place has left by the record of the key."""
    async with InMemoryStore() as store:
        keys, stored = KeyStore("key", store), batch(1, 2, 3)
        state = KeyState(contended=True, left=((stored.batch_id, 1),))
        await changed(store, state, [queue_record("key", "k", stored)])
        known, work = await keys.read(["k"]), KeyWork(withdrawn=claims(1, 2), serve=True)
        queues = await keys.queues(known, {"k": work}, {})
        removals = await keys.removals({"k": work}, queues)
        (change,) = [removal.change for removal in removals]
        assert await store.records.change([change]) == [True]
        (record,) = await store.records.scan("key_queue")
    found = queue_batch(record)
    assert found is not None
    assert found.gone == {0, 1}


async def changed(
    store: InMemoryStore, state: KeyState, batches: list[KeyedRecord], revision: str = ""
) -> str:
    """Store a state of the key after batches in its queue, and return the revision."""
    op_id = f"after {revision}"
    change = key_change("k", state, revision, op_id=op_id, due_at=0.0)
    records = [RecordChange(one.key, [one]) for one in batches]
    assert all(await store.records.change([*records, change]))
    return op_id


# ---------------------------------------------------------------- what a store sees


class Watched(HookedStore):
    """Store that notes the changes and reads of queues, and the claims that held a key."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.reads = 0
        self.holders: list[tuple[int, int]] = []
        """Nodes that held the key, with the numbers of their claims, one after the other."""

    async def before_change(self, change: RecordChange) -> None:
        kinds = [*(one.kind for one in change.put), *(one.kind for one in change.delete)]
        self.changes += "key_queue" in kinds
        self._note(record for record in change.put if record.kind == "key")

    def _note(self, records: Iterable[KeyedRecord]) -> None:
        for record in records:
            for holder in key_state(record).holders:
                one = holder.claimant.node, holder.claimant.number
                if self.holders[-1:] != [one]:
                    self.holders.append(one)

    async def before_read(self, kind: str) -> None:
        self.reads += kind == "key_queue"


def names(count: int) -> Sequence[str]:
    return [f"n{number:02}" for number in range(count)]


async def test_nodes_that_come_into_a_queue_together_cost_few_changes_and_reads_of_it() -> None:
    store, ledger = Watched(), Ledger(0.1)
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        view = await cluster.run(keyed(*names(50)))
        await cluster.clock.sleep(1)
        assert view.status is TaskStatus.FINISHED
        assert ledger.order == names(50)
        assert (store.changes, store.reads) <= (10, 10)
        assert not await store.records.scan("key_queue")
        assert not await store.records.scan("key")


async def test_another_coordinator_gives_no_place_to_a_claim_that_had_one() -> None:
    store, ledger = Watched(), Ledger()
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        task_id = await cluster.client.create_task(graph=keyed(*names(6)))
        await cluster.clock.sleep(25)
        await with_another_coordinator(cluster)
        await finish(cluster, task_id)
        await cluster.clock.sleep(1)
        assert not await store.records.scan("key_queue")
    assert store.holders == [(index, 1) for index in range(6)]


async def with_another_coordinator(cluster: Cluster) -> None:
    await cluster.coordinators.pop().stop()
    await cluster.add_coordinator()
    await cluster.clock.sleep(1)


@pytest.mark.parametrize("ahead", [1, 6])
async def test_a_node_in_the_middle_of_a_batch_leaves_the_queue(ahead: int) -> None:
    """Its batch is in the memory of the coordinator, or far behind those that were read."""
    store, ledger = Watched(), Ledger()
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for _ in range(ahead):
            ids.append(await cluster.client.create_task(graph=keyed("first")))
            await cluster.clock.sleep(0.1)
        ids.append(await cluster.client.create_task(graph=keyed(*names(4))))
        await cluster.clock.sleep(1)
        if ahead > 1:
            await with_another_coordinator(cluster)
        await cluster.client.resolve_node(ids[-1], "n02", "finished", by="ann")
        await cluster.clock.sleep(1)
        await with_another_coordinator(cluster)
        await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        assert not await store.records.scan("key_queue")
    assert ledger.order == [*["first"] * ahead, "n00", "n01", "n03"]
    assert store.holders[-3:] == [(0, 1), (1, 1), (3, 1)]


async def test_a_claim_of_another_coordinator_counts_before_those_in_memory() -> None:
    ledger = Ledger()
    async with Cluster(coordinators=2, handlers=[ledger.handlers["work"]]) as cluster:
        create = cluster.client.create_task
        many = await create(graph=keyed(*names(6)), task_id=id_in_partition(0))
        await cluster.clock.sleep(25)
        urgent = await create(graph=keyed("urgent"), priority=9, task_id=id_in_partition(7))
        await finish(cluster, many, urgent)
    assert ledger.order == [*names(3), "urgent", *names(6)[3:]]


async def test_a_claim_that_came_into_the_queue_of_a_free_key_leaves_it() -> None:
    async with Cluster(coordinators=2, handlers=[Ledger().handlers["work"]]) as cluster:
        create, ids = cluster.client.create_task, []
        for name, partition in (("a", 7), ("b", 0)):
            ids.append(await create(graph=keyed(name), task_id=id_in_partition(partition)))
            await cluster.clock.sleep(1)
        await finish(cluster, *ids)
        # For the first coordinator, the second one's node still holds the key.
        last = await create(graph=keyed("c"), task_id=id_in_partition(7, after=ids[0]))
        await finish(cluster, last)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key_queue")


def id_in_partition(partition: int, after: str = "t0") -> str:
    """Return the next id of a task whose events are in a partition of the bus of a cluster."""
    numbers = count(int(after[1:]) + 1)
    return next(f"t{n}" for n in numbers if crc32(f"t{n}".encode()) % 8 == partition)


async def test_nodes_that_are_cancelled_get_no_places_from_another_coordinator() -> None:
    store, ledger = Watched(), Ledger()
    async with Cluster(store=store, coordinators=2, handlers=[ledger.handlers["work"]]) as cluster:
        first, urgent, of_another = id_in_partition(0), id_in_partition(1), id_in_partition(7)
        for task_id, priority in ((first, 0), (urgent, 2), (of_another, 1)):
            graph = keyed(*names(1 if task_id == urgent else 4))
            await cluster.client.create_task(graph=graph, task_id=task_id, priority=priority)
            await cluster.clock.sleep(1)
        await cluster.clock.sleep(15)
        await cluster.client.cancel(of_another)
        await finish(cluster, first)
        assert not await store.records.scan("key_queue")
    assert ledger.order == ["n00", *names(4)]
    assert store.holders == [(index, 1) for index in range(4)], "a claim that is over held the key"


async def test_a_claim_that_a_dead_coordinator_left_before_it_counted_is_taken_out() -> None:
    """A key is free when its queue was read without claims, not when none is in memory."""
    store, ledger = Watched(), Ledger()
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        task_id = await cluster.client.create_task(graph=keyed(*names(2)))
        await cluster.clock.sleep(5)
        left = queue_record("key", "k", batch(7, task="deleted"))
        await store.records.change([RecordChange("left", [left])])
        await finish(cluster, task_id)
        await with_another_coordinator(cluster)
        assert not await store.records.scan("key_queue")
        assert not await store.records.scan("key")
    assert store.holders == [(0, 1), (1, 1), (7, 1)]


async def test_a_damaged_batch_is_replaced_by_one_with_the_claims_that_still_wait() -> None:
    store, ledger = Watched(), Ledger()
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        task_id = await cluster.client.create_task(graph=keyed(*names(6)))
        await cluster.clock.sleep(25)
        (queued,) = await store.records.scan("key_queue")
        damage = RecordChange("damage", [replace(queued, data=b"damaged")])
        assert await store.records.change([damage]) == [True]
        await with_another_coordinator(cluster)
        await finish(cluster, task_id)
        await cluster.clock.sleep(1)
        assert not await store.records.scan("key_queue")
    assert ledger.order == names(6)
    assert store.holders == [(index, 1) for index in range(6)]


class Unsure(Watched):
    """Store that does not confirm the second grant of a key."""

    async def before_change(self, change: RecordChange) -> None:
        await super().before_change(change)
        if self.holders == [(0, 1), (1, 1)]:
            self.holders.append((-1, -1))
            assert await self._records.change([change]) == [True]
            raise StoreUnavailable("not confirmed")


async def test_a_node_starts_soon_if_it_was_not_known_that_its_place_is_stored() -> None:
    ledger = Ledger()
    async with Cluster(store=Unsure(), handlers=[ledger.handlers["work"]]) as cluster:
        await cluster.run(keyed(*names(2)))
        assert ledger.order == names(2)
        assert cluster.clock.monotonic() < 25
