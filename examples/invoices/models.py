"""Models of the values that the handlers take and return."""

from datetime import date

from pydantic import BaseModel, Field


class Customer(BaseModel):
    name: str
    currency: str = Field(pattern="^[A-Z]{3}$")


class Hours(BaseModel):
    worked: float


class Rate(BaseModel):
    currency: str
    per_hour: float
    source: str


class Invoice(BaseModel):
    amount: float
    currency: str
    due: date
