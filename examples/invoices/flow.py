"""The flow: take the rate that arrives first, write an invoice of the hours worked, and send it."""

from datetime import date

from examples.invoices.handlers import (
    approve,
    bank_rate,
    checked_rate,
    hours_of,
    invoice,
    market_rate,
    remind,
    send,
)
from examples.invoices.models import Customer
from flowkit import first, flow


@flow(deadline_sec=60)
def invoicing(
    customer: Customer, day: date = date(2026, 1, 31), limit: float = 1_000.0
) -> dict[str, object]:
    hours = hours_of(customer, day)
    rates = [bank_rate(customer.currency), market_rate(customer.currency)]
    rate = checked_rate(first(1, *rates, rest="cancel")[0])
    bill = invoice(hours.worked, rate, day)
    approved = approve.options(when=bill.amount > limit)(bill)
    sent = send(bill, f"{customer.name}: {bill.amount} {bill.currency} for {hours.worked} hours")
    approved >> sent.on_failure(remind)
    return {"amount": bill.amount, "message": sent}
