from dataclasses import dataclass

from flowkit import flow, loop
from flowkit.flows import NodeRef, iteration
from flowkit.worker import handler


@dataclass
class Export:
    ready: bool
    url: str = ""


@handler("order_export")
async def order_export(shop: str) -> str:
    return f"export-of-{shop}"


@handler("ask")
async def ask(export: str, asked: int) -> Export:
    return Export(ready=asked == 2, url=f"https://example.org/{export}")


@handler("download")
async def download(url: str) -> str:
    return f"{url} is stored"


@flow
def status(export: str, asked: int) -> NodeRef[Export]:
    return ask(export, asked)


@flow
def exported(shop: str = "paris") -> object:
    export = order_export(shop)
    found = loop(
        status,
        export,
        asked=iteration,
        until=lambda status: status.ready,
        delay_sec=60,
        max_iterations=1_440,
    )
    return download(found.url)
