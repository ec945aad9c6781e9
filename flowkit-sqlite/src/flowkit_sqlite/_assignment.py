"""Assignment of partitions to the members of a group."""

from collections.abc import Collection, Mapping


def balanced(owners: Mapping[int, int | None], members: Collection[int]) -> dict[int, int | None]:
    """Return the owner of each partition.

    The shares of the members differ by at most one. As many partitions as possible keep their
    owners. Without members, no partition has an owner.
    """
    if not members:
        return dict.fromkeys(owners)
    kept: dict[int, list[int]] = {member: [] for member in members}
    free: list[int] = []
    for partition, owner in owners.items():
        (free if owner is None or owner not in kept else kept[owner]).append(partition)
    least, extra = divmod(len(owners), len(kept))
    ordered = sorted(kept, key=lambda member: (-len(kept[member]), member))
    shares = {member: least + (index < extra) for index, member in enumerate(ordered)}
    for member, share in shares.items():
        free += kept[member][share:]
        del kept[member][share:]
    assigned: dict[int, int | None] = {}
    for member, share in shares.items():
        wanted = share - len(kept[member])
        assigned |= dict.fromkeys(kept[member] + free[:wanted], member)
        del free[:wanted]
    return assigned
