"""Plugin of the entry-point group ``flowkit``: checks of webhooks in ``flowkit doctor``, and the
page in ``flowkit dev``.

Each command loads this plugin, and few need what it offers: that is imported where it is used.
"""

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, CheckResult


def flowkit_check_bus(bus: Bus, config: CommonConfig) -> Awaitable[Sequence[CheckResult]] | None:
    """Return a check for each configured webhook."""
    if not config.options.get("web", {}).get("webhooks"):
        return None
    from flowkit_web._webhook_service import check_webhooks

    return check_webhooks(bus, config)


def flowkit_open_page(config: CommonConfig) -> AbstractAsyncContextManager[str]:
    """Return the server of the page for this machine."""
    from flowkit_web._server import serving_page

    return serving_page(config)
