"""Models of the values that the handlers take and return."""

from pydantic import BaseModel


class Traveller(BaseModel):
    name: str
    to: str


class Booking(BaseModel):
    number: str
    price: float


class CostCentre(BaseModel):
    number: int


class Ticket(BaseModel):
    seat: str
