"""Uids of the batches of shards, which all store into the stream of their node."""


def uid_of_shard(shard: int, uid: str) -> str:
    """Return the uid that a batch of a shard has in the stream of the node."""
    return prefix_of_shard(shard) + uid


def prefix_of_shard(shard: int) -> str:
    """Return what the uids of all batches of a shard begin with."""
    return f"{shard}/"


def shard_of(uid: str) -> int:
    """Return the shard that has stored a batch of a node with shards."""
    return int(uid.partition("/")[0])
