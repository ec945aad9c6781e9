"""The coordinator function ``kafka.publish``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic_core import to_json

from flowkit.errors import BusError, ConfigError, MessageTooLarge, NodeFailure, TopicUnavailable
from flowkit.protocols import Message

if TYPE_CHECKING:
    from flowkit.coordinator.functions import FunctionContext

IDEMPOTENCY_HEADER = "flowkit-idempotency-key"
_OWN_HEADERS = "flowkit-"


async def publish(
    ctx: "FunctionContext",
    topic: str,
    value: Any,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, int] | None:
    """Publish one message: ``value`` as JSON, with a key and headers.

    The message is confirmed by all replicas before the node ends. If the coordinator crashes in
    between, it is published again, with the same header ``flowkit-idempotency-key``.
    """
    from flowkit_kafka._publisher import Publisher

    _check_texts(topic, key, headers)
    try:
        publisher = await ctx.resource(Publisher)
    except ConfigError as error:
        _refuse("not_configured", str(error))
    if (objection := publisher.objection(topic)) is not None:
        _refuse("topic_not_allowed", objection)
    identity = {IDEMPOTENCY_HEADER: _idempotency_key(ctx).encode()}
    own = {name: text.encode() for name, text in (headers or {}).items()}
    try:
        return await publisher.send(Message(topic, to_json(value), key or "", own | identity))
    except MessageTooLarge as error:
        _refuse("message_too_large", str(error))
    except TopicUnavailable as error:
        text = f"topic {topic!r} does not exist, has no leader, or may not be written"
        raise NodeFailure(f"{text}: {error.__cause__}", reason_code="topic_unavailable") from error
    except BusError as error:
        raise NodeFailure(str(error), reason_code="kafka_unavailable") from error


def _check_texts(topic: Any, key: Any, headers: Any) -> None:
    if not isinstance(topic, str):
        _refuse("bad_input", f"topic must be a text, not {type(topic).__name__}")
    if not isinstance(key, str | None):
        _refuse("bad_input", f"key must be a text or null, not {type(key).__name__}")
    if not isinstance(headers, Mapping | None):
        _refuse("bad_input", f"headers must be an object, not {type(headers).__name__}")
    for name, text in (headers or {}).items():
        if not isinstance(text, str):
            _refuse("bad_input", f"header {name!r} must be a text, not {type(text).__name__}")
        if name.startswith(_OWN_HEADERS):
            _refuse("bad_input", f"header {name!r}: names with {_OWN_HEADERS!r} are FlowKit's own")


def _idempotency_key(ctx: "FunctionContext") -> str:
    return "/".join(
        name.replace("%", "%25").replace("/", "%2F") for name in (ctx.task_id, ctx.node_id)
    )


def _refuse(reason: str, text: str) -> NoReturn:
    raise NodeFailure(text, reason_code=reason, permanent=True)
