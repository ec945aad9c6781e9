"""Plugin of the entry-point group ``flowkit``: the names of webhooks, their checks in
``flowkit doctor``, and the page in ``flowkit dev``.

Each command loads this plugin, and few need what it offers: that is imported where it is used.
"""

from collections.abc import Awaitable, Collection, Sequence
from contextlib import AbstractAsyncContextManager

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, CheckResult


def flowkit_webhooks(config: CommonConfig) -> Collection[str] | None:
    """Return the names of the configured webhooks."""
    names: Collection[str] | None = config.options.get("web", {}).get("webhooks")
    return names


def flowkit_check_bus(bus: Bus, config: CommonConfig) -> Awaitable[Sequence[CheckResult]] | None:
    """Return a check for each configured webhook."""
    if not flowkit_webhooks(config):
        return None
    from flowkit_web._webhook_service import check_webhooks

    return check_webhooks(bus, config)


def flowkit_open_page(config: CommonConfig) -> AbstractAsyncContextManager[str]:
    """Return the server of the page for this machine."""
    from flowkit_web._server import serving_page

    return serving_page(config)
