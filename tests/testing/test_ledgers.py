"""The rules of keys and cached results in the simulation, over all stored tasks."""

from flowkit.task import KeyClaim, Mark, NodeRecord
from flowkit_testing.simulation._caches import CacheLedger
from flowkit_testing.simulation._keys import KeyLedger
from tests.engine.drive import Play, graph

HELD = KeyClaim("k", 1, "held", 0.0)
UNNAMED = KeyClaim("", 2, "unnamed", 0.0)


def marks(*of_nodes: int) -> str:
    return "".join(map(chr, of_nodes))


def test_a_node_whose_next_cache_key_is_not_known_yet_computes_nothing() -> None:
    ledger = CacheLedger()
    computing, asking = NodeRecord(cache=HELD), NodeRecord(cache=UNNAMED)
    assert ledger.fault("t", marks(Mark.ISSUED, Mark.DEFERRED), {0: computing}) is None
    assert ledger.fault("t", marks(Mark.ASKING, Mark.DEFERRED), {0: asking}) is None
    assert ledger.fault("t", marks(Mark.ASKING, Mark.ISSUED), {1: computing}) is None
    fault = ledger.fault("t", marks(Mark.ISSUED, Mark.ISSUED), {0: computing})
    assert fault == "the result for 'k' is computed by [('t', 0), ('t', 1)]"


def test_a_node_that_asks_for_another_key_holds_the_first_one_no_more() -> None:
    ledger = KeyLedger()
    task = Play(graph("a", "b", a={"concurrency_key": "k"}, b={"concurrency_key": "k"})).task
    held, other = NodeRecord(key=HELD), NodeRecord(key=KeyClaim("l", 2, "asked", 0.0))
    task.marks[:] = [Mark.ISSUED, Mark.ISSUED]
    assert ledger.fault(task, {0: held}) is None
    assert ledger.fault(task, {0: other}) is None
    assert ledger.fault(task, {1: held}) is None
    assert ledger.fault(task, {0: held}) == "key 'k' is held by [('t', 0), ('t', 1)]"
