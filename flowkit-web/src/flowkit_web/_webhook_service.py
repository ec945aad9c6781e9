"""The command ``flowkit webhooks``, and its checks in ``flowkit doctor``."""

import logging
from collections.abc import Mapping, Sequence

import anyio

from flowkit import Client
from flowkit.adapters import why_unreadable
from flowkit.cli.verbs import WebhookLetters, metrics_server, stopped_by_signals
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import ConfigError
from flowkit.protocols import Bus, CheckResult, TopicSpec
from flowkit_web._config import WebConfig
from flowkit_web._webhook_config import WebhookConfig
from flowkit_web._webhook_deliveries import WebhookDeliveries, group_of
from flowkit_web._webhook_requests import open_receiver

logger = logging.getLogger(__name__)

STOP_SEC = 5.0
MOST_BEHIND = 1_000
"""Changes that may wait for a webhook before ``flowkit doctor`` reports it."""
PUBLISH = "set publish_changes = true in the configuration of all coordinators"
START = "check that `flowkit webhooks` runs, and the reasons in its log; then the receiver itself"


def webhooks_of(cfg: CommonConfig) -> Mapping[str, WebhookConfig]:
    """Return the configured webhooks by name."""
    return WebConfig.from_options(cfg.options.get("web", {})).webhooks


async def send_webhooks(cfg: CommonConfig) -> None:
    """Deliver changes to all configured webhooks until a signal arrives.

    Raises:
        ConfigError: no webhook is configured, or a file of one cannot be read.
    """
    webhooks = webhooks_of(cfg)
    if not webhooks:
        raise ConfigError("no webhook is configured; add one to options.web.webhooks")
    client, serving = Client(cfg=cfg), anyio.Event()

    async def why_not_ready() -> str | None:
        if not serving.is_set() or group.cancel_scope.cancel_called:
            return "the webhooks are not started, or stop"
        return await why_unreadable(client.store, client.clock)

    async with (
        metrics_server(cfg, client.plugins, client=None, why_not_ready=why_not_ready),
        client,
        client.plugins.open_bus(cfg.bus_address(), cfg) as bus,
        anyio.create_task_group() as group,
    ):
        await bus.ensure_topics([TopicSpec(cfg.changes_topic), TopicSpec(cfg.dead_letter_topic)])
        with stopped_by_signals(group.cancel_scope.cancel, patience_sec=STOP_SEC):
            for name, webhook in webhooks.items():
                letters = WebhookLetters(name, client.store, client.clock, client.plugins)
                group.start_soon(_send, webhook, letters, bus, cfg)
            serving.set()
            logger.info("Sending to %s", ", ".join(webhooks), extra={"action": "webhooks_ready"})
            await anyio.sleep_forever()


async def _send(
    webhook: WebhookConfig, letters: WebhookLetters, bus: Bus, cfg: CommonConfig
) -> None:
    deliveries = WebhookDeliveries(
        webhook,
        bus=bus,
        topic=cfg.changes_topic,
        group=group_of(cfg.namespace, letters.webhook),
        clock=letters.clock,
        letters=letters,
    )
    async with open_receiver(webhook, letters.webhook) as receiver:
        await deliveries.run(receiver.post)


async def check_webhooks(bus: Bus, cfg: CommonConfig) -> Sequence[CheckResult]:
    """Return a check for each webhook: how many changes wait for it."""
    return [await _check(name, bus, cfg) for name in webhooks_of(cfg)]


async def _check(name: str, bus: Bus, cfg: CommonConfig) -> CheckResult:
    if isinstance(cfg, CoordinatorConfig) and not cfg.publish_changes:
        return CheckResult(f"webhook {name}", False, "publish_changes is off", PUBLISH)
    places = await bus.outstanding(cfg.changes_topic, group_of(cfg.namespace, name))
    if places is None:
        return CheckResult(f"webhook {name}", True, "this bus does not know what waits for it")
    behind = sum(end - first for first, end in places.values())
    detail = f"{behind:,} changes behind"
    return CheckResult(f"webhook {name}", behind < MOST_BEHIND, detail, START)
