"""Times that users write as text."""

from datetime import UTC, datetime, tzinfo


def read_time(text: str, zone: tzinfo = UTC) -> datetime:
    """Return the time of a text in ISO 8601, in UTC.

    A time without a zone is in ``zone``. A day means its midnight.

    Raises:
        ValueError: the text is no such time.
    """
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"expected a time such as 2026-11-27 or 2026-11-27T10:00:00Z, not {text[:100]!r}"
        ) from None
