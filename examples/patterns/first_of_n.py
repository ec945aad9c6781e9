from flowkit import first, flow
from flowkit.worker import handler


@handler("rate")
async def rate(bank: str) -> float:
    return float(len(bank))


@handler("convert")
async def convert(amount: float, rates: list[float]) -> float:
    return amount * rates[0]


@flow
def conversion(amount: float = 100.0) -> object:
    offers = [rate.options(node_id=bank)(bank) for bank in ("north", "south", "east")]
    return convert(amount, first(1, *offers, rest="cancel"))
