from flowkit import flow
from flowkit.errors import NodeFailure
from flowkit.worker import handler


@handler("book", retry_policy={"max": 5, "permanent_on": ["sold_out"]})
async def book(seat: str) -> str:
    if seat in ("1A", "1B"):
        raise NodeFailure(f"seat {seat} is taken", reason_code="sold_out")
    return seat


@flow
def booking(seat: str) -> object:
    return book(seat)
