from flowkit import approval, first, flow
from flowkit.flows import Decision
from flowkit.worker import handler


@handler("merge")
async def merge(votes: list[Decision[object]]) -> list[str]:
    return [vote.by for vote in votes]


@flow(on_node_failure="continue")
def voting(change: str = "7") -> object:
    votes = [
        approval(f"Merge {change}?", assignees=[person]).options(node_id=person)
        for person in ("ann", "bob", "eve")
    ]
    return merge(first(2, *votes, rest="cancel"))
