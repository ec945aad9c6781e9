"""Plan of a task with maps: the nodes of its graph, followed by the children of its maps."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

from flowkit.graph._later_phases import UNDO_SUFFIX
from flowkit.graph._models import ALL
from flowkit.graph._plan import Edge, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandedPlan(Plan):
    """Plan that belongs to one task and grows with the maps and the shards of the task.

    The children of maps, and the shards of nodes, are nodes after those of the graph. They share
    the node, the parents and the sources of their owner, and no nodes depend on them.
    """

    owners: list[int]
    """Map of each child, or node of each shard."""
    bases: list[int]
    """Index of each child minus its number."""
    child_inputs: dict[int, Any]
    """Cache of :func:`flowkit.graph._child_inputs.child_input`, by map."""


def expanded(plan: Plan) -> ExpandedPlan:
    """Return a plan with the nodes of a graph, to which children can be added."""
    owners: list[int] = []
    bases: list[int] = []
    own: dict[str, Any] = {item.name: getattr(plan, item.name) for item in fields(Plan)}
    for name in _PER_NODE:
        own[name] = list(own[name])
    own["ids"] = _Ids(plan.ids, owners, bases)
    own["index"] = _Index(plan.index)
    own["computed"] = _Computed(plan.computed, plan.size, owners)
    return ExpandedPlan(**own, owners=owners, bases=bases, child_inputs={})


def add_places(plan: ExpandedPlan, index: int, size: int, number: int = 0) -> None:
    """Add places for the children of a map, or for shards. ``number`` is the number of the first
    one. Only shards read and write streams while these grow.
    """
    base = len(plan.nodes) - number
    lists: Mapping[str, tuple[list[Any], Any]] = {
        name: (getattr(plan, name), getattr(plan, name)[index]) for name in _PER_NODE
    }
    is_of_map = is_map(plan, index)
    own = _OWN | {"streamed": False} if is_of_map else _OWN
    for name, (values, value) in lists.items():
        if name == "parents" and is_of_map:
            value = tuple(edge._replace(streams=False) for edge in value)
        values.extend([own.get(name, value)] * size)
    plan.owners.extend([index] * size)
    plan.bases.extend([base] * size)


def name_children(plan: ExpandedPlan, index: int, places: Sequence[range]) -> None:
    """Give the children at these places the ids of a map. Others have these ids no more."""
    assert isinstance(plan.index, _Index)
    plan.index.blocks[plan.ids[index]] = places


def number_of(plan: Plan, child: int) -> int:
    """Return the number of a shard, or of the item of a child."""
    assert isinstance(plan, ExpandedPlan)
    return child - plan.bases[child - plan.size]


_PER_NODE = ("nodes", "children", "parents", "need", "streamed", "mixed", "sources")
_NO_EDGES: tuple[Edge, ...] = ()
_OWN: dict[str, Any] = {"children": _NO_EDGES, "need": ALL, "mixed": False}
"""Values of children that differ from those of their owner."""


class _Ids(Sequence[str]):
    """Ids of the nodes. Those of children are formatted when they are needed."""

    __slots__ = ("_bases", "_ids", "_owners")

    def __init__(self, ids: Sequence[str], owners: list[int], bases: list[int]) -> None:
        self._ids = ids
        self._owners = owners
        self._bases = bases

    def __len__(self) -> int:
        return len(self._ids) + len(self._owners)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        size = len(self._ids)
        if index < size:
            return self._ids[index]
        child = index - size
        return child_id(self._ids[self._owners[child]], index - self._bases[child])


class _Index(dict[str, int]):
    """Indexes of the nodes of a graph, and of the children of the current runs of its maps."""

    __slots__ = ("blocks",)

    def __init__(self, index: Mapping[str, int]) -> None:
        super().__init__(index)
        self.blocks: dict[str, Sequence[range]] = {}

    def __missing__(self, node_id: str) -> int:
        found: int | None = self.get(node_id)
        if found is None:
            raise KeyError(node_id)
        return found

    def __contains__(self, node_id: object) -> bool:
        return isinstance(node_id, str) and self.get(node_id) is not None

    def get(self, node_id: str, default: Any = None) -> Any:
        found = super().get(node_id)
        if found is not None:
            return found
        owner, number = split_child_id(node_id)
        if number >= 0:
            for places in self.blocks.get(owner, ()):
                if number < len(places):
                    return places[number]
                number -= len(places)
        return default


class _Computed(Container[int]):
    """Nodes with expressions in their input."""

    __slots__ = ("_computed", "_owners", "_size")

    def __init__(self, computed: Container[int], size: int, owners: list[int]) -> None:
        self._computed = computed
        self._size = size
        self._owners = owners

    def __contains__(self, index: object) -> bool:
        assert isinstance(index, int)
        return (index if index < self._size else self._owners[index - self._size]) in self._computed


def is_map(plan: Plan, index: int) -> bool:
    """Return whether a node runs once for each item of a list."""
    return index < plan.size and plan.nodes[index].map is not None


def is_sharded(plan: Plan, index: int) -> bool:
    """Return whether a node has shards."""
    return index < plan.size and plan.nodes[index].io.shards is not None


def has_children(plan: Plan, index: int) -> bool:
    """Return whether a node has children: it is a map, or has shards."""
    return is_map(plan, index) or is_sharded(plan, index)


def is_shard(plan: Plan, index: int) -> bool:
    """Return whether a node is a shard of another one."""
    return index >= plan.size and plan.nodes[index].io.shards is not None


def stored_by(plan: Plan, index: int) -> int:
    """Return the node that has the artifacts which a node stores: of a shard, its node."""
    return map_of(plan, index) if is_shard(plan, index) else index


def runs_child_task(plan: Plan, index: int) -> bool:
    """Return whether a node runs a child task. A map of such nodes leaves that to its children."""
    return bool(plan.nested) and node_of(plan, index) in plan.nested and not is_map(plan, index)


def map_of(plan: Plan, child: int) -> int:
    """Return the map of a child, or the node of a shard."""
    assert isinstance(plan, ExpandedPlan)
    return plan.owners[child - plan.size]


def node_of(plan: Plan, index: int) -> int:
    """Return a node of the graph: the map of a child, the node of a shard, or the node itself."""
    return index if index < plan.size else map_of(plan, index)


def is_undo(plan: Plan, index: int) -> bool:
    """Return whether a node is an undo: that of a node, of a map, or of a child of a map."""
    return plan.ends is not None and node_of(plan, index) in plan.ends.undos


def child_id(node_id: str, number: int) -> str:
    """Return the id of a child of a map, or of a shard; given the undo of a map, that of the
    child's undo.
    """
    name, suffix = _split_undo_id(node_id)
    return f"{name}[{number}]{suffix}"


def split_child_id(node_id: str) -> tuple[str, int]:
    """Return the map and the number of the item in the id of a child; -1 if it is no such id. The
    map of a child's undo is the undo of the map.
    """
    name, suffix = _split_undo_id(node_id)
    owner, opening, number = name.removesuffix("]").rpartition("[")
    is_number = number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS
    is_child = opening and name.endswith("]") and not owner.endswith(UNDO_SUFFIX)
    if not is_child or not is_number or str(int(number)) != number:
        return node_id, -1
    return owner + suffix, int(number)


def _split_undo_id(node_id: str) -> tuple[str, str]:
    """Return the id of the node of an undo, and the suffix that the id of the undo has besides."""
    name = node_id.removesuffix(UNDO_SUFFIX)
    return name, UNDO_SUFFIX if len(name) < len(node_id) else ""


_MOST_DIGITS = 9
LONGEST_CHILD_SUFFIX = len("[]") + _MOST_DIGITS
