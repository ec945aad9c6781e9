"""Names of topics."""

import re
from functools import lru_cache

from flowkit.errors import ConfigError

LONGEST_TOPIC = 249
"""Length of the longest topic name that Kafka accepts."""
ENCODED_PREFIX = "x--"
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_ESCAPED = re.compile(rb"[^A-Za-z0-9-]")


def role_in_topic(role: str) -> str:
    """Return the form of a role in the name of its topic.

    A role of letters, digits, ``.``, ``_`` and ``-`` is not changed. Any other becomes ``x--`` and
    its UTF-8 bytes, where ``_`` and two hexadecimal digits replace each byte that is not a letter,
    a digit or ``-``. A role that begins with ``x--`` is encoded too, so that two roles never share
    a topic.
    """
    if _TOPIC.fullmatch(role) and role not in {".", ".."} and not role.startswith(ENCODED_PREFIX):
        return role
    escaped = _ESCAPED.sub(
        lambda byte: b"_%02x" % byte[0][0], role.encode("utf-8", "surrogatepass")
    )
    return ENCODED_PREFIX + escaped.decode("ascii")


@lru_cache(maxsize=1024)
def topic_of_role(role: str, pattern: str, namespace: str) -> str:
    """Return the topic of the commands to a role. ``pattern`` is the configured ``topic_cmd_fmt``.

    Raises:
        ConfigError: Kafka does not accept the name.
    """
    name = role_in_topic(role)
    return checked_topic(
        pattern.format(namespace=namespace, role=name, type=name), f"role {role[:60]!r}"
    )


def checked_topic(topic: str, what: str) -> str:
    """Return a topic's name. The error begins with ``what``: the field or object that names it.

    Raises:
        ConfigError: Kafka does not accept the name.
    """
    if len(topic) > LONGEST_TOPIC:
        raise ConfigError(
            f"{what}: its topic {_short(topic)} has {len(topic)} characters; the limit is"
            f" {LONGEST_TOPIC}"
        )
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ConfigError(
            f"{what}: {_short(topic)} is not a topic name; use letters, digits, '.', '_' and '-'"
        )
    return topic


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
