from flowkit import flow, subflow
from flowkit.worker import handler


@handler("appraise")
async def appraise(item: str) -> float:
    return 100.0 * len(item)


@handler("inspect")
async def inspect(item: str) -> str:
    return f"{item} is in order"


@handler("insure")
async def insure(report: str, value: float) -> str:
    return f"insured for {value}: {report}"


@handler("send")
async def send(item: str, value: float, insurance: str | None) -> str:
    return f"{item} of {value} sent, {insurance or 'not insured'}"


@flow
def insured(item: str, value: float) -> object:
    return insure(inspect(item), value)


@flow
def shipped(item: str, limit: float = 500.0) -> object:
    value = appraise(item)
    insurance = subflow(insured, item, value=value).options(when=value > limit)
    return send(item, value, insurance)
