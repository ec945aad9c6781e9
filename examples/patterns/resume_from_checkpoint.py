from flowkit import flow
from flowkit.worker import RunContext, handler


@handler("import", retry_policy={"max": 10})
async def import_pages(pages: int, ctx: RunContext) -> int:
    start: int = (ctx.progress or {}).get("page", 0)
    for page in range(start, pages):
        await ctx.clock.sleep(1)
        await ctx.heartbeat({"page": page + 1})
    return pages - start


@flow
def importing(pages: int = 10) -> object:
    return import_pages(pages)
