"""The promises about maps, and about nodes with shards, for one stored state of a task, written
without the engine.
"""

from flowkit.graph._expanded_plan import is_sharded, is_undo
from flowkit.task import ATTEMPTED, ENDED, IN_FLIGHT, Mark, Task


def broken_map(task: Task) -> str | None:
    """Describe the first map that broke a promise about its children; None if there is none."""
    for index, state in task.maps.items():
        name, spec = task.spec.plan.ids[index], task.spec.plan.nodes[index].map
        marks = bytes(task.marks[child] for child in state.children())
        started = sum(mark in ATTEMPTED for mark in marks)
        limit = None if spec is None else spec.max_parallel
        if limit is not None and started > limit:
            return f"{started} children of map {name!r} are in flight, and max_parallel is {limit}"
        left = sum(mark not in ENDED for mark in marks)
        if left and task.marks[index] in IN_FLIGHT and is_sharded(task.spec.plan, index):
            return f"the end of node {name!r} has begun, and {left} of its shards have not ended"
        if left and task.marks[index] in ENDED:
            return f"map {name!r} has ended, and {left} of its children have not"
        if task.marks[index] == Mark.FINISHED and not is_undo(task.spec.plan, index):
            failed = spec is None or spec.on_item_failure == "fail"
            if task.record(index).resolution is not None:
                continue
            given = (Mark.FINISHED, Mark.SKIPPED)  # an operator may skip a child
            if any(mark not in given and (failed or mark != Mark.FAILED) for mark in marks):
                return f"map {name!r} has finished, and its children ended as {marks.decode()}"
    return None
