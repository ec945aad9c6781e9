"""Cycles in a graph."""

from flowkit.graph._plan import topological_order


def cyclic_components(parents: list[list[int]]) -> list[set[int]]:
    """Return the strongly connected components that have more than one node.

    These are the groups of nodes that wait for each other. The algorithm is Kosaraju's, without
    recursion.
    """
    left = set(range(len(parents))).difference(topological_order(parents))
    children: dict[int, list[int]] = {node: [] for node in left}
    for node in left:
        for parent in parents[node]:
            if parent in left:
                children[parent].append(node)
    finished = _finishing_order(left, children)
    groups = []
    while finished:
        start = finished.pop()
        if start not in left:
            continue
        left.remove(start)
        group, ahead = {start}, [start]
        while ahead:
            for parent in parents[ahead.pop()]:
                if parent in left:
                    left.remove(parent)
                    group.add(parent)
                    ahead.append(parent)
        if len(group) > 1:
            groups.append(group)
    return groups


def _finishing_order(nodes: set[int], children: dict[int, list[int]]) -> list[int]:
    order: list[int] = []
    seen: set[int] = set()
    for start in sorted(nodes):
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(children[start]))]
        while stack:
            node, rest = stack[-1]
            child = next((child for child in rest if child not in seen), None)
            if child is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(child)
                stack.append((child, iter(children[child])))
    return order
