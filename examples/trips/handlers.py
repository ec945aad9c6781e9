"""The handlers: bookings, and what takes them back."""

from examples.trips.models import Booking, CostCentre, Ticket, Traveller
from flowkit.flows import Decision
from flowkit.worker import handler


@handler("book_flight")
async def book_flight(traveller: Traveller) -> Booking:
    return Booking(number=f"F-{traveller.name}", price=45.0 * len(traveller.to))


@handler("cancel_flight", retry_policy={"max": 20})
async def cancel_flight(booking: Booking) -> str:
    return f"flight {booking.number} cancelled"


@handler("book_hotel")
async def book_hotel(traveller: Traveller) -> Booking:
    return Booking(number=f"H-{traveller.name}", price=30.0 * len(traveller.to))


@handler("cancel_hotel", retry_policy={"max": 20})
async def cancel_hotel(booking: Booking, reason: str) -> str:
    return f"hotel {booking.number} cancelled: {reason}"


@handler("total")
def total(bookings: list[Booking]) -> float:
    return sum(booking.price for booking in bookings)


@handler("pay")
async def pay(price: float, agreed: Decision[CostCentre] | None) -> str:
    """Pay from the cost centre in the form of the approval, if one was needed."""
    centre = agreed.values.number if agreed and agreed.values else "the team"
    return f"{price:g} EUR paid by {centre}"


@handler("check_in")
async def check_in(traveller: Traveller, ticket: Ticket) -> str:
    return f"{traveller.name} sits on {ticket.seat}"


@handler("tell")
async def tell(name: str, text: str) -> str:
    return f"To {name}: {text}"
