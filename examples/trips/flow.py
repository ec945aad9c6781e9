"""The flow: book a trip, ask for approval, pay, and check in on the day before the flight. If it
fails, the bookings are taken back.
"""

from datetime import datetime

from examples.trips.handlers import (
    book_flight,
    book_hotel,
    cancel_flight,
    cancel_hotel,
    check_in,
    pay,
    tell,
    total,
)
from examples.trips.models import CostCentre, Ticket, Traveller
from flowkit import approval, finally_, flow, sleep, wait_signal

DAY_SEC = 86_400


@flow
def trip(traveller: Traveller, check_in_at: datetime, limit: float = 500.0) -> dict[str, object]:
    flight = book_flight(traveller).undo(cancel_flight)
    hotel = book_hotel(traveller)
    hotel.undo(cancel_hotel(hotel, reason=f"no trip to {traveller.to}"))
    price = total([flight, hotel])
    agreed = approval(
        f"{traveller.name} to {traveller.to} for {price} EUR?",
        form=CostCentre,
        assignees=["ann", "bob"],
        timeout_sec=2 * DAY_SEC,
    ).options(node_id="agreed", when=price > limit)
    paid = pay(price, agreed)
    ticket = wait_signal("ticket", schema=Ticket, timeout_sec=7 * DAY_SEC)
    paid >> ticket >> sleep(until=check_in_at) >> (checked := check_in(traveller, ticket))
    with finally_() as task:
        tell(traveller.name, f"your trip to {traveller.to} has {task.status}")
    return {"paid": paid, "seat": checked}
