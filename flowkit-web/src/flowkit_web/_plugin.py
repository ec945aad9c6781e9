"""Plugin of the entry-point group ``flowkit``: checks of webhooks in ``flowkit doctor``."""

from collections.abc import Awaitable, Sequence

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, CheckResult


def flowkit_check_bus(bus: Bus, config: CommonConfig) -> Awaitable[Sequence[CheckResult]] | None:
    """Return a check for each configured webhook."""
    if not config.options.get("web", {}).get("webhooks"):
        return None
    from flowkit_web._webhook_service import check_webhooks

    return check_webhooks(bus, config)
