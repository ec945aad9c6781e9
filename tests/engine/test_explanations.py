"""The sentences that say why a node is not running, for states of a task that are hard to reach."""

from flowkit._tasks.explanations import explain_node
from tests.engine.drive import Play, graph


def explained(play: Play, name: str) -> str:
    index = play.index(name)
    return explain_node(play.task, index, play.task.records.get(index), now=play.now, served=True)


def test_a_node_that_waits_for_ends_names_the_parents_that_have_not_ended():
    play = Play(graph("a b c -> d", on_node_failure="continue", d={"fan_in": "ended"}))
    play.breaks("a")
    assert explained(play, "d") == "'d' waits for the end of 'b', 'c'."
