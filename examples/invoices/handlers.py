"""The handlers: plain typed functions, which tests can call."""

from datetime import date, timedelta

from examples.invoices.models import Customer, Hours, Invoice, Rate
from flowkit.worker import RunContext, handler

PRICES = {"EUR": 80.0, "USD": 95.0}


@handler("hours_of", retry_policy={"max": 5})
async def hours_of(customer: Customer, day: date) -> Hours:
    return Hours(worked=float(len(customer.name) + day.month))


@handler("bank_rate", optional=True)
async def bank_rate(currency: str, ctx: RunContext) -> Rate:
    await ctx.cancellable(ctx.clock.sleep(5))
    return Rate(currency=currency, per_hour=PRICES[currency], source="bank")


@handler("market_rate", optional=True)
async def market_rate(currency: str) -> Rate:
    return Rate(currency=currency, per_hour=PRICES[currency] + 1, source="market")


@handler("checked_rate")
def checked_rate(rate: Rate) -> Rate:
    if rate.per_hour <= 0:
        raise ValueError(f"the rate of {rate.source} is {rate.per_hour}")
    return rate


@handler("invoice")
def invoice(hours: float, rate: Rate, day: date) -> Invoice:
    amount = round(hours * rate.per_hour, 2)
    return Invoice(amount=amount, currency=rate.currency, due=day + timedelta(days=30))


@handler("approve")
def approve(bill: Invoice) -> str:
    return f"{bill.amount} approved"


@handler("send", retry_policy={"max": 1, "backoff_sec": 0.1})
async def send(bill: Invoice, text: str) -> str:
    return f"{text}, due on {bill.due}"


@handler("remind")
async def remind(ctx: RunContext) -> list[str]:
    return [f"{node_id}: {error['error']}" for node_id, error in ctx.errors.items()]
