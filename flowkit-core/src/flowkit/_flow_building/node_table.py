"""Nodes of a flow that is being built."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flowkit._flow_building.drafts import Draft, next_number
from flowkit._flow_building.places import calling_place, flow_error, with_place
from flowkit.errors import Fault, GraphError
from flowkit.graph._later_phases import UNDO_SUFFIX


class NodeTable:
    """Nodes of a flow, in the order of their calls."""

    def __init__(self, place: str) -> None:
        """``place`` is that of the flow."""
        self.number = next_number()
        """Number by which values name the flow."""
        self._calls: dict[int, bool] = {}
        """Numbers of the calls of functions with a value, and whether they are going on."""
        self.by_id: dict[str, Draft] = {}
        self.by_number: dict[int, Draft] = {}
        """Nodes that were made by calls, with the undos."""
        self._place = place
        self._drafts: dict[Draft, None] = {}
        self._made: dict[str, tuple[str, int]] = {}
        """Function and number of each id that was made and is in use."""
        self._least: dict[str, int] = {}
        """Least number that may be free, by the name of a function."""

    def __iter__(self) -> Iterator[Draft]:
        return iter(self._drafts)

    def add(self, name: str, node_type: str, *, is_final: bool) -> Draft:
        """Add a node. Its id is made of the name of the function that is called."""
        number = self._least.get(name, 1)
        while (node_id := f"{name}_{number}" if number > 1 else name) in self.by_id:
            number += 1
        self._made[node_id] = (name, number)
        self._least[name] = number + 1
        draft = Draft(node_id, node_type, calling_place(), is_final)
        self.by_id[node_id] = self.by_number[draft.number] = draft
        self._drafts[draft] = None
        return draft

    def remove(self, draft: Draft) -> None:
        """Remove a node."""
        self._free(draft.node_id)
        del self._drafts[draft]

    def rename(self, draft: Draft, node_id: str) -> None:
        """Give a node another id."""
        if not isinstance(node_id, str):
            raise flow_error(f"node_id must be a string, not {type(node_id).__name__}")
        other = self.by_id.get(node_id, draft)
        if other is not draft:
            raise flow_error(f"another node has the node_id {node_id!r}: {other.place}")
        if draft.is_named and node_id != draft.node_id:
            raise flow_error(
                f"the node_id {draft.node_id!r} is already in use by an expression; give another"
                " one before the value of the node is used"
            )
        self._free(draft.node_id)
        draft.node_id = node_id
        draft.has_own_id = True
        self.by_id[node_id] = draft

    def _free(self, node_id: str) -> None:
        """Make an id free for other nodes."""
        del self.by_id[node_id]
        if node_id in self._made:
            name, number = self._made.pop(node_id)
            self._least[name] = min(self._least[name], number)

    def check_own(self, drafts: Iterable[Draft], place: str | None = None) -> None:
        """Check that nodes are in this flow.

        Raises:
            GraphError: one of them is not. The message names ``place``, or the line that is run.
        """
        for draft in drafts:
            if draft.undoes is not None:
                raise flow_error(
                    f"the call is the undo of {draft.undoes.node_id!r} and has no other use; call"
                    " the handler again for a node of its own",
                    place,
                )
            if self.by_id.get(draft.node_id) is not draft:
                raise _foreign(f"node {draft.node_id!r}", place)

    @contextmanager
    def call(self) -> Iterator[int]:
        """Call a function with a value that has the number of the call, and no meaning later."""
        number = next_number()
        self._calls[number] = True
        try:
            yield number
        finally:
            self._calls[number] = False

    def check_flows(self, source: str, numbers: Iterable[int], place: str | None = None) -> None:
        """Check that a value has a meaning in this flow and now. ``numbers`` are those of its flows
        and calls.

        Raises:
            GraphError: it has none. The message names ``place``, or the line that is run.
        """
        for number in numbers:
            if number != self.number and number not in self._calls:
                raise _foreign(source, place)
            if not self._calls.get(number, True):
                raise flow_error(
                    f"{source} has a meaning only in the function that it was given to", place
                )

    def check_counted(self) -> None:
        """Check that no fan-in that counts some nodes counts others too."""
        for draft in self._drafts:
            if not draft.counted:
                continue
            routes = [one for one in self._drafts for into in one.routing.values() if draft in into]
            for other in (*draft.parents, *routes):
                fault = (
                    f"waits for the first of some nodes, and for {other.node_id!r} as well; pass"
                    " first(...) through a node of its own"
                )
                raise GraphError([self.placed(Fault(draft.node_id, fault))])

    def placed(self, fault: Fault) -> Fault:
        """Return a fault with the line of its node."""
        node_id = fault.node_id or ""
        draft = self.by_id.get(node_id.removesuffix(UNDO_SUFFIX))
        is_undo = node_id.endswith(UNDO_SUFFIX) or fault.message.startswith(("undo:", "undo."))
        if draft is not None and is_undo:
            draft = draft.undo
        place = self._place if draft is None else draft.place
        return Fault(fault.node_id, with_place(fault.message, place))


def _foreign(what: str, place: str | None) -> GraphError:
    return flow_error(
        f"{what} belongs to another flow; give its value to this flow as a param, or return it from"
        " the flow it belongs to",
        place,
    )
